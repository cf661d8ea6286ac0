//! Nodes and their facts.

use super::field::{WireError, text};
use crate::v1;
use baton_model::desired::Node;
use baton_model::observed::NodeFacts;
use baton_model::time::UnixMs;
use std::net::IpAddr;

impl From<Node> for v1::Node {
    fn from(node: Node) -> Self {
        Self {
            name: node.name.into(),
            address: node.address,
            labels: node.labels,
            cordoned: node.cordoned,
            draining: node.draining,
            joined_at_ms: node.joined_at.0,
        }
    }
}

impl TryFrom<v1::Node> for Node {
    type Error = WireError;
    fn try_from(wire: v1::Node) -> Result<Self, WireError> {
        if wire.address.parse::<IpAddr>().is_err() {
            return Err(WireError::new("address", format!("`{}` is not an IP address", wire.address)));
        }
        Ok(Self {
            name: text("name", &wire.name)?,
            address: wire.address,
            labels: wire.labels,
            cordoned: wire.cordoned,
            draining: wire.draining,
            joined_at: UnixMs(wire.joined_at_ms),
        })
    }
}

impl From<NodeFacts> for v1::NodeFacts {
    fn from(facts: NodeFacts) -> Self {
        Self {
            agent_version: facts.agent_version,
            boot_id: facts.boot_id,
            kernel: facts.kernel,
            arch: facts.arch,
            containment: facts.containment,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            ability: facts.ability.map(Into::into),
            program: facts.program.map(|digest| digest.to_string()),
            upgrade_failure: facts.upgrade_failure.map(Into::into),
        }
    }
}

impl From<v1::NodeFacts> for NodeFacts {
    /// Facts are for people; there is nothing to check in them.
    fn from(wire: v1::NodeFacts) -> Self {
        Self {
            agent_version: wire.agent_version,
            boot_id: wire.boot_id,
            kernel: wire.kernel,
            arch: wire.arch,
            containment: wire.containment,
            cpus: wire.cpus,
            memory_bytes: wire.memory_bytes,
            ability: wire.ability.map(Into::into),
            program: wire.program.and_then(|digest| digest.parse().ok()),
            upgrade_failure: wire.upgrade_failure.map(Into::into),
        }
    }
}
