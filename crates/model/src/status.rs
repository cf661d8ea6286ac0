//! What the coordinator answers when it is asked: the nouns above put together, at one moment. Never stored.
//!
//! The CLI prints them as `--json`; their field names are part of its interface.

use crate::desired::{Node, Release};
use crate::id::{Generation, InstanceId, NodeName, ReleaseNumber, ServiceName, Version};
use crate::metrics::{InstanceMetrics, NodeMetrics};
use crate::observed::{InstanceObserved, NodeFacts};
use crate::report::{ServiceReport, StageReport, Waiting};
use crate::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// How it stands, and what it waits for.
    pub report: ServiceReport,
    /// Its instances and where they are.
    pub instances: Vec<PlacedInstance>,
    /// The releases that are kept, oldest first.
    pub releases: Vec<Release>,
    /// When this was so.
    pub now: UnixMs,
    /// It is being removed.
    pub removed: bool,
}

/// An instance: what it should be, and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedInstance {
    /// Its name.
    pub id: InstanceId,
    /// The node it is placed on.
    pub node: NodeName,
    /// The release it should run.
    pub wanted_release: ReleaseNumber,
    /// That release's version.
    pub wanted_version: Version,
    /// Its node is silent, so that what is observed may be old.
    pub node_silent: bool,
    /// What its agent said last; `None` where it has said nothing.
    pub observed: Option<InstanceObserved>,
    /// Its latest sample, where there is one.
    pub metrics: Option<InstanceMetrics>,
}

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node as its operators see it.
    pub node: Node,
    /// Its agent has a session.
    pub connected: bool,
    /// How long it has been silent, where it is not connected and was heard before.
    pub silent_for: Option<Millis>,
    /// What its agent said of it.
    pub facts: NodeFacts,
    /// The generation of the plan it should have.
    pub plan_generation: Generation,
    /// The generation of the plan it says it has.
    pub acked_generation: Generation,
    /// What is placed on it.
    pub instances: Vec<PlacedInstance>,
    /// Its latest sample, where there is one.
    pub metrics: Option<NodeMetrics>,
    /// When this was so.
    pub now: UnixMs,
}

/// What a deploy would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPlan {
    /// The service does not exist yet.
    pub first: bool,
    /// This very release is already wanted.
    pub unchanged: bool,
    /// What differs from the present release, for people.
    pub changes: Vec<String>,
    /// The stages it would go through.
    pub stages: Vec<StageReport>,
    /// The instances it would place.
    pub new_instances: Vec<PlannedInstance>,
    /// What would wait, or be refused.
    pub waiting: Vec<Waiting>,
}

/// An instance that a deploy would place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInstance {
    /// Its name.
    pub instance: InstanceId,
    /// Where it would go.
    pub node: NodeName,
}
