//! From the stored plan of a node, which names releases by number, to the complete plan that is sent to it.

use baton_engine::cycle::PlanRecord;
use baton_model::desired::Desired;
use baton_model::id::{InstanceId, NodeName, ReleaseNumber};
use baton_model::plan::{InstancePlan, NodePlan};

/// A stored plan names a release that is not kept. Nothing is sent then: a plan without the instance would stop it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the plan of node `{node}` gives instance `{instance}` release {release}, which is not kept; deploy that service again"
)]
pub(crate) struct MissingRelease {
    pub(crate) node: NodeName,
    pub(crate) instance: InstanceId,
    pub(crate) release: ReleaseNumber,
}

/// The complete plan of a node.
pub(crate) fn fill(
    node: &NodeName,
    record: &PlanRecord,
    desired: &Desired,
) -> Result<NodePlan, MissingRelease> {
    let mut plan =
        NodePlan { node: node.clone(), generation: record.generation, instances: Default::default() };
    for (id, assignment) in &record.assignments {
        let service = desired.services.get(&id.service);
        let release =
            service.and_then(|service| service.releases.get(&assignment.release)).ok_or_else(|| {
                MissingRelease { node: node.clone(), instance: id.clone(), release: assignment.release }
            })?;
        let instance = InstancePlan {
            release: release.number,
            version: release.version.clone(),
            attempt: assignment.attempt,
            reload: assignment.reload,
            released: assignment.released,
            artifact: release.artifact.clone(),
            spec: release.spec.clone(),
        };
        plan.instances.insert(id.clone(), instance);
    }
    Ok(plan)
}
