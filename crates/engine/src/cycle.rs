//! The order of one run of the coordinator, as a machine without I/O, so that the simulation runs the very code
//! that production runs: load, decide, commit record by record, send, wait.
//!
//! Commit, then send. A lost compare-and-set throws the outcome away and decides again.

mod refusal;

pub use refusal::decide_audited;

use crate::input::Input;
use crate::outcome::{Assignment, Assignments, EventDraft};
use crate::progress::{Progress, ServiceProgress};
use crate::route::routes;
use baton_model::desired::Desired;
use baton_model::id::{Generation, InstanceId, NodeName, Revision, RouteRevision, ServiceName};
use baton_model::observed::Observed;
use baton_model::report::Report;
use baton_model::route::Route;
use baton_model::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// The generation that gave each instance its present assignment.
    #[serde(default)]
    pub changed: BTreeMap<InstanceId, Generation>,
}

impl PlanRecord {
    /// The instances whose present assignment is newer than a plan of this generation.
    fn newer_than(&self, generation: Generation) -> impl Iterator<Item = &InstanceId> {
        self.changed.iter().filter(move |(_, changed)| **changed > generation).map(|(id, _)| id)
    }

    /// The record that follows this one.
    fn followed_by(&self, generation: Generation, assignments: Assignments) -> Self {
        let changed = assignments.iter().map(|(id, assignment)| {
            let kept = self.changed.get(id).filter(|_| {
                // What is released changes nothing that the instance is to be.
                self.assignments
                    .get(id)
                    .is_some_and(|had| Assignment { released: assignment.released, ..*had } == *assignment)
            });
            (id.clone(), kept.copied().unwrap_or(generation))
        });
        Self { generation, changed: changed.collect(), assignments }
    }
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
        /// The routes of all services, where they are others than those of the send before (or this is the first): for
        /// the table of every gateway.
        routes: Option<BTreeMap<ServiceName, Route>>,
    },
    /// Nothing to do until woken by a change, or until this time.
    Wait(Option<UnixMs>),
}

/// Runs in a row that may end in a conflict before the cycle waits a moment: whoever else writes needs a turn too.
pub const CONFLICTS_MAX: u32 = 8;
/// The wait after a store that failed, or after [`CONFLICTS_MAX`] conflicts.
pub const RETRY_AFTER: Millis = Millis::secs(1);

/// The machine. It remembers only where it is in the present run, and events whose change is already durable.
#[derive(Clone, Debug, Default)]
pub struct Cycle {
    now: UnixMs,
    conflicts: u32,
    writes: VecDeque<Write>,
    stored: BTreeSet<ServiceName>,
    plans: BTreeMap<NodeName, PlanRecord>,
    events: Vec<EventDraft>,
    /// Events of earlier runs that broke off after the progress they tell of was stored.
    owed: Vec<EventDraft>,
    report: Report,
    /// Services whose decisions are refused, as people were told: once is enough.
    refused: BTreeSet<ServiceName>,
    /// The same by the present run, which may still break off.
    refusing: BTreeSet<ServiceName>,
    /// The revisions of the routes that were sent last; `None` before the first send.
    routed: Option<RouteRevisions>,
    /// The routes of the present run, where they differ from those.
    routes: Option<(RouteRevisions, BTreeMap<ServiceName, Route>)>,
    wake_at: Option<UnixMs>,
}

type RouteRevisions = BTreeMap<ServiceName, RouteRevision>;

impl Cycle {
    /// Begins a run. Whatever an earlier run had left is thrown away.
    pub fn begin(&mut self) -> Action {
        self.writes.clear();
        self.stored.clear();
        Action::Load
    }

    /// The snapshot was read: decides.
    pub fn loaded(&mut self, snapshot: Snapshot, observed: &Observed, now: UnixMs) -> Action {
        let Snapshot { desired, progress: versioned, plans } = snapshot;
        let mut revisions = BTreeMap::new();
        let mut progress = Progress::new();
        for (name, record) in versioned {
            revisions.insert(name.clone(), record.revision);
            progress.insert(name, record.value);
        }
        let unconfirmed = unconfirmed(&plans, observed);
        let input =
            Input { desired: &desired, observed, progress: &progress, unconfirmed: &unconfirmed, now };
        let (outcome, refused) = decide_audited(&input);
        self.now = now;
        self.routes = self.changed_routes(&progress, &outcome.progress);
        self.writes = progress_writes(outcome.progress, &revisions);
        self.plans = plan_writes(outcome.assignments, plans, observed, &mut self.writes);
        self.events = outcome.events;
        let new = refused.iter().filter(|(service, _)| !self.refused.contains(*service));
        self.events.extend(new.map(|(service, why)| refusal::event(service, why)));
        self.refusing = refused.into_keys().collect();
        self.report = outcome.report;
        self.wake_at = outcome.wake_at;
        self.next()
    }

    fn next(&mut self) -> Action {
        if let Some(write) = self.writes.front() {
            return Action::Write(write.clone());
        }
        let mut events = std::mem::take(&mut self.owed);
        events.append(&mut self.events);
        self.refused = std::mem::take(&mut self.refusing);
        let routes = self.routes.take().map(|(revisions, routes)| {
            self.routed = Some(revisions);
            routes
        });
        Action::Send {
            routes,
            plans: std::mem::take(&mut self.plans),
            events,
            report: std::mem::take(&mut self.report),
        }
    }

