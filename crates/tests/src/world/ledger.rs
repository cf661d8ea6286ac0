//! What the world remembers only in order to judge: what was told, sent and taken, and by whom. Nothing that is judged
//! can see it.

use super::World;
use super::invariants;
use baton_engine::cycle::{PlanRecord, Write};
use baton_engine::progress::ServiceProgress;
use baton_model::desired::Desired;
use baton_model::id::{Generation, InstanceId, NodeName, ReleaseNumber, RolloutId, RunNumber, ServiceName};
use baton_model::plan::NodePlan;
use baton_model::report::Report;
use baton_model::rollout::{RolloutControl, RolloutOutcome, RolloutRequest};
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
        let foreign = invariants::no_foreign_kill(id, number, run, self.options.mutation);
        let cut = run.map_or(Ok(()), |run| invariants::acked_drain(id, run, planned, self.now));
        self.settle(foreign);
        self.settle(cut);
    }

    /// What must hold at every moment.
    pub(crate) fn judge_moment(&mut self) {
        if self.options.calm() {
            let verdict = invariants::capacity_in_truth(&mut self.ledger, &self.store, &self.nodes);
            self.settle(verdict);
        }
    }

    pub(crate) fn settle(&mut self, verdict: invariants::Holds) {
        if let Err((invariant, detail)) = verdict {
            self.violate(invariant, detail);
        }
    }
}
