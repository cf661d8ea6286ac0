//! After the world has healed: it must come to rest, and to the right one. `ends`, `exact-rollback` and `quiet` are
//! judged here, since they are about the end.

use super::World;
use super::invariants;
use super::queue::Happening;
use baton_engine::cycle::{Action, Cycle};
use baton_engine::progress::{RolloutProgress, ServiceProgress};
use baton_model::id::{InstanceId, ServiceName};
use baton_model::rollout::RolloutOutcome;
use baton_model::spec::{Count, RestartMode};
use std::collections::BTreeSet;

/// Between two looks.
const LOOK_MS: u64 = 5000;
/// From the healing to rest, at most. Every deadline of a rollout and of its way back fits in several times.
const REST_WITHIN_MS: u64 = 3_600_000;
/// It must look alike for this long.
const REST_FOR_MS: u64 = 20_000;

/// Why the world is not at rest yet: the invariant that would be broken if it stayed so, and what is missing.
type Unrest = (&'static str, String);

impl World {
    /// Is it at rest? If not, and the time is over, that is a violation.
    pub(crate) fn looks(&mut self) {
        let verdict = invariants::acked_is_durable(&self.ledger, &self.store);
        self.settle(verdict);
        match self.unrest() {
            None if self.rest_since.is_some_and(|since| self.now - since >= REST_FOR_MS) => {
                self.trace.line(self.now, "at rest");
                self.at_rest = true;
            }
            None => {
                self.rest_since.get_or_insert(self.now);
            }
            Some((invariant, detail)) => {
                self.rest_since = None;
                if self.now - self.healed_at > REST_WITHIN_MS {
                    return self.violate(invariant, detail);
                }
            }
        }
        self.queue.push(self.now + LOOK_MS, Happening::Looks);
    }

    fn unrest(&self) -> Option<Unrest> {
        let services = self.store.desired.services.keys();
        services
            .filter_map(|name| self.unended(name).or_else(|| self.inexact(name)))
            .next()
            .or_else(|| self.orphan())
            .or_else(|| self.unquiet())
    }

    /// `ends`: every rollout has ended, or is paused with a reason an operator can act on.
    fn unended(&self, name: &ServiceName) -> Option<Unrest> {
        let service = self.store.desired.services.get(name)?;
        let rollout = self.store.progress.get(name).and_then(|record| record.value.rollout.as_ref());
        if service.removed {
            let left = rollout.is_some()
                || self.store.progress.get(name).is_some_and(|record| !record.value.is_forgotten());
            return left.then(|| ("ends", format!("{name}: it was removed and is not forgotten")));
        }
        let asked = service.request.as_ref()?.id;
        match rollout {
            Some(rollout) if rollout.id == asked && rollout.outcome.is_final() => None,
            Some(rollout)
                if rollout.id == asked
                    && rollout.outcome == RolloutOutcome::Paused
                    && !rollout.reason.is_empty() =>
            {
                None
            }
            Some(rollout) => Some((
                "ends",
                format!(
                    "{name}: rollout {asked} was asked for; {}; it waits for: {}",
                    describe(rollout),
                    self.waiting(name)
                ),
            )),
            None => Some(("ends", format!("{name}: rollout {asked} was asked for and never began"))),
        }
    }

    /// What it comes after is not ready, and its report says so: it places nothing new until an operator has acted.
    fn comes_after_unready(&self, name: &ServiceName) -> bool {
        self.specs.get(name).is_some_and(|spec| !spec.lifecycle.after.is_empty())
            && self.waiting(name).contains("it comes after")
    }

    /// `exact-rollback`: once a rollout has ended, every instance that can runs exactly the stable release. A policy that
    /// never restarts leaves down what a fault took down.
    fn inexact(&self, name: &ServiceName) -> Option<Unrest> {
        let progress = &self.store.progress.get(name)?.value;
        let rollout = progress.rollout.as_ref()?;
        match rollout.outcome {
            RolloutOutcome::Succeeded | RolloutOutcome::RolledBack => {}
            RolloutOutcome::Failed | RolloutOutcome::Superseded => return None,
            RolloutOutcome::Running | RolloutOutcome::Paused | RolloutOutcome::RollingBack => return None,
        }
        let goal = if rollout.outcome == RolloutOutcome::RolledBack { rollout.from? } else { rollout.to };
        if progress.stable != Some(goal) {
            return Some((
                "exact-rollback",
                format!("{name}: {:?} to {goal}, stable is {:?}", rollout.outcome, progress.stable),
            ));
        }
        if !self.behaviours.get(&(name.clone(), goal)).is_some_and(|behaviour| behaviour.is_good()) {
            return None;
        }
        let spec = self.specs.get(name)?;
        if spec.restart.mode == RestartMode::Never {
            return None;
        }
        let wanted = match spec.placement.count {
            Count::Replicas(replicas) => usize::try_from(replicas).ok()?,
            Count::PerNode => self.nodes.len(),
        };
        let runs =
            self.nodes.values().flat_map(|host| host.runs.iter()).filter(|((id, _), _)| id.service == *name);
        let ready: BTreeSet<&InstanceId> = runs
            .filter(|(_, run)| run.release == goal && run.ready && run.serving)
            .map(|((id, _), _)| id)
            .collect();
        // A release may stand though some of its instances failed: as many as its policy tolerates.
        let tolerated: BTreeSet<u64> = match rollout.outcome {
            RolloutOutcome::Succeeded => {
                rollout.stages.iter().flat_map(|stage| stage.failed.keys().copied()).collect()
            }
            RolloutOutcome::Running | RolloutOutcome::Paused | RolloutOutcome::RollingBack => BTreeSet::new(),
            RolloutOutcome::RolledBack | RolloutOutcome::Superseded | RolloutOutcome::Failed => {
                BTreeSet::new()
            }
        };
        let missing = wanted.saturating_sub(ready.len());
        let behind = tolerated.iter().filter(|slot| !ready.iter().any(|id| id.slot == **slot)).count();
        if missing > 0 && ready.len() <= wanted && self.comes_after_unready(name) {
            return None;
        }
        if missing != behind.min(missing) || ready.len() > wanted {
            let detail = format!(
                "{name}: {} of {wanted} run release {goal}: {}",
                ready.len(),
                self.describe_slots(name, progress)
            );
            return Some(("exact-rollback", detail));
        }
        None
    }

    /// `exact-rollback`: no process is left that no plan asks for, and none is there twice.
    fn orphan(&self) -> Option<Unrest> {
        for (node, host) in &self.nodes {
            let planned = self.store.plans.get(node).map(|record| &record.value.assignments);
            let mut once = BTreeSet::new();
            for (id, number) in host.runs.keys() {
                if !planned.is_some_and(|planned| planned.contains_key(id)) {
                    return Some(("exact-rollback", format!("{node}: {id} run {number} is in no plan")));
                }
                if !once.insert(id) {
                    return Some(("exact-rollback", format!("{node}: {id} runs twice")));
                }
            }
        }
        None
    }

    /// `quiet`: deciding again writes nothing and sends nothing.
    fn unquiet(&self) -> Option<Unrest> {
        let Some(coordinator) = &self.coordinator else {
            return Some(("quiet", "no coordinator".to_owned()));
        };
        let mut cycle = Cycle::default();
        let _ = cycle.begin();
        match cycle.loaded(self.store.snapshot(), &coordinator.observed, self.unix_now()) {
            Action::Send { plans, events, .. } if plans.is_empty() && events.is_empty() => None,
            Action::Send { plans, events, .. } => Some((
                "quiet",
                format!("it would send {:?} and tell {:?}", plans.keys().collect::<Vec<_>>(), events),
            )),
            Action::Write(write) => Some(("quiet", format!("it would write {write:?}"))),
            Action::Load | Action::Wait(_) => None,
        }
    }

    /// What the service's report says that it waits for.
    fn waiting(&self, name: &ServiceName) -> String {
        let Some(coordinator) = &self.coordinator else { return "a coordinator".to_owned() };
        let mut cycle = Cycle::default();
        let _ = cycle.begin();
        let action = cycle.loaded(self.store.snapshot(), &coordinator.observed, self.unix_now());
        let Action::Send { report, .. } = action else { return format!("{action:?}") };
        let waiting = report.services.get(name).map(|report| report.waiting.clone()).unwrap_or_default();
        waiting
            .iter()
            .map(|waiting| format!("{:?} {}: {}", waiting.subject, waiting.gate, waiting.reason))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn describe_slots(&self, name: &ServiceName, progress: &ServiceProgress) -> String {
        let line = |(slot, memory): (&u64, &baton_engine::progress::Slot)| {
            let id = InstanceId { service: name.clone(), slot: *slot };
            let host = self.nodes.get(&memory.node);
            let seen = host.and_then(|host| host.disk.instances.get(&id)?.observe(host.boot_ms(self.now)));
            let seen = seen.map_or_else(
                || "nothing".to_owned(),
                |(seen, _)| format!("{} {} {:?}", seen.state, seen.release, seen.swap),
            );
            format!("slot {slot} on {} for {}/{}: {seen}", memory.node, memory.release, memory.attempt)
        };
        let slots = progress.slots.iter().map(line).collect::<Vec<_>>().join("; ");
        format!("{slots}; it waits for: {}", self.waiting(name))
    }
}

fn describe(rollout: &RolloutProgress) -> String {
    let stages: Vec<String> = rollout
        .stages
        .iter()
        .map(|stage| {
            format!(
                "{} {:?} failed {:?} ended {:?}",
                stage.title,
                stage.cohort,
                stage.failed,
                stage.ended_at.is_some()
            )
        })
        .collect();
    format!("rollout {} is {:?} ({}): {}", rollout.id, rollout.outcome, rollout.reason, stages.join(", "))
}