    /// Takes the events that tell of `write`, for a store that keeps them in the same transaction; `Send` then tells
    /// the rest. They count as told: where the write does not come about, they are gone with the outcome.
    pub fn take_events(&mut self, write: &Write) -> Vec<EventDraft> {
        let Write::Progress(service, _, _) = write else { return Vec::new() };
        self.events.extract_if(.., |event| event.service.as_ref() == Some(service)).collect()
    }

    /// A write ended.
    pub fn written(&mut self, written: Written) -> Action {
        let Some(write) = self.writes.pop_front() else { return Action::Wait(self.wake_at) };
        match written {
            Written::Stored(_) => {
                if let Write::Progress(service, _, _) = write {
                    self.stored.insert(service);
                }
                self.next()
            }
            Written::Conflict => {
                self.abandon();
                self.conflicts += 1;
                if self.conflicts > CONFLICTS_MAX {
                    self.conflicts = 0;
                    return Action::Wait(Some(self.now.plus(RETRY_AFTER)));
                }
                Action::Load
            }
            Written::Failed => {
                self.abandon();
                Action::Wait(Some(self.now.plus(RETRY_AFTER)))
            }
        }
    }

    /// Throws the outcome away, but keeps what must still be told: the next decision no longer sees those changes.
    fn abandon(&mut self) {
        let stored = std::mem::take(&mut self.stored);
        let told = std::mem::take(&mut self.events).into_iter();
        self.owed.extend(
            told.filter(|event| event.service.as_ref().is_some_and(|service| stored.contains(service))),
        );
        self.writes.clear();
        self.plans.clear();
        self.routes = None;
    }

    /// All routes as they will be remembered, where any has another revision than was sent last.
    fn changed_routes(
        &self,
        stored: &Progress,
        changed: &BTreeMap<ServiceName, Option<ServiceProgress>>,
    ) -> Option<(RouteRevisions, BTreeMap<ServiceName, Route>)> {
        let kept = stored.iter().filter(|(name, _)| !changed.contains_key(*name));
        let new = changed.iter().filter_map(|(name, memory)| Some((name, memory.as_ref()?)));
        let latest = || kept.clone().chain(new.clone());
        let routed = latest().filter(|(_, memory)| memory.route.current.is_some());
        let revisions: RouteRevisions =
            routed.map(|(name, memory)| (name.clone(), memory.route.revision)).collect();
        (self.routed.as_ref() != Some(&revisions)).then(|| (revisions, routes(latest())))
    }

    /// The sends were handed over.
    pub fn sent(&mut self) -> Action {
        self.conflicts = 0;
        Action::Wait(self.wake_at)
    }
}

/// What the nodes that are behind their stored plans have not confirmed: for [`Input::unconfirmed`].
#[must_use]
pub fn unconfirmed(
    plans: &BTreeMap<NodeName, Versioned<PlanRecord>>,
    observed: &Observed,
) -> BTreeSet<InstanceId> {
    let behind = plans.iter().filter_map(|(name, plan)| {
        let has = observed.nodes.get(name).map_or(Generation(0), |node| node.generation);
        (has < plan.value.generation).then(|| plan.value.newer_than(has))
    });
    behind.flatten().cloned().collect()
}

/// Progress is written first: plans are a pure function of it, so a crash in between heals on the next run.
fn progress_writes(
    progress: BTreeMap<ServiceName, Option<ServiceProgress>>,
    revisions: &BTreeMap<ServiceName, Revision>,
) -> VecDeque<Write> {
    let revision = |name: &ServiceName| revisions.get(name).copied().unwrap_or_default();
    progress
        .into_iter()
        .map(|(name, memory)| Write::Progress(name.clone(), revision(&name), memory))
        .collect()
}

/// Queues the plans that changed and returns those that must be sent: the changed ones, and the ones a node is behind.
/// A generation also passes what the node says it has: a store that was restored from a backup must not fall behind it.
fn plan_writes(
    mut assignments: BTreeMap<NodeName, Assignments>,
    stored: BTreeMap<NodeName, Versioned<PlanRecord>>,
    observed: &Observed,
    writes: &mut VecDeque<Write>,
) -> BTreeMap<NodeName, PlanRecord> {
    let mut send = BTreeMap::new();
    let has = |node: &NodeName| observed.nodes.get(node).map_or(Generation(0), |node| node.generation);
    let mut change = |node: NodeName, revision, old: &PlanRecord, assignments| {
        let record = old.followed_by(old.generation.max(has(&node)).next(), assignments);
        writes.push_back(Write::Plan(node.clone(), revision, record.clone()));
        record
    };
    for (node, Versioned { revision, value }) in stored {
        let wanted = assignments.remove(&node).unwrap_or_default();
        if wanted != value.assignments || has(&node) > value.generation {
            let record = change(node.clone(), revision, &value, wanted);
            send.insert(node, record);
        } else if observed.nodes.get(&node).is_some_and(|seen| seen.generation < value.generation) {
            send.insert(node, value);
        }
    }
    for (node, wanted) in assignments {
        let record = change(node.clone(), Revision(0), &PlanRecord::default(), wanted);
        send.insert(node, record);
    }
    send
}

#[cfg(test)]
mod tests;
