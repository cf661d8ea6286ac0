//! The current release: fetched, started, lost and started anew, removed. It never gives up while trying may help.

use super::event::{Effect, Trouble};
use super::state::{Current, Phase, Retry, Run, Why, has_fixed_port};
use super::{BootMs, Instance, Millis};
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;

impl Instance {
    /// Absent, Fetching, Staged, Failed → Fetching: begins with a release where nothing serves.
    pub(super) fn install(&mut self, plan: Box<InstancePlan>, effects: &mut Vec<Effect>) {
        self.failed_swap = None;
        effects.push(Effect::Stage(plan.clone()));
        self.current = Current::Fetching { plan, retry: Retry::default() };
    }

    /// Fetching → Staged; or, in a swap, Staging → the candidate's start. An answer about another release is stale.
    pub(super) fn fetched(&mut self, release: ReleaseNumber, now: BootMs, effects: &mut Vec<Effect>) {
        match &self.current {
            Current::Fetching { plan, retry } if plan.release == release => {
                let retry = Retry { at: None, lasting: false, ..retry.clone() };
                self.current = Current::Staged { plan: plan.clone(), retry };
            }
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => {}
            Current::Running(_) | Current::Parked { .. } => {}
            Current::Failed { .. } | Current::Done { .. } => {}
        }
        if self.swap.as_ref().is_some_and(|swap| swap.plan.release == release) {
            self.candidate_fetched(now, effects);
        }
    }

    /// Fetching → Fetching after a wait, or → Failed where trying again would not help; a swap fails unless it may
    /// pass by itself.
    pub(super) fn fetch_failed(
        &mut self,
        release: ReleaseNumber,
        reason: &str,
        trouble: Trouble,
        now: BootMs,
        effects: &mut Vec<Effect>,
    ) {
        let note = Effect::Note {
            warning: true,
            kind: "release-not-staged",
            message: format!("release {release} of {} could not be brought to this node: {reason}", self.id),
        };
        match &mut self.current {
            Current::Fetching { plan, retry } if plan.release == release => {
                effects.push(note);
                retry.failed(reason.to_owned(), now);
                match trouble {
                    Trouble::Passing => {}
                    Trouble::Lasting => retry.lasting = true,
                    Trouble::Final => {
                        self.current = Current::Failed { plan: plan.clone(), reason: reason.to_owned() }
                    }
                }
                return;
            }
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => {}
            Current::Running(_) | Current::Parked { .. } => {}
            Current::Failed { .. } | Current::Done { .. } => {}
        }
        let Some(swap) = self.swap.as_mut().filter(|swap| swap.plan.release == release) else { return };
        match &mut swap.phase {
            Phase::Staging { retry, .. } if trouble == Trouble::Passing => {
                effects.push(note);
                retry.failed(reason.to_owned(), now);
            }
            Phase::Staging { .. } => self.fail_swap(reason.to_owned(), effects),
            Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Steering { .. }
            | Phase::Refreshing { .. } => {}
        }
    }

    /// Staged → Running, unless a run that is leaving still holds what it needs, or a service that it comes after is
    /// not ready yet.
    pub(super) fn start_current(&mut self, effects: &mut Vec<Effect>) {
        let Current::Staged { plan, retry } = &self.current else { return };
        let exclusive = has_fixed_port(plan) || self.leaving.values().any(|leaving| leaving.exclusive);
        if (exclusive && !self.leaving.is_empty()) || self.must_wait(plan) {
            return;
        }
        let (plan, failures) = (plan.clone(), retry.failures);
        let run = self.next_run();
        effects.push(Effect::Start { run, plan: plan.clone(), beside: None });
        let last_exit = self.ended_before.take();
        self.current = Current::Running(Run { last_exit, ..Run::new(run, plan, failures) });
    }

    /// A number that no run of the instance ever had.
    pub(super) fn next_run(&mut self) -> RunNumber {
        self.last_run = self.last_run.next();
        self.last_run
    }

    /// Staged → Fetching, after a wait: whatever kept it from starting may lie in its bytes, and looking at them again
    /// costs little.
    pub(super) fn stage_again(&mut self, effects: &mut Vec<Effect>) {
        let Current::Staged { plan, retry } = &self.current else { return };
        let (plan, retry) = (plan.clone(), Retry { at: None, ..retry.clone() });
        effects.push(Effect::Stage(plan.clone()));
        self.current = Current::Fetching { plan, retry };
    }

