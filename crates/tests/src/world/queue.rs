//! The queue of what is going to happen, in the order of time and then of being said.

use super::gateway::Letter;
use super::network::Envelope;
use super::workload::Change;
use baton_engine::cycle::{Write, Written};
use baton_engine::instance::Event;
use baton_model::id::{GatewayName, InstanceId, NodeName, RunNumber};
use baton_model::plan::InstancePlan;
use std::collections::BTreeMap;

/// Something that happens at a time. What belongs to a process names its life: it is void once that life is over.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// A coordinator process starts.
    CoordinatorStarts,
    /// It was woken, or its timer has come.
    CoordinatorWakes { process: u64 },
    /// It has read its snapshot.
    CoordinatorLoads { process: u64 },
    /// A write reaches the store, though its process may be gone.
    WriteLands { process: u64, write: Write },
    /// The answer of a write.
    WriteAnswered { process: u64, written: Written },
    /// A message arrives.
    Delivered(Envelope),
    /// An agent starts on its node.
    AgentStarts { node: NodeName },
    /// It opens a session.
    AgentConnects { node: NodeName, life: u64 },
    /// Its heartbeat, and its look at how long the coordinator has been silent.
    AgentBeats { node: NodeName, life: u64 },
    /// It reports what changed.
    AgentReports { node: NodeName, life: u64 },
    /// A timer of an instance.
    AgentTimer { node: NodeName, life: u64, id: InstanceId },
    /// Something the agent was waiting for on behalf of an instance.
    AgentHears { node: NodeName, life: u64, id: InstanceId, event: Event },
    /// A fetch has come to its end.
    FetchEnds { node: NodeName, life: u64, id: InstanceId, plan: Box<InstancePlan> },
    /// A check is answered.
    CheckAnswers { node: NodeName, life: u64, id: InstanceId, run: RunNumber },
    /// A workload changes by itself.
    WorkloadChanges { node: NodeName, id: InstanceId, run: RunNumber, execution: u64, change: Change },
    /// A stop sequence is over.
    StopEnds { node: NodeName, boot: u64, id: InstanceId, run: RunNumber },
    /// A host boots.
    HostBoots { node: NodeName },
    /// A partition ends.
    LinkMends { node: NodeName },
    /// A gateway starts.
    GatewayStarts { gateway: GatewayName },
    /// It opens a session.
    GatewayConnects { gateway: GatewayName, life: u64 },
    /// Its heartbeat, and its look at how long the coordinator has been silent.
    GatewayBeats { gateway: GatewayName, life: u64 },
    /// It sends a request, and tells what changed.
    GatewayWorks { gateway: GatewayName, life: u64 },
    /// It says that it serves by the table it took.
    GatewayAcknowledges { gateway: GatewayName, life: u64 },
    /// A letter between it and the coordinator arrives.
    Posted(Letter),
    /// A partition of a gateway ends.
    GatewayLinkMends { gateway: GatewayName },
    /// Some fault strikes a gateway.
    GatewayFaultStrikes,
    /// Some fault strikes.
    FaultStrikes,
    /// An operator does something.
    OperatorActs,
    /// Faults end.
    Heals,
    /// Everything is looked at: has it come to rest?
    Looks,
}

/// The queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    due: BTreeMap<(u64, u64), Happening>,
    said: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, happening: Happening) {
        self.said += 1;
        self.due.insert((at, self.said), happening);
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Happening)> {
        self.due.pop_first().map(|((at, _), happening)| (at, happening))
    }
}
