//! The swap: stage, start, confirm, then keep or revert. The old release serves until the new one has proven itself.

use super::event::Effect;
use super::state::{Current, FailedSwap, Leaving, Phase, Retry, Run, Swap, Why, has_fixed_port};
use super::{BootMs, Instance};
use baton_model::id::RunNumber;
use baton_model::plan::InstancePlan;

impl Instance {
    /// Whether this release at this attempt has failed before.
    pub(super) fn has_given_up_on(&self, target: &InstancePlan) -> bool {
        self.failed_swap
            .as_ref()
            .is_some_and(|failed| failed.release == target.release && failed.attempt >= target.attempt)
    }

    /// (none) → Staging.
    pub(super) fn begin_swap(&mut self, plan: Box<InstancePlan>, now: BootMs, effects: &mut Vec<Effect>) {
        let stop_first = has_fixed_port(&plan) || self.current.plan().is_some_and(has_fixed_port);
        self.failed_swap = None;
        effects.push(Effect::Stage(plan.clone()));
        let deadline = Self::healthy_deadline(&plan, now);
        self.swap =
            Some(Swap { plan, stop_first, phase: Phase::Staging { retry: Retry::default(), deadline } });
    }

    /// Staging → Refreshing where nothing but files differs; or → Confirming beside the old release; or →
    /// StoppingOld where both need a fixed port; or → (none) where the old release has lost its run meanwhile: there is nothing to start beside, so it takes the place.
    pub(super) fn candidate_fetched(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        if self.begin_refresh(now, effects) {
            return;
        }
        let Some(swap) = &self.swap else { return };
        let stop_first = swap.stop_first;
        match swap.phase {
            Phase::Staging { .. } if self.has_done_job() => self.start_candidate(now, effects),
            Phase::Staging { .. } if stop_first => self.make_way(effects),
            Phase::Staging { .. } if self.current.run().is_none() => self.take_place(),
            Phase::Staging { .. } => self.start_candidate(now, effects),
            Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Steering { .. }
            | Phase::Refreshing { .. } => {}
        }
    }

    /// Staging → StoppingOld.
    fn make_way(&mut self, effects: &mut Vec<Effect>) {
        if let Some(swap) = &mut self.swap {
            swap.phase = Phase::StoppingOld;
        }
        self.park(effects);
    }

    /// Staging → (none): the new release is the current one, and has no run yet.
    fn take_place(&mut self) {
        if let Some(swap) = self.swap.take() {
            self.current = Current::Staged { plan: swap.plan, retry: Retry::default() };
        }
    }

    /// Staging or StoppingOld → Confirming.
    pub(super) fn start_candidate(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let number = self.next_run();
        let beside = self.current.run().map(|run| run.number);
        let Some(swap) = &mut self.swap else { return };
        effects.push(Effect::Start { run: number, plan: swap.plan.clone(), beside });
        let run = Run::new(number, swap.plan.clone(), 0);
        swap.phase = Phase::Confirming { run, deadline: Self::healthy_deadline(&swap.plan, now) };
    }

    /// Goes on with a candidate that is ready, and gives up one that has failed or is late.
    pub(super) fn judge_swap(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let Some(swap) = &self.swap else { return };
        match &swap.phase {
            Phase::Confirming { run, .. } if run.is_done() => self.promote_job(now, effects),
            Phase::Confirming { run, .. } if run.ready_since.is_some() && swap.stop_first => {
                self.promote(now, effects)
            }
            Phase::Confirming { run, .. } if run.ready_since.is_some() => self.steer(effects),
            Phase::Confirming { run, deadline } => {
                if let Some(reason) = why_failed(run, *deadline <= now) {
                    self.fail_swap(reason, effects);
                }
            }
            Phase::Staging { retry, deadline } if *deadline <= now => {
                let waited = swap.plan.spec.rollout.healthy_deadline;
                let last = if retry.reason.is_empty() { "it is still being fetched" } else { &retry.reason };
                self.fail_swap(format!("it was not on this node within {waited}: {last}"), effects);
            }
            Phase::Staging { .. }
            | Phase::StoppingOld
            | Phase::Steering { .. }
            | Phase::Refreshing { .. } => {}
        }
    }

    /// Confirming → Steering: the candidate is ready.
    fn steer(&mut self, effects: &mut Vec<Effect>) {
        let from = self.current.run().map(|run| run.number);
        let Some(swap) = &mut self.swap else { return };
        if let Phase::Confirming { run, .. } = &swap.phase {
            effects.push(Effect::Steer { run: run.number, from });
            swap.phase = Phase::Steering { run: run.clone() };
        }
    }

    /// Steering → promoted. An answer about another run is stale.
    pub(super) fn steered(&mut self, number: RunNumber, now: BootMs, effects: &mut Vec<Effect>) {
        let steering = self.swap.as_ref().is_some_and(|swap| match &swap.phase {
            Phase::Steering { run } => run.number == number,
            Phase::Staging { .. }
            | Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Refreshing { .. } => false,
        });
        if steering {
            self.promote(now, effects);
        }
    }

    /// Steering → (none): the candidate cannot have the connections, so the swap fails. They are turned to the old run
    /// once more, which is also what is remembered should the agent die now.
    pub(super) fn steer_failed(&mut self, number: RunNumber, reason: &str, effects: &mut Vec<Effect>) {
        let steering = self.swap.as_ref().is_some_and(|swap| match &swap.phase {
            Phase::Steering { run } => run.number == number,
            Phase::Staging { .. }
            | Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Refreshing { .. } => false,
        });
        if !steering {
            return;
        }
        if let Some(old) = self.current.run() {
            effects.push(Effect::Steer { run: old.number, from: Some(number) });
        }
        self.fail_swap(format!("new connections could not be turned to it: {reason}"), effects);
    }

