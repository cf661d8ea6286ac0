//! What the world remembers only in order to judge: what was told, sent and taken, and by whom. Nothing that is judged
//! can see it.

use super::World;
use super::coordinator::EPOCH_MS;
use super::invariants;
use baton_engine::cycle::{PlanRecord, Write};
use baton_engine::progress::ServiceProgress;
use baton_model::desired::Desired;
use baton_model::id::{
    GatewayName, Generation, InstanceId, NodeName, ReleaseNumber, RolloutId, RunNumber, ServiceName,
};
use baton_model::plan::NodePlan;
use baton_model::report::Report;
use baton_model::rollout::{RolloutControl, RolloutOutcome, RolloutRequest};
use baton_model::route::UpstreamId;
use std::collections::{BTreeMap, BTreeSet};

/// The record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// What operators were told is wanted.
    pub(crate) told: BTreeMap<ServiceName, (RolloutRequest, RolloutControl)>,
    /// What reports said of rollouts that ended.
    pub(crate) ended: BTreeMap<ServiceName, (RolloutId, RolloutOutcome)>,
    /// The highest generation each agent ever said it has.
    pub(crate) said: BTreeMap<NodeName, Generation>,
    /// Every plan that an agent took: what each instance was to run.
    pub(crate) taken: BTreeMap<(NodeName, Generation), BTreeMap<InstanceId, (ReleaseNumber, u32)>>,
    /// Slots that ever were, and where.
    pub(crate) slots: BTreeMap<InstanceId, NodeName>,
    /// Slots that were dropped.
    pub(crate) dropped: BTreeSet<InstanceId>,
    /// Per service: the rollout and direction, and the slots it has changed that have not been healthy since.
    pub(crate) changing: BTreeMap<ServiceName, (RolloutId, bool, BTreeSet<u64>)>,
    /// Services that have once been as ready as they must stay.
    pub(crate) armed: BTreeSet<ServiceName>,
    /// Services that were once removed: what is taken from them then was asked for.
    pub(crate) removed: BTreeSet<ServiceName>,
    /// When each gateway was last heard by a coordinator.
    heard: BTreeMap<GatewayName, u64>,
    /// When each gateway was last heard again after it had been silent for longer than it is waited for.
    back: BTreeMap<GatewayName, u64>,
    /// When the route of each run was first stored without it.
    pub(crate) left: BTreeMap<UpstreamId, u64>,
    /// Runs that were stopped.
    pub(crate) stopped: BTreeSet<UpstreamId>,
    /// Of these, what a gateway may know of all the same, since it could not be told in time.
    pub(crate) excused: BTreeSet<(GatewayName, UpstreamId)>,
    /// Gateways that once had as many instances of a service as must stay.
    pub(crate) armed_gateways: BTreeSet<(GatewayName, ServiceName)>,
}

impl Ledger {
    /// Whether a gateway was silent for longer than it is waited for, at any time between these.
    pub(crate) fn away(&self, gateway: &GatewayName, from: u64, now: u64) -> bool {
        let heard = self.heard.get(gateway).copied().unwrap_or(0);
        now - heard >= invariants::LEASE_MS || self.back.get(gateway).is_some_and(|back| *back >= from)
    }

    /// A run begins: it is another one than any of its name before.
    pub(crate) fn begins(&mut self, id: &UpstreamId) {
        self.stopped.remove(id);
        self.left.remove(id);
        self.excused.retain(|(_, excused)| excused != id);
    }
}

/// The record before a write.
#[derive(Clone, Debug)]
pub(crate) enum Before {
    Progress(Option<ServiceProgress>),
    Plan(Option<PlanRecord>),
}

impl World {
    /// The record that a write is about, as it is now.
    pub(crate) fn before(&self, write: &Write) -> Before {
        match write {
            Write::Progress(service, _, _) => {
                Before::Progress(self.store.progress.get(service).map(|record| record.value.clone()))
            }
            Write::Plan(node, _, _) => {
                Before::Plan(self.store.plans.get(node).map(|record| record.value.clone()))
            }
        }
    }

    /// A write was stored.
    pub(crate) fn judge_write(&mut self, before: &Before, write: &Write, process: u64) {
        match (before, write) {
            (Before::Progress(old), Write::Progress(service, _, new)) => {
                let verdict = invariants::memory_grows(&mut self.ledger, service, old.as_ref(), new.as_ref());
                self.settle(verdict);
                let decided = self.coordinator.as_ref().filter(|alive| alive.process == process);
                let verdict = decided
                    .map(|decided| invariants::gate_holds(decided, service, old.as_ref(), new.as_ref()));
                let floor = decided.map(|decided| {
                    invariants::capacity_floor(&self.store, decided, service, old.as_ref(), new.as_ref())
                });
                let decided_at = decided.map_or(self.now, |decided| decided.decided_at.0 - EPOCH_MS);
                note_left(&mut self.ledger, old.as_ref(), new.as_ref(), decided_at);
                self.settle(verdict.unwrap_or(Ok(())));
                self.settle(floor.unwrap_or(Ok(())));
            }
            (Before::Plan(old), Write::Plan(node, _, new)) => {
                self.settle(invariants::stored_generation_grows(node, old.as_ref(), new));
                let Some(decided) = self.coordinator.as_ref().filter(|alive| alive.process == process) else {
                    return;
                };
                let radius =
                    invariants::blast_radius(&mut self.ledger, &self.store, decided, node, old.as_ref(), new);
                self.settle(radius);
            }
            (Before::Progress(_), Write::Plan(..)) | (Before::Plan(_), Write::Progress(..)) => {}
        }
    }

