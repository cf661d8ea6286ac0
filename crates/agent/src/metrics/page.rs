//! An agent's page for scrapers. Names and labels are stable: docs/metrics.md lists them, and a test holds the list.
//! What is labelled are the instances of this node; those of releases that are gone leave the page.

use crate::driver::Snapshot;
use crate::journal::Journal;
use baton_metrics::page::{
    self, Collector, ConstCounter, ConstGauge, DescriptorEncoder, Labels, gauge, write_all, write_build,
    write_one,
};
use baton_model::id::InstanceId;
use baton_model::metrics::{InstanceMetrics, NodeMetrics};
use baton_model::observed::{InstanceObserved, InstanceState};
use std::fmt;
use tokio::sync::watch;
use tonic::transport::Channel;

/// Where what is on the page is found.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) observed: watch::Receiver<Snapshot>,
    pub(crate) samples: watch::Receiver<Option<NodeMetrics>>,
    pub(crate) link: watch::Receiver<Option<Channel>>,
    pub(crate) journal: Journal,
}

impl Sources {
    /// The page.
    pub(crate) fn text(&self) -> String {
        let (waiting, dropped) = self.journal.waiting();
        page::text(
            "baton_agent",
            Page {
                observed: self.observed.borrow().clone(),
                sample: self.samples.borrow().clone().unwrap_or_default(),
                connected: self.link.borrow().is_some(),
                waiting,
                dropped,
            },
        )
    }
}

#[derive(Debug, Default)]
struct Page {
    observed: Snapshot,
    sample: NodeMetrics,
    connected: bool,
    waiting: u64,
    dropped: u64,
}

type NodeGauge = (&'static str, &'static str, fn(&NodeMetrics) -> u64);
const OF_NODE: [NodeGauge; 5] = [
    ("memory_bytes", "Resident memory of the agent itself", |it| it.agent_memory_bytes),
    ("node_memory_used_bytes", "Memory of the node in use", |it| it.memory_used_bytes),
    ("node_memory_bytes", "Memory of the node", |it| it.memory_total_bytes),
    ("node_disk_free_bytes", "Space left where the agent keeps its state", |it| it.disk_free_bytes),
    ("node_disk_bytes", "Size of that file system", |it| it.disk_total_bytes),
];

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut out;
        write_build(out, env!("CARGO_PKG_VERSION"))?;
        write_one(out, "connected", "1 while the agent has a coordinator", gauge(self.connected.into()))?;
        let generation = gauge(self.observed.generation.0);
        write_one(out, "plan_generation", "The plan that the node follows", generation)?;
        write_one(out, "events_waiting", "Events that no coordinator has taken yet", gauge(self.waiting))?;
        let dropped = ConstCounter::new(self.dropped);
        write_one(out, "events_dropped", "Events that were lost, since too many waited", dropped)?;
        write_one(
            out,
            "node_cpu_ratio",
            "Share of the node's processors in use",
            ConstGauge::new(self.sample.cpu),
        )?;
        for (name, help, value) in OF_NODE {
            write_one(out, name, help, gauge(value(&self.sample)))?;
        }
        let states = InstanceState::ALL.map(|state| {
            let count = self.observed.instances.values().filter(|(it, _)| it.state == state).count();
            ([("state", state.to_string())], gauge(count as u64))
        });
        write_all(out, "instances", "Instances of this node by their state", states)?;
        self.write_instances(out)
    }
}

type ObservedValue = fn(&InstanceObserved) -> u64;
const OBSERVED: [(&str, &str, ObservedValue); 2] = [
    ("instance_ready", "1 while an instance passes its checks", |it| {
        (it.state == InstanceState::Ready).into()
    }),
    ("instance_crash_loop", "1 while an instance crashes again and again", |it| it.crash_loop.into()),
];
const COUNTED: [(&str, &str, ObservedValue); 2] = [
    ("instance_restarts", "Restarts of the present run of an instance", |it| it.restarts.into()),
    ("instance_log_lines_dropped", "Lines that could not be written to its logs", |it| it.log_drops.lines),
];

impl Page {
    fn write_instances(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let instances = || self.observed.instances.iter().map(|(id, (it, _))| (labels(id, it), it));
        for (name, help, value) in OBSERVED {
            write_all(out, name, help, instances().map(|(labels, it)| (labels, gauge(value(it)))))?;
        }
        for (name, help, value) in COUNTED {
            write_all(
                out,
                name,
                help,
                instances().map(|(labels, it)| (labels, ConstCounter::new(value(it)))),
            )?;
        }
        let measured = || {
            self.observed.instances.iter().filter_map(|(id, (it, _))| {
                let sample: &InstanceMetrics = self.sample.instances.get(id)?;
                Some((labels(id, it), sample))
            })
        };
        let cpu = measured().map(|(labels, it)| (labels, ConstGauge::new(it.cpu)));
        write_all(out, "instance_cpu_cores", "Processors in use: 1 is one whole core", cpu)?;
        let memory = measured().map(|(labels, it)| (labels, gauge(it.memory_bytes)));
        write_all(out, "instance_memory_bytes", "Resident memory of its processes", memory)?;
        let processes = measured().map(|(labels, it)| (labels, gauge(it.processes.into())));
        write_all(out, "instance_processes", "Its processes", processes)
    }
}

fn labels(id: &InstanceId, observed: &InstanceObserved) -> Labels<3> {
    [
        ("service", id.service.to_string()),
        ("release", observed.release.to_string()),
        ("instance", id.to_string()),
    ]
}

#[cfg(test)]
mod tests;
