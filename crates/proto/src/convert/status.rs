//! The coordinator's answers.

use super::field::{WireError, Within, choice, each, optional, required, text};
use super::observed::{instance_observed, instance_to_wire};
use crate::v1;
use baton_model::id::{Generation, InstanceId, ReleaseNumber};
use baton_model::observed::NodeFacts;
use baton_model::status::{
    DeployPlan, NodeStatus, PlacedInstance, PlannedChange, PlannedInstance, ServiceStatus, UndeliveredWebhook,
};
use baton_model::time::{Millis, UnixMs};

impl From<ServiceStatus> for v1::ServiceStatus {
    fn from(status: ServiceStatus) -> Self {
        let now = status.now;
        Self {
            name: status.name.into(),
            report: Some(status.report.into()),
            instances: status.instances.into_iter().map(|instance| placed_to_wire(instance, now)).collect(),
            releases: status.releases.into_iter().map(Into::into).collect(),
            traffic: status.traffic.into_iter().map(Into::into).collect(),
            webhooks: status.webhooks.into_iter().map(Into::into).collect(),
            now_ms: now.0,
            removed: status.removed,
        }
    }
}

impl TryFrom<v1::ServiceStatus> for ServiceStatus {
    type Error = WireError;
    fn try_from(wire: v1::ServiceStatus) -> Result<Self, WireError> {
        let now = UnixMs(wire.now_ms);
        Ok(Self {
            name: text("name", &wire.name)?,
            report: required("report", wire.report)?,
            instances: placed_from_wire(wire.instances, now)?,
            releases: each("releases", wire.releases)?,
            traffic: each("traffic", wire.traffic)?,
            webhooks: wire.webhooks.into_iter().map(Into::into).collect(),
            now,
            removed: wire.removed,
        })
    }
}

impl From<UndeliveredWebhook> for v1::UndeliveredWebhook {
    fn from(webhook: UndeliveredWebhook) -> Self {
        Self {
            target: webhook.target,
            threshold: webhook.threshold,
            attempts: webhook.attempts,
            reason: webhook.reason,
            next_at_ms: webhook.next_at.0,
            given_up_after_ms: webhook.given_up_after.0,
        }
    }
}

impl From<v1::UndeliveredWebhook> for UndeliveredWebhook {
    fn from(wire: v1::UndeliveredWebhook) -> Self {
        Self {
            target: wire.target,
            threshold: wire.threshold,
            attempts: wire.attempts,
            reason: wire.reason,
            next_at: UnixMs(wire.next_at_ms),
            given_up_after: UnixMs(wire.given_up_after_ms),
        }
    }
}

impl From<NodeStatus> for v1::NodeStatus {
    fn from(status: NodeStatus) -> Self {
        let now = status.now;
        Self {
            node: Some(status.node.into()),
            connected: status.connected,
            reported: status.reported,
            silent_for_ms: status.silent_for.map(|length| length.0),
            facts: Some(status.facts.into()),
            plan_generation: status.plan_generation.0,
            acked_generation: status.acked_generation.0,
            instances: status.instances.into_iter().map(|instance| placed_to_wire(instance, now)).collect(),
            metrics: status.metrics.map(Into::into),
            now_ms: now.0,
        }
    }
}

impl TryFrom<v1::NodeStatus> for NodeStatus {
    type Error = WireError;
    fn try_from(wire: v1::NodeStatus) -> Result<Self, WireError> {
        let now = UnixMs(wire.now_ms);
        Ok(Self {
            node: required("node", wire.node)?,
            connected: wire.connected,
            reported: wire.reported,
            silent_for: wire.silent_for_ms.map(Millis),
            facts: NodeFacts::from(wire.facts.ok_or_else(|| WireError::missing("facts"))?),
            plan_generation: Generation(wire.plan_generation),
            acked_generation: Generation(wire.acked_generation),
            instances: placed_from_wire(wire.instances, now)?,
            metrics: optional("metrics", wire.metrics)?,
            now,
        })
    }
}

fn placed_to_wire(placed: PlacedInstance, now: UnixMs) -> v1::PlacedInstance {
    let observed = placed.observed.map(|observed| instance_to_wire(&placed.id, observed, now));
    v1::PlacedInstance {
        id: placed.id.into(),
        node: placed.node.into(),
        wanted_release: placed.wanted_release.0,
        wanted_version: placed.wanted_version.into(),
        node_silent: placed.node_silent,
        observed,
        metrics: placed.metrics.map(Into::into),
    }
}

fn placed_from_wire(wire: Vec<v1::PlacedInstance>, now: UnixMs) -> Result<Vec<PlacedInstance>, WireError> {
    let numbered = wire.into_iter().enumerate();
    numbered.map(|(at, placed)| placed_one(placed, now).within(&format!("instances[{at}]"))).collect()
}

fn placed_one(wire: v1::PlacedInstance, now: UnixMs) -> Result<PlacedInstance, WireError> {
    let id: InstanceId = text("id", &wire.id)?;
    let observed =
        wire.observed.map(|observed| instance_observed(observed, now)).transpose().within("observed")?;
    if let Some((other, _)) = observed.as_ref().filter(|(other, _)| *other != id) {
        return Err(WireError::new("observed.id", format!("`{other}` is another instance than `{id}`")));
    }
    Ok(PlacedInstance {
        id,
        node: text("node", &wire.node)?,
        wanted_release: ReleaseNumber(wire.wanted_release),
        wanted_version: text("wanted_version", &wire.wanted_version)?,
        node_silent: wire.node_silent,
        observed: observed.map(|(_, observed)| observed),
        metrics: optional("metrics", wire.metrics)?,
    })
}

impl From<DeployPlan> for v1::DeployPlan {
    fn from(plan: DeployPlan) -> Self {
        let new_instances = plan.new_instances.into_iter();
        Self {
            first: plan.first,
            unchanged: plan.unchanged,
            changes: plan.changes,
            stages: plan.stages.into_iter().map(Into::into).collect(),
            new_instances: new_instances
                .map(|new| v1::PlannedInstance { instance: new.instance.into(), node: new.node.into() })
                .collect(),
            waiting: plan.waiting.into_iter().map(Into::into).collect(),
            configuration: plan.configuration.into_iter().map(Into::into).collect(),
            change: match plan.change {
                None => v1::PlannedChange::Unspecified,
                Some(PlannedChange::Swap) => v1::PlannedChange::Swap,
                Some(PlannedChange::Refresh) => v1::PlannedChange::Refresh,
            }
            .into(),
        }
    }
}

impl TryFrom<v1::DeployPlan> for DeployPlan {
    type Error = WireError;
    fn try_from(wire: v1::DeployPlan) -> Result<Self, WireError> {
        Ok(Self {
            first: wire.first,
            unchanged: wire.unchanged,
            changes: wire.changes,
            stages: each("stages", wire.stages)?,
            new_instances: each("new_instances", wire.new_instances)?,
            waiting: each("waiting", wire.waiting)?,
            configuration: each("configuration", wire.configuration)?,
            change: match choice("change", wire.change)? {
                v1::PlannedChange::Unspecified => None,
                v1::PlannedChange::Swap => Some(PlannedChange::Swap),
                v1::PlannedChange::Refresh => Some(PlannedChange::Refresh),
            },
        })
    }
}

impl TryFrom<v1::PlannedInstance> for PlannedInstance {
    type Error = WireError;
    fn try_from(wire: v1::PlannedInstance) -> Result<Self, WireError> {
        Ok(Self { instance: text("instance", &wire.instance)?, node: text("node", &wire.node)? })
    }
}
