//! Upgrades of the agents' program.

use super::field::{WireError, counted, keyed, required, text};
use crate::v1::{self, node_upgrade::State};
use baton_model::id::{NodeName, Version};
use baton_model::time::UnixMs;
use baton_model::upgrade::{AgentUpgrade, NodeAsked, NodeUpgrade, UpgradeFailure};

impl From<AgentUpgrade> for v1::AgentUpgrade {
    fn from(upgrade: AgentUpgrade) -> Self {
        Self {
            request: upgrade.request,
            version: upgrade.version.into(),
            artifact: Some(upgrade.artifact.into()),
            batch: Some(upgrade.batch.into()),
            requested_at_ms: upgrade.requested_at.0,
            requested_by: upgrade.requested_by,
            nodes: upgrade.nodes.into_iter().map(|(name, node)| (name.into(), node.into())).collect(),
            paused: upgrade.paused,
            cancelled: upgrade.cancelled,
        }
    }
}

impl TryFrom<v1::AgentUpgrade> for AgentUpgrade {
    type Error = WireError;
    fn try_from(wire: v1::AgentUpgrade) -> Result<Self, WireError> {
        Ok(Self {
            request: counted("request", wire.request)?,
            version: text::<Version>("version", &wire.version)?,
            artifact: required("artifact", wire.artifact)?,
            batch: required("batch", wire.batch)?,
            requested_at: UnixMs(wire.requested_at_ms),
            requested_by: wire.requested_by,
            nodes: keyed::<NodeName, _, _>("nodes", wire.nodes)?,
            paused: wire.paused,
            cancelled: wire.cancelled,
        })
    }
}

impl From<NodeUpgrade> for v1::NodeUpgrade {
    fn from(node: NodeUpgrade) -> Self {
        let state = match node {
            NodeUpgrade::Waiting => State::Waiting(true),
            NodeUpgrade::Asked(asked) => State::Asked(v1::NodeAsked {
                at_ms: asked.at.0,
                ready: asked.ready.iter().map(ToString::to_string).collect(),
                back_at_ms: asked.back_at.map(|at| at.0),
                well_since_ms: asked.well_since.map(|at| at.0),
            }),
            NodeUpgrade::Done { at } => State::DoneAtMs(at.0),
            NodeUpgrade::Failed { reason } => State::Failed(reason),
        };
        Self { state: Some(state) }
    }
}

impl TryFrom<v1::NodeUpgrade> for NodeUpgrade {
    type Error = WireError;
    fn try_from(wire: v1::NodeUpgrade) -> Result<Self, WireError> {
        Ok(match wire.state.ok_or_else(|| WireError::unset("state"))? {
            State::Waiting(_) => Self::Waiting,
            State::Asked(asked) => Self::Asked(NodeAsked {
                at: UnixMs(asked.at_ms),
                ready: asked.ready.iter().map(|id| text("ready", id)).collect::<Result<_, _>>()?,
                back_at: asked.back_at_ms.map(UnixMs),
                well_since: asked.well_since_ms.map(UnixMs),
            }),
            State::DoneAtMs(at) => Self::Done { at: UnixMs(at) },
            State::Failed(reason) => Self::Failed { reason },
        })
    }
}

impl From<UpgradeFailure> for v1::UpgradeFailure {
    fn from(failure: UpgradeFailure) -> Self {
        Self { request: failure.request, reason: failure.reason }
    }
}

impl From<v1::UpgradeFailure> for UpgradeFailure {
    /// For people, and a number that is compared with others: there is nothing to check in it.
    fn from(wire: v1::UpgradeFailure) -> Self {
        Self { request: wire.request, reason: wire.reason }
    }
}