    /// Running → Staged after a wait; the candidate of a swap fails it.
    pub(super) fn start_failed(
        &mut self,
        number: RunNumber,
        reason: &str,
        now: BootMs,
        effects: &mut Vec<Effect>,
    ) {
        if self.candidate().is_some_and(|run| run.number == number) {
            return self.lose_candidate(format!("it could not be started: {reason}"), effects);
        }
        match &self.current {
            Current::Running(run) if run.number == number => {
                let message = format!("{} could not be started: {reason}", self.id);
                effects.push(Effect::Note { warning: true, kind: "instance-not-started", message });
                effects.push(Effect::Forget(number));
                let mut retry = Retry { failures: run.failures, ..Retry::default() };
                retry.failed(format!("it could not be started: {reason}"), now);
                self.current = Current::Staged { plan: run.plan.clone(), retry };
            }
            Current::Running(_) | Current::Absent | Current::Fetching { .. } => {}
            Current::Staged { .. } | Current::Parked { .. } => {}
            Current::Failed { .. } | Current::Done { .. } => {}
        }
    }

    /// A shim is gone: the current release gets a new run, a candidate fails its swap, a leaving run is gone.
    pub(super) fn shim_lost(&mut self, number: RunNumber, now: BootMs, effects: &mut Vec<Effect>) {
        if self.leaving.contains_key(&number) {
            self.gone(number, false, effects);
        } else if self.candidate().is_some_and(|run| run.number == number) {
            self.lose_candidate("its shim was lost".to_owned(), effects);
        } else if self.current.run().is_some_and(|run| run.number == number) {
            self.lose_current(now, effects);
        }
    }

    /// Running → Staged: at once for the first loss since it was ready, after a wait for the next ones.
    pub(super) fn lose_current(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let Current::Running(run) = &self.current else { return };
        let message = format!("the shim of {} (run {}) was lost; it is started anew", self.id, run.number);
        effects.push(Effect::Note { warning: true, kind: "instance-lost", message });
        effects.push(Effect::Forget(run.number));
        let mut retry = Retry { failures: run.failures, ..Retry::default() };
        retry.failed("its shim was lost".to_owned(), now);
        if run.failures == 0 {
            retry.at = None;
        }
        self.current = Current::Staged { plan: run.plan.clone(), retry };
    }

    /// Running → Staged, at once: it ended with its host, which is up again.
    pub(super) fn current_went_down(&mut self, effects: &mut Vec<Effect>) {
        let Current::Running(run) = &self.current else { return };
        let message = format!(
            "{} (run {}) ended with its host, which was booted anew; it is started again",
            self.id, run.number
        );
        effects.push(Effect::Note { warning: true, kind: "instance-lost", message });
        effects.push(Effect::Forget(run.number));
        let retry = Retry { reason: Exit::HostDown.to_string(), ..Retry::default() };
        self.ended_before = Some(Exit::HostDown);
        self.current = Current::Staged { plan: run.plan.clone(), retry };
    }

    /// Running → Staged: an operator wants another try of a run that is down or in a crash loop.
    pub(super) fn start_again(&mut self, effects: &mut Vec<Effect>) {
        let Current::Running(run) = &self.current else { return };
        let plan = run.plan.clone();
        self.current_leaves(Why::Removed, effects);
        self.current = Current::Staged { plan, retry: Retry::default() };
    }

    /// Anything → Absent: the plan no longer names the instance. Everything is stopped, with no drain.
    pub(super) fn remove(&mut self, effects: &mut Vec<Effect>) {
        if let Some(swap) = self.swap.take() {
            match swap.phase {
                Phase::Confirming { run, .. } | Phase::Steering { run } => {
                    self.leave(&run, Why::Removed, None, effects)
                }
                Phase::Staging { .. } | Phase::StoppingOld | Phase::Refreshing { .. } => {}
            }
        }
        self.current_leaves(Why::Removed, effects);
        self.current = Current::Absent;
        self.failed_swap = None;
        let draining: Vec<RunNumber> = self.leaving.keys().copied().collect();
        draining.into_iter().for_each(|run| self.stop_draining(run, effects));
    }

    fn current_leaves(&mut self, why: Why, effects: &mut Vec<Effect>) {
        if let Current::Running(run) = &self.current {
            let run = run.clone();
            self.leave(&run, why, None, effects);
        }
    }

    /// Running → Parked: makes way for a candidate on a fixed port.
    pub(super) fn park(&mut self, effects: &mut Vec<Effect>) {
        let plan = match &self.current {
            Current::Running(run) => run.plan.clone(),
            Current::Staged { plan, .. } | Current::Parked { plan } => plan.clone(),
            Current::Absent | Current::Fetching { .. } => return,
            Current::Failed { .. } | Current::Done { .. } => return,
        };
        self.current_leaves(Why::MakingWay, effects);
        self.current = Current::Parked { plan };
    }

    /// Parked → Staged: the swap ended without its candidate.
    pub(super) fn unpark(&mut self, effects: &mut Vec<Effect>) {
        let Current::Parked { plan } = &self.current else { return };
        self.current = Current::Staged { plan: plan.clone(), retry: Retry::default() };
        self.start_current(effects);
    }

    /// The longest a candidate may take to be ready, from its start; fetching has as much for itself.
    pub(super) fn healthy_deadline(plan: &InstancePlan, now: BootMs) -> BootMs {
        let span: Millis = plan.spec.rollout.healthy_deadline;
        now.plus(span)
    }
}
