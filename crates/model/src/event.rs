//! What happened, in order. The journal of events survives a restart of the coordinator.

use crate::id::{EventSeq, InstanceId, NodeName, ServiceName};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub seq: EventSeq,
    /// When it happened, on the coordinator's clock.
    pub at: UnixMs,
    /// How much it matters.
    pub severity: Severity,
    /// A stable word: `rollout-started`, `instance-exited`, `node-silent`, ...
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// About which service, where it is about one.
    pub service: Option<ServiceName>,
    /// About which node, where it is about one.
    pub node: Option<NodeName>,
    /// About which instance, where it is about one.
    pub instance: Option<InstanceId>,
    /// Figures and facts: exit codes, pids, milliseconds.
    pub fields: BTreeMap<String, String>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Normal operation.
    #[default]
    Info,
    /// Look at it in the morning.
    Warning,
    /// Look at it now.
    Error,
}
