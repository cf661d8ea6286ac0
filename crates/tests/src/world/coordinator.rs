//! The coordinator process: it drives the real [`Cycle`], keeps sessions in memory, and can die between any two steps.

use super::World;
use super::counting::Compared;
use super::invariants;
use super::mutation::Mutation;
use super::network::{Body, Envelope, Report};
use super::queue::Happening;
use super::table::Tables;
use baton_engine::cycle::{Action, Cycle, PlanRecord, Snapshot, Write, Written};
use baton_engine::outcome::EventDraft;
use baton_model::desired::Desired;
use baton_model::id::{GatewayName, Generation, NodeName, ServiceName};
use baton_model::observed::{NodeFacts, NodeObserved, Observed};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// The world's first moment on the coordinator's clock.
pub(crate) const EPOCH_MS: u64 = 1_700_000_000_000;
/// Changes that come within this time are decided together.
const DEBOUNCE_MS: u64 = 20;

/// One coordinator process and all it holds in memory.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    pub(crate) process: u64,
    pub(crate) observed: Observed,
    pub(crate) frozen_until: u64,
    cycle: Cycle,
    running: bool,
    woken: bool,
    wake_at: Option<u64>,
    /// The last connection of each node: a newer session replaces the older.
    sessions: BTreeMap<NodeName, u64>,
    pub(crate) tables: Tables,
    /// What each gateway has compared.
    pub(crate) compared: BTreeMap<GatewayName, BTreeMap<ServiceName, Compared>>,
    /// What the present decision was made from: the truth, also where a mutation told the engine otherwise.
    pub(crate) seen: Observed,
    pub(crate) wanted: Desired,
    pub(crate) decided_at: UnixMs,
}

impl World {
    pub(crate) fn unix_now(&self) -> UnixMs {
        UnixMs(EPOCH_MS + self.now)
    }

    pub(crate) fn coordinator_starts(&mut self) {
        if self.coordinator.is_some() {
            return;
        }
        self.processes += 1;
        let process = self.processes;
        self.trace.line(self.now, &format!("coordinator {process} starts"));
        self.coordinator = Some(Coordinator {
            process,
            observed: Observed { listening_since: self.unix_now(), ..Observed::default() },
            frozen_until: 0,
            cycle: Cycle::default(),
            running: false,
            woken: true,
            wake_at: None,
            sessions: BTreeMap::new(),
            tables: Tables::default(),
            compared: BTreeMap::new(),
            seen: Observed::default(),
            wanted: Desired::default(),
            decided_at: UnixMs(0),
        });
        self.queue.push(self.now + 1, Happening::CoordinatorWakes { process });
    }

    /// It dies: what it held in memory is gone, what it handed to the store may still land.
    pub(crate) fn coordinator_dies(&mut self) {
        if let Some(dead) = self.coordinator.take() {
            self.trace.line(self.now, &format!("coordinator {} dies", dead.process));
            let back = self.now + self.random.faults.between(200, 15_000);
            self.queue.push(back, Happening::CoordinatorStarts);
        }
    }

    /// Something changed that a decision may depend on.
    pub(crate) fn wake_coordinator(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        if !coordinator.woken {
            coordinator.woken = true;
            if !coordinator.running {
                let process = coordinator.process;
                self.queue.push(self.now + DEBOUNCE_MS, Happening::CoordinatorWakes { process });
            }
        }
    }

    pub(crate) fn coordinator_wakes(&mut self, process: u64) {
        let Some(coordinator) =
            self.coordinator.as_mut().filter(|alive| alive.process == process && !alive.running)
        else {
            return;
        };
        let due = coordinator.wake_at_or_woken(self.now);
        if !due {
            return;
        }
        coordinator.running = true;
        coordinator.woken = false;
        let action = coordinator.cycle.begin();
        self.coordinator_acts(action);
    }

