//! Measurements.

use super::field::{WireError, keyed, measured};
use crate::v1;
use baton_model::metrics::{InstanceMetrics, NodeMetrics};

impl From<NodeMetrics> for v1::NodeMetrics {
    fn from(metrics: NodeMetrics) -> Self {
        Self {
            cpu: metrics.cpu,
            load1: metrics.load1,
            memory_used_bytes: metrics.memory_used_bytes,
            memory_total_bytes: metrics.memory_total_bytes,
            disk_free_bytes: metrics.disk_free_bytes,
            disk_total_bytes: metrics.disk_total_bytes,
            network_rx_bytes_per_s: metrics.network_rx_bytes_per_s,
            network_tx_bytes_per_s: metrics.network_tx_bytes_per_s,
            agent_memory_bytes: metrics.agent_memory_bytes,
            instances: metrics.instances.into_iter().map(|(id, sample)| (id.into(), sample.into())).collect(),
        }
    }
}

impl TryFrom<v1::NodeMetrics> for NodeMetrics {
    type Error = WireError;
    fn try_from(wire: v1::NodeMetrics) -> Result<Self, WireError> {
        Ok(Self {
            cpu: measured("cpu", wire.cpu)?,
            load1: measured("load1", wire.load1)?,
            memory_used_bytes: wire.memory_used_bytes,
            memory_total_bytes: wire.memory_total_bytes,
            disk_free_bytes: wire.disk_free_bytes,
            disk_total_bytes: wire.disk_total_bytes,
            network_rx_bytes_per_s: measured("network_rx_bytes_per_s", wire.network_rx_bytes_per_s)?,
            network_tx_bytes_per_s: measured("network_tx_bytes_per_s", wire.network_tx_bytes_per_s)?,
            agent_memory_bytes: wire.agent_memory_bytes,
            instances: keyed("instances", wire.instances)?,
        })
    }
}

impl From<InstanceMetrics> for v1::InstanceMetrics {
    fn from(metrics: InstanceMetrics) -> Self {
        Self { cpu: metrics.cpu, memory_bytes: metrics.memory_bytes, processes: metrics.processes }
    }
}

impl TryFrom<v1::InstanceMetrics> for InstanceMetrics {
    type Error = WireError;
    fn try_from(wire: v1::InstanceMetrics) -> Result<Self, WireError> {
        Ok(Self {
            cpu: measured("cpu", wire.cpu)?,
            memory_bytes: wire.memory_bytes,
            processes: wire.processes,
        })
    }
}
