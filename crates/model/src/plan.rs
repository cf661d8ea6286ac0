//! What a node must do: the whole of it, with a generation.

use crate::artifact::Artifact;
use crate::id::{Generation, InstanceId, NodeName, ReleaseNumber, RunNumber, Version};
use crate::spec::ServiceSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The complete plan of one node. An agent refuses one with a lower generation than it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Whose plan this is.
    pub node: NodeName,
    /// Only grows.
    pub generation: Generation,
    /// Everything that should run here; what is not named here is stopped and removed.
    pub instances: BTreeMap<InstanceId, InstancePlan>,
}

/// What one instance should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancePlan {
    /// The release to run.
    pub release: ReleaseNumber,
    /// Its version, for people and for the workload's environment.
    pub version: Version,
    /// Grows when a swap that failed should be tried again.
    pub attempt: u32,
    /// Counts the reloads that operators asked for; a workload started under a lower number is to reload.
    #[serde(default)]
    pub reload: u64,
    /// Every run up to this one is out of the routes of all live gateways and has nothing of theirs in flight. Where a
    /// service has a route, a run that was replaced waits for this before it is drained and stopped, at most for its
    /// `stop.drain`.
    #[serde(default)]
    pub released: RunNumber,
    /// What to run.
    pub artifact: Artifact,
    /// How to run it.
    pub spec: ServiceSpec,
}