    pub(crate) fn coordinator_loads(&mut self, process: u64) {
        let (now, mutation) = (self.unix_now(), self.options.mutation);
        let Some(coordinator) = self.coordinator.as_mut().filter(|alive| alive.process == process) else {
            return;
        };
        let mut snapshot: Snapshot = self.store.snapshot();
        let mut observed = coordinator.observed.clone();
        coordinator.seen.clone_from(&observed);
        coordinator.decided_at = now;
        coordinator.wanted.clone_from(&snapshot.desired);
        if let Some(mutation) = mutation {
            mutation.distort_snapshot(&mut snapshot);
            mutation.distort_observed(&snapshot, &mut observed, now);
        }
        invariants::note_healthy(&mut self.ledger, &self.store, coordinator);
        let action = coordinator.cycle.loaded(snapshot, &observed, now);
        self.decisions += 1;
        self.coordinator_acts(action);
    }

    pub(crate) fn write_answered(&mut self, process: u64, written: Written) {
        let Some(coordinator) = self.coordinator.as_mut().filter(|alive| alive.process == process) else {
            return;
        };
        let action = coordinator.cycle.written(written);
        self.coordinator_acts(action);
    }

    /// A write reaches the store. Its writer may be gone.
    pub(crate) fn write_lands(&mut self, process: u64, mut write: Write) {
        if let Some(mutation) = self.options.mutation {
            mutation.distort_write(&mut write);
        }
        let fails = self.faults_on && self.random.store.permille(8);
        let written = if fails {
            Written::Failed
        } else {
            let before = self.before(&write);
            let written = self.store.apply(&write, self.options.mutation);
            if let Written::Stored(_) = written {
                self.judge_write(&before, &write, process);
            }
            written
        };
        let what = match &write {
            Write::Progress(service, _, _) => format!("progress {service}"),
            Write::Plan(node, _, record) => {
                format!("plan {node} g{} {}", record.generation, plan_words(record))
            }
        };
        self.trace.line(self.now, &format!("store {what}: {written:?}"));
        let answer = self.now + self.random.store.between(0, 3);
        self.queue.push(answer, Happening::WriteAnswered { process, written });
    }

    /// Does what the cycle asks for.
    fn coordinator_acts(&mut self, action: Action) {
        if self.faults_on && self.random.faults.permille(3) {
            return self.coordinator_dies();
        }
        let Some(process) = self.coordinator.as_ref().map(|coordinator| coordinator.process) else { return };
        match action {
            Action::Load => {
                let at = self.now + self.random.store.between(1, 5);
                self.queue.push(at, Happening::CoordinatorLoads { process });
            }
            Action::Write(write) => {
                if let (Some(Mutation::SentBeforeCommit), Write::Plan(node, _, record)) =
                    (self.options.mutation, &write)
                {
                    self.dispatch(&node.clone(), &record.clone());
                }
                let slow = self.faults_on && self.random.store.percent(3);
                let delay = if slow {
                    self.random.store.between(100, 5000)
                } else {
                    self.random.store.between(1, 12)
                };
                self.queue.push(self.now + delay, Happening::WriteLands { process, write });
            }
            Action::Send { plans, report, events, routes } => {
                for event in &events {
                    self.trace.line(self.now, &format!("event {}", event.message));
                }
                self.refused(&events);
                self.ledger_published(&report);
                routes.into_iter().for_each(|routes| self.send_routes(routes));
                for (node, record) in plans {
                    self.dispatch(&node, &record);
                }
                if let Some(coordinator) = &mut self.coordinator {
                    let action = coordinator.cycle.sent();
                    self.coordinator_acts(action);
                }
            }
            Action::Wait(at) => self.coordinator_waits(at),
        }
    }

    /// The audit is the last guard, not the way to decide: where nothing is broken on purpose it has nothing to refuse.
    fn refused(&mut self, events: &[EventDraft]) {
        let refused = events.iter().find(|event| event.kind == "audit-refused");
        if let Some(event) = refused.filter(|_| self.options.mutation.is_none()) {
            self.violate("audit", event.message.clone());
        }
    }

