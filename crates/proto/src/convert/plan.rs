//! Releases and node plans.

use super::field::{WireError, counted, required, text};
use crate::v1;
use baton_model::desired::Release;
use baton_model::id::{Generation, InstanceId, ReleaseNumber, RunNumber};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

impl From<Release> for v1::Release {
    fn from(release: Release) -> Self {
        Self {
            number: release.number.0,
            version: release.version.into(),
            artifact: Some(release.artifact.into()),
            spec: Some(release.spec.into()),
            created_at_ms: release.created_at.0,
            created_by: release.created_by,
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = WireError;
    fn try_from(wire: v1::Release) -> Result<Self, WireError> {
        Ok(Self {
            number: ReleaseNumber(counted("number", wire.number)?),
            version: text("version", &wire.version)?,
            artifact: required("artifact", wire.artifact)?,
            spec: required("spec", wire.spec)?,
            created_at: UnixMs(wire.created_at_ms),
            created_by: wire.created_by,
        })
    }
}

impl From<NodePlan> for v1::NodePlan {
    /// Sends each release once, however many instances run it.
    fn from(plan: NodePlan) -> Self {
        let mut releases: Vec<v1::Release> = Vec::new();
        // By service and number, which name a release in full; compared in full all the same below.
        let mut known: BTreeMap<(String, u64), u32> = BTreeMap::new();
        let mut instances = Vec::with_capacity(plan.instances.len());
        for (id, instance) in plan.instances {
            let key = (id.service.as_str().to_owned(), instance.release.0);
            let (number, attempt, reload) = (instance.release, instance.attempt, instance.reload);
            let released = instance.released.0;
            let release = v1::Release {
                number: number.0,
                version: instance.version.into(),
                artifact: Some(instance.artifact.into()),
                spec: Some(instance.spec.into()),
                // An agent has no use for who made it and when.
                created_at_ms: 0,
                created_by: String::new(),
            };
            let same = known.get(&key).copied().filter(|at| releases[*at as usize] == release);
            let release_index = same.unwrap_or_else(|| {
                let at = u32::try_from(releases.len()).expect("fewer than 2^32 releases on one node");
                releases.push(release);
                known.insert(key, at);
                at
            });
            instances.push(v1::InstancePlan { id: id.into(), release_index, attempt, reload, released });
        }
        Self { node: plan.node.into(), generation: plan.generation.0, releases, instances }
    }
}

impl TryFrom<v1::NodePlan> for NodePlan {
    type Error = WireError;
    fn try_from(wire: v1::NodePlan) -> Result<Self, WireError> {
        let releases: Vec<Release> = super::field::each("releases", wire.releases)?;
        let mut instances = BTreeMap::new();
        for (at, instance) in wire.instances.into_iter().enumerate() {
            let field = |name: &str| format!("instances[{at}].{name}");
            let id: InstanceId = text(&field("id"), &instance.id)?;
            let release = usize::try_from(instance.release_index).ok().and_then(|index| releases.get(index));
            let release = release.ok_or_else(|| {
                let problem =
                    format!("{} is none of the {} releases sent", instance.release_index, releases.len());
                WireError::new(field("release_index"), problem)
            })?;
            if release.spec.name != id.service {
                let problem = format!("{id} cannot run a release of `{}`", release.spec.name);
                return Err(WireError::new(field("release_index"), problem));
            }
            let plan = InstancePlan {
                release: release.number,
                version: release.version.clone(),
                attempt: instance.attempt,
                reload: instance.reload,
                released: RunNumber(instance.released),
                artifact: release.artifact.clone(),
                spec: release.spec.clone(),
            };
            if instances.insert(id, plan).is_some() {
                return Err(WireError::new(field("id"), format!("`{}` is there twice", instance.id)));
            }
        }
        Ok(Self { node: text("node", &wire.node)?, generation: Generation(wire.generation), instances })
    }
}
