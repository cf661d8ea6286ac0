//! Measurements of nodes and instances, as agents take them.

use crate::id::{InstanceId, ReleaseNumber};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One sample of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Share of all processors in use since the last sample, 0 to 1.
    pub cpu: f64,
    /// One-minute load average.
    pub load1: f64,
    /// Memory in use (total less available).
    pub memory_used_bytes: u64,
    /// Memory in all.
    pub memory_total_bytes: u64,
    /// Free space for us on the file system of the agent's state.
    pub disk_free_bytes: u64,
    /// Its size.
    pub disk_total_bytes: u64,
    /// Bytes received per second, over all interfaces but loopback.
    pub network_rx_bytes_per_s: f64,
    /// Bytes sent per second.
    pub network_tx_bytes_per_s: f64,
    /// The agent's own resident memory.
    pub agent_memory_bytes: u64,
    /// Per instance.
    pub instances: BTreeMap<InstanceId, InstanceMetrics>,
}

/// One sample of an instance: the workload and its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceMetrics {
    /// Processors in use since the last sample: 1.0 is one whole core.
    pub cpu: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Processes.
    pub processes: u32,
}

/// What an instance used at one moment, and of which release it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// When the sample came.
    pub at: UnixMs,
    /// The release that it ran.
    pub release: ReleaseNumber,
    /// Thousandths of a processor since the sample before.
    pub milli_cores: u64,
    /// Resident memory.
    pub memory_bytes: u64,
}