    fn coordinator_waits(&mut self, at: Option<UnixMs>) {
        let now = self.now;
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.running = false;
        let process = coordinator.process;
        if std::mem::take(&mut coordinator.woken) {
            coordinator.woken = true;
            self.queue.push(now + DEBOUNCE_MS, Happening::CoordinatorWakes { process });
        }
        coordinator.wake_at = at.map(|at| (at.0.saturating_sub(EPOCH_MS)).max(now + 1));
        if let Some(at) = coordinator.wake_at {
            self.queue.push(at, Happening::CoordinatorWakes { process });
        }
    }

    /// Sends a node its plan, filled in from the releases, over its latest session.
    fn dispatch(&mut self, node: &NodeName, record: &PlanRecord) {
        let Some(coordinator) = &self.coordinator else { return };
        let Some(connection) = coordinator.sessions.get(node).copied() else { return };
        let process = coordinator.process;
        let mut instances = BTreeMap::new();
        for (id, assignment) in &record.assignments {
            let release = self
                .store
                .desired
                .services
                .get(&id.service)
                .and_then(|service| service.releases.get(&assignment.release));
            // Releases are kept in this world for as long as anything names them.
            let Some(release) = release else { continue };
            let plan = InstancePlan {
                release: release.number,
                version: release.version.clone(),
                attempt: assignment.attempt,
                reload: assignment.reload,
                released: assignment.released,
                artifact: release.artifact.clone(),
                spec: release.spec.clone(),
            };
            instances.insert(id.clone(), plan);
        }
        let plan = NodePlan { node: node.clone(), generation: record.generation, instances };
        let body = Body::Plan(Box::new(plan));
        self.send(Envelope { node: node.clone(), connection, process, body });
    }

    /// A message from an agent.
    pub(crate) fn coordinator_hears(&mut self, envelope: Envelope) {
        let now = self.unix_now();
        let Envelope { node, connection, process, body } = envelope;
        let Some(coordinator) = self.coordinator.as_mut().filter(|alive| alive.process == process) else {
            return;
        };
        let current = coordinator.sessions.get(&node).copied();
        match body {
            Body::Hello { generation, report } => {
                coordinator.sessions.insert(node.clone(), connection);
                coordinator.note_report(&node, generation, report, now);
                self.wake_coordinator();
            }
            _ if current != Some(connection) => {}
            Body::Observed { generation, report } => {
                coordinator.note_report(&node, generation, report, now);
                self.wake_coordinator();
            }
            Body::Beat => {
                if let Some(seen) = coordinator.observed.nodes.get_mut(&node) {
                    seen.last_heard = now;
                }
                self.send(Envelope { node, connection, process, body: Body::BeatBack });
            }
            Body::BeatBack | Body::Plan(_) => {}
        }
    }
}

impl Coordinator {
    fn wake_at_or_woken(&self, now: u64) -> bool {
        self.woken || self.wake_at.is_none_or(|at| at <= now)
    }

    /// Agents send durations; they become times on the coordinator's clock here.
    fn note_report(&mut self, node: &NodeName, generation: Generation, report: Report, now: UnixMs) {
        let since = |(mut seen, ready_for): (
            baton_model::observed::InstanceObserved,
            Option<baton_model::time::Millis>,
        )| {
            seen.ready_since = ready_for.map(|length| UnixMs(now.0.saturating_sub(length.0)));
            seen
        };
        let instances = report.into_iter().map(|(id, told)| (id, since(told))).collect();
        let seen = NodeObserved { last_heard: now, generation, instances, facts: NodeFacts::default() };
        self.observed.nodes.insert(node.clone(), seen);
    }
}

fn plan_words(record: &PlanRecord) -> String {
    let words =
        record.assignments.iter().map(|(id, given)| format!("{id}={}/{}", given.release, given.attempt));
    words.collect::<Vec<_>>().join(" ")
}