    /// Steering (or Confirming, stop first) → (none): the candidate is the current release; the old run drains.
    fn promote(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let Some(Swap { plan, phase, .. }) = self.swap.take() else { return };
        let (Phase::Confirming { run, .. } | Phase::Steering { run }) = phase else { return };
        let message = format!("{} now runs {} (release {})", self.id, plan.version, plan.release);
        effects.push(Effect::Note { warning: false, kind: "swap-done", message });
        if let Current::Running(old) = std::mem::replace(&mut self.current, Current::Running(run)) {
            self.replace(&old, &plan, now, effects);
        }
    }

    /// The run leaves for this plan: drained where it runs, stopped at once where it does not. Where gateways send it
    /// requests, its drain begins once they have let go of it.
    pub(super) fn replace(&mut self, old: &Run, plan: &InstancePlan, now: BootMs, effects: &mut Vec<Effect>) {
        let drain = old.plan.spec.stop.drain;
        let until = old.pid.map(|_| now.plus(drain));
        self.leave(old, Why::Replaced { to: plan.release, attempt: plan.attempt }, until, effects);
        let routed = old.plan.spec.route.is_some() || plan.spec.route.is_some();
        if let Some(leaving) = self.leaving.get_mut(&old.number).filter(|_| until.is_some()) {
            leaving.routed = routed;
            if !routed {
                effects.push(Effect::Drain { run: old.number, within: drain });
            }
        }
    }

    /// Any phase before Steering → (none), remembered as failed: not tried again until the plan changes.
    pub(super) fn fail_swap(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.remember_failure(reason, effects);
        self.drop_swap(effects);
    }

    pub(super) fn remember_failure(&mut self, reason: String, effects: &mut Vec<Effect>) {
        let Some(Swap { plan, .. }) = &self.swap else { return };
        let message = format!(
            "{} (release {}) failed on {}: {reason}; the release before it stays",
            plan.version, plan.release, self.id
        );
        effects.push(Effect::Note { warning: true, kind: "swap-failed", message });
        self.failed_swap = Some(FailedSwap { release: plan.release, attempt: plan.attempt, reason });
    }

    /// Any phase before Steering → (none), not remembered: the plan wants something else now.
    pub(super) fn withdraw_swap(&mut self, effects: &mut Vec<Effect>) {
        let decided = self.swap.as_ref().is_some_and(|swap| match swap.phase {
            Phase::Steering { .. } | Phase::Refreshing { .. } => true,
            Phase::Staging { .. } | Phase::StoppingOld | Phase::Confirming { .. } => false,
        });
        if !decided {
            self.drop_swap(effects);
        }
    }

    /// Confirming or Steering → (none): nothing is left of the candidate, and the swap fails. Where connections may
    /// have been turned to it already, they are turned back.
    pub(super) fn lose_candidate(&mut self, reason: String, effects: &mut Vec<Effect>) {
        self.remember_failure(reason, effects);
        let Some(swap) = self.swap.take() else { return };
        match swap.phase {
            Phase::Steering { run } => {
                if let Some(old) = self.current.run() {
                    effects.push(Effect::Steer { run: old.number, from: Some(run.number) });
                }
                effects.push(Effect::Forget(run.number));
            }
            Phase::Confirming { run, .. } => effects.push(Effect::Forget(run.number)),
            Phase::Staging { .. } | Phase::StoppingOld | Phase::Refreshing { .. } => {}
        }
    }

    /// Ends a swap without its candidate.
    pub(super) fn drop_swap(&mut self, effects: &mut Vec<Effect>) {
        let Some(swap) = self.swap.take() else { return };
        match swap.phase {
            Phase::Confirming { run, .. } | Phase::Steering { run } => {
                let why = Why::Reverted { to: swap.plan.release, attempt: swap.plan.attempt };
                self.leave(&run, why, None, effects);
            }
            Phase::Staging { .. } | Phase::StoppingOld | Phase::Refreshing { .. } => {}
        }
    }

    /// Puts a run among the leaving: drained until a time, or stopped at once.
    pub(super) fn leave(
        &mut self,
        run: &Run,
        why: Why,
        drain_until: Option<BootMs>,
        effects: &mut Vec<Effect>,
    ) {
        let leaving = Leaving {
            release: run.plan.release,
            stop: run.plan.spec.stop.clone(),
            exclusive: has_fixed_port(&run.plan),
            why,
            drain_until,
            routed: false,
        };
        if drain_until.is_none() {
            effects.push(leaving.stop_effect(run.number));
        }
        self.leaving.insert(run.number, leaving);
    }
}

/// Why a candidate that is not ready has failed, if it has.
fn why_failed(run: &Run, late: bool) -> Option<String> {
    let reason = &run.reason;
    if run.down || run.crash_loop {
        let exit =
            run.last_exit.map_or_else(|| "it ended".to_owned(), |exit| format!("it ended with {exit}"));
        let times =
            if run.restarts > 0 { format!(" after {} restarts", run.restarts) } else { String::new() };
        let service = &run.plan.spec.name;
        let words = &run.last_words;
        return Some(if words.is_empty() {
            format!("{exit}{times} before it was ready: see `baton logs {service}`")
        } else {
            format!("{exit}{times} before it was ready; its last words: {words}")
        });
    }
    if !late {
        return None;
    }
    let waited = run.plan.spec.rollout.healthy_deadline;
    let last = if reason.is_empty() { "no check has answered" } else { reason };
    Some(format!("it was not ready within {waited}: {last}"))
}