    /// Operators were told that this is durable.
    pub(crate) fn ledger_told(&mut self, wanted: &Desired) {
        for (name, service) in &wanted.services {
            if let Some(request) = &service.request {
                self.ledger.told.insert(name.clone(), (request.clone(), service.control.clone()));
            }
        }
    }

    /// A report was published: what it says of rollouts that ended must stay so.
    pub(crate) fn ledger_published(&mut self, report: &Report) {
        for (name, service) in &report.services {
            let Some(rollout) = &service.rollout else { continue };
            let stored = self.store.progress.get(name).and_then(|record| record.value.rollout.clone());
            self.settle(invariants::published_is_durable(name, rollout, stored.as_ref()));
            if rollout.outcome.is_final() {
                self.ledger.ended.insert(name.clone(), (rollout.id, rollout.outcome));
            }
        }
    }

    /// An agent says which generation it has.
    pub(crate) fn ledger_said(&mut self, node: &NodeName, generation: Generation) {
        let highest = self.ledger.said.entry(node.clone()).or_default();
        let verdict = invariants::said_generation_grows(node, *highest, generation);
        *highest = generation.max(*highest);
        self.settle(verdict);
    }

    /// An agent takes a plan.
    pub(crate) fn judge_plan(&mut self, node: &NodeName, plan: &NodePlan) {
        let has = self.generation_of(node);
        self.settle(invariants::taken_is_durable(&self.store, plan));
        let verdict = invariants::taken_generation_grows(&mut self.ledger, has, plan);
        self.settle(verdict);
    }

    /// A workload is executed for the first time in its run.
    pub(crate) fn judge_execution(&mut self, node: &NodeName, id: &InstanceId, intact: Option<bool>) {
        self.settle(invariants::verified_bytes(node, id, intact));
    }

    /// A run is stopped.
    pub(crate) fn judge_stop(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber) {
        let Some(host) = self.nodes.get(node) else { return };
        let run = host.runs.get(&(id.clone(), number));
        let planned = host.disk.plan.as_ref().and_then(|plan| plan.instances.get(id));
        let upstream = UpstreamId { instance: id.clone(), run: number };
        let routed = run.filter(|run| !run.stopping && run.plan.spec.route.is_some());
        let known = routed.map_or(Ok(()), |run| {
            invariants::stopped_unknown(&mut self.ledger, &self.gateways, &upstream, run, self.now)
        });
        let foreign = invariants::no_foreign_kill(id, number, run, self.options.mutation);
        let cut = run.map_or(Ok(()), |run| invariants::acked_drain(id, run, planned, self.now));
        self.settle(foreign);
        self.settle(cut);
        self.settle(known);
    }

    /// A gateway was heard.
    pub(crate) fn ledger_heard(&mut self, gateway: &GatewayName) {
        let now = self.now;
        let before = self.ledger.heard.insert(gateway.clone(), now).unwrap_or(0);
        if now - before >= invariants::LEASE_MS {
            self.ledger.back.insert(gateway.clone(), now);
        }
    }

    /// A gateway sends a request.
    pub(crate) fn judge_request(&mut self, gateway: &GatewayName, id: &UpstreamId) {
        let verdict = invariants::sent_to_the_living(&self.ledger, gateway, id, self.now);
        self.settle(verdict);
    }

    /// What must hold at every moment.
    pub(crate) fn judge_moment(&mut self) {
        if self.options.calm() {
            let verdict = invariants::capacity_in_truth(&mut self.ledger, &self.store, &self.nodes);
            self.settle(verdict);
            let (nodes, gateways) = (&self.nodes, &self.gateways);
            let verdict = invariants::capacity_at_gateways(&mut self.ledger, &self.store, nodes, gateways);
            self.settle(verdict);
        }
    }

    pub(crate) fn settle(&mut self, verdict: invariants::Holds) {
        if let Err((invariant, detail)) = verdict {
            self.violate(invariant, detail);
        }
    }
}

/// Notes the runs that a route names no longer, and forgets those that it names again.
fn note_left(
    ledger: &mut Ledger,
    old: Option<&ServiceProgress>,
    new: Option<&ServiceProgress>,
    decided_at: u64,
) {
    let named = |memory: Option<&ServiceProgress>| -> BTreeSet<UpstreamId> {
        let current = memory.and_then(|memory| memory.route.current.as_ref());
        current.into_iter().flat_map(|route| route.upstreams.keys().cloned()).collect()
    };
    let (before, after) = (named(old), named(new));
    for id in before.difference(&after) {
        ledger.left.insert(id.clone(), decided_at);
    }
    for id in &after {
        ledger.left.remove(id);
    }
}
