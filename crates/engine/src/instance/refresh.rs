//! A change of release without a change of process: where nothing differs but files whose change asks for no restart,
//! they are written beside the running workload, and its process is told.
//!
//! It is a swap with another middle: staged and judged as any other, and the run that was there goes on as the new
//! release. Once told, it is on trial for as long as its checks need to fail: one that does not stand gets the files of the
//! release before back, and is told again. The coordinator is not needed for that.

use super::event::Effect;
use super::state::{Current, Phase, Retry, Run, Swap, Trial};
use super::{BootMs, Instance, Millis};
use baton_model::configuration::Change;
use baton_model::id::RunNumber;
use baton_model::lifecycle::RunKind;
use baton_model::plan::InstancePlan;
use baton_model::spec::{ServiceSpec, StopSignal};

impl Instance {
    /// Staging → Refreshing, where that is enough; whether it is.
    pub(super) fn begin_refresh(&mut self, now: BootMs, effects: &mut Vec<Effect>) -> bool {
        let (Some(swap), Current::Running(run)) = (&mut self.swap, &self.current) else { return false };
        match swap.phase {
            Phase::Staging { .. } => {}
            Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Steering { .. }
            | Phase::Refreshing { .. } => return false,
        }
        // What is not well gets a new process: it may be deaf to any signal, and is to be well again soon.
        let is_well = run.ready_since.is_some() && !run.is_in_crash_loop(now);
        let Some(signals) = refresh_signals(&run.plan, &swap.plan).filter(|_| is_well) else { return false };
        // One at a time: what is being written for its peers is waited for.
        if run.refresh.is_none() {
            let plan = swap.plan.clone();
            effects.push(Effect::Refresh { run: run.number, plan, signals: signals.clone() });
        }
        swap.phase = Phase::Refreshing { run: run.number, signals, trial: None, unsure: false };
        true
    }

    /// Refreshing: it is told, and on trial from now on. Its readiness begins anew, so that no gate takes the patience of
    /// the release before for its own. Outside of a swap: the run has its peers' new places.
    pub(super) fn refreshed(&mut self, number: RunNumber, now: BootMs, effects: &mut Vec<Effect>) {
        if let Some(run) = self.run_mut(number).filter(|run| run.refresh.is_some()) {
            run.refresh = None;
            run.refresh_retry = Retry::default();
            return self.refresh_next(number, effects);
        }
        let (Some(swap), Current::Running(current)) = (&mut self.swap, &mut self.current) else { return };
        if let Phase::Refreshing { run, trial: trial @ None, .. } = &mut swap.phase
            && *run == number
        {
            *trial = Some(Trial {
                settles_at: now.plus(time_to_fail(&swap.plan)),
                deadline: Self::healthy_deadline(&swap.plan, now),
            });
            current.ready_since = current.ready_since.map(|_| now);
        }
    }

    /// Refreshing → (none) once its trial is over: it goes on as the new release, or gets the files of the one before
    /// back, remembered as failed unless the plan wants another release meanwhile.
    pub(super) fn judge_refresh(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let (Some(swap), Current::Running(run)) = (&self.swap, &self.current) else { return };
        let Phase::Refreshing { trial: Some(trial), .. } = &swap.phase else { return };
        let ready = run.ready_since.is_some();
        let withdrawn = self.target.as_ref().is_some_and(|target| target.release != swap.plan.release);
        let failed = run.down || run.crash_loop && !ready || (!ready && trial.deadline <= now);
        if !withdrawn && !failed {
            if ready && trial.settles_at <= now {
                self.promote_refresh(effects);
            }
            return;
        }
        if failed && !withdrawn {
            let last = if run.reason.is_empty() { "no check has answered" } else { &run.reason };
            self.remember_failure(format!("it did not stand with the new files: {last}"), effects);
        }
        self.write_back(effects);
    }

    /// Refreshing → (none): the run gets the files of its own release back, and is told.
    fn write_back(&mut self, effects: &mut Vec<Effect>) {
        let Some(Swap { phase: Phase::Refreshing { signals, .. }, .. }) = self.swap.take() else { return };
        if let Current::Running(run) = &mut self.current {
            effects.push(Effect::Refresh {
                run: run.number,
                plan: run.plan.clone(),
                signals: signals.clone(),
            });
            run.refresh = Some(signals);
            run.refresh_retry = Retry::default();
        }
    }

    fn promote_refresh(&mut self, effects: &mut Vec<Effect>) {
        let Some(Swap { plan, .. }) = self.swap.take() else { return };
        let message = format!("{} now runs {} (release {})", self.id, plan.version, plan.release);
        effects.push(Effect::Note { warning: false, kind: "swap-done", message });
        if let Current::Running(run) = &mut self.current {
            run.plan = plan;
            effects.push(Effect::Check { run: run.number, plan: run.plan.clone() });
        }
    }

    /// Refreshing → (none), remembered as failed: no file was changed now; where one may have been before, they are
    /// written back. What a run is to have of its own release is
    /// tried again until it has it: it may hold the files of another one.
    pub(super) fn refresh_failed(
        &mut self,
        number: RunNumber,
        reason: &str,
        now: BootMs,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id.clone();
        if let Some(run) = self.run_mut(number).filter(|run| run.refresh.is_some()) {
            run.refresh_retry.failed(reason.to_owned(), now);
            if run.refresh_retry.failures == 1 {
                let message =
                    format!("the files of {id} could not be written, and are tried again: {reason}");
                effects.push(Effect::Note { warning: true, kind: "files-not-written", message });
            }
            return;
        }
        let Some(Swap { phase: Phase::Refreshing { run, trial, unsure, .. }, .. }) = &self.swap else {
            return;
        };
        let changed = *unsure || trial.is_some();
        if *run != number {
            return;
        }
        self.remember_failure(format!("its files could not be written: {reason}"), effects);
        if changed { self.write_back(effects) } else { self.drop_swap(effects) }
    }

    /// Tries again what could not be written for a run.
    pub(super) fn retry_refresh(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let numbers: Vec<RunNumber> =
            self.current.run().into_iter().chain(self.candidate()).map(|run| run.number).collect();
        for number in numbers {
            if let Some(run) = self.run_mut(number).filter(|run| run.refresh_retry.is_due(now)) {
                run.refresh_retry.at = None;
                effects.extend(refresh_due(run));
            }
        }
    }

    /// Says what waited for the files of the peers to be written.
    fn refresh_next(&self, number: RunNumber, effects: &mut Vec<Effect>) {
        if let Some(Swap { plan, phase: Phase::Refreshing { run, signals, .. }, .. }) = &self.swap
            && *run == number
        {
            effects.push(Effect::Refresh { run: *run, plan: plan.clone(), signals: signals.clone() });
        }
    }

    /// The peers of a run are elsewhere now, so that its files have another text. One that asks for a restart is
    /// written too, and is read at the next start: peers come and go, and must not restart each other in turn.
    pub(super) fn rerendered(
        &mut self,
        number: RunNumber,
        signals: Vec<StopSignal>,
        effects: &mut Vec<Effect>,
    ) {
        let being_written = self.swap.as_ref().is_some_and(|swap| match swap.phase {
            Phase::Refreshing { run, trial: None, .. } => run == number,
            Phase::Refreshing { trial: Some(_), .. } | Phase::Staging { .. } | Phase::StoppingOld => false,
            Phase::Confirming { .. } | Phase::Steering { .. } => false,
        });
        // It is asked again once the files that are being written are there.
        if being_written {
            return;
        }
        let Some(plan) = self.plan_of(number).cloned().map(Box::new) else { return };
        if let Some(run) = self.run_mut(number).filter(|run| run.refresh.is_none()) {
            effects.push(Effect::Refresh { run: number, plan, signals: signals.clone() });
            run.refresh = Some(signals);
        }
    }

    /// What this instance is given beside its plan has come: whatever waits to be tried again is tried now.
    pub(super) fn provisioned(&mut self, now: BootMs) {
        let hurry = |retry: &mut Retry| retry.at = retry.at.map(|at| at.min(now));
        match &mut self.current {
            Current::Fetching { retry, .. } | Current::Staged { retry, .. } => hurry(retry),
            Current::Absent | Current::Running(_) | Current::Done { .. } => {}
            Current::Parked { .. } | Current::Failed { .. } => {}
        }
        match self.swap.as_mut().map(|swap| &mut swap.phase) {
            Some(Phase::Staging { retry, .. }) => hurry(retry),
            Some(
                Phase::StoppingOld
                | Phase::Confirming { .. }
                | Phase::Steering { .. }
                | Phase::Refreshing { .. },
            )
            | None => {}
        }
    }

    /// Refreshing → (none), where the run it is about has gone: the swap begins again with whatever serves then.
    pub(super) fn drop_stale_refresh(&mut self) {
        let present = self.current.run().map(|run| run.number);
        let stale = self.swap.as_ref().is_some_and(|swap| match swap.phase {
            Phase::Refreshing { run, .. } => present != Some(run),
            Phase::Staging { .. }
            | Phase::StoppingOld
            | Phase::Confirming { .. }
            | Phase::Steering { .. } => false,
        });
        if stale {
            self.swap = None;
        }
    }

    /// Says again what an agent that was away may not have done.
    pub(super) fn resume_refresh(&mut self, effects: &mut Vec<Effect>) {
        self.drop_stale_refresh();
        if let Some(Swap { phase: Phase::Refreshing { run, unsure, .. }, .. }) = &mut self.swap {
            *unsure = true;
            let number = *run;
            // Otherwise its own release's files come first.
            if self.run_mut(number).is_some_and(|run| run.refresh.is_none()) {
                return self.refresh_next(number, effects);
            }
        }
        let current = self.current.run().into_iter().chain(self.candidate());
        effects.extend(current.filter_map(refresh_due));
    }

    /// The release whose files this run is given.
    pub(super) fn refreshing(&self, number: RunNumber) -> Option<&InstancePlan> {
        let swap = self.swap.as_ref()?;
        match swap.phase {
            Phase::Refreshing { run, .. } if run == number => Some(&swap.plan),
            Phase::Refreshing { .. } | Phase::Staging { .. } | Phase::StoppingOld => None,
            Phase::Confirming { .. } | Phase::Steering { .. } => None,
        }
    }
}

fn refresh_due(run: &Run) -> Option<Effect> {
    let signals = run.refresh.clone()?;
    Some(Effect::Refresh { run: run.number, plan: run.plan.clone(), signals })
}

/// How long the readiness check of a workload that was well needs to say that it no longer is.
fn time_to_fail(plan: &InstancePlan) -> Millis {
    plan.spec.checks.readiness.as_ref().map_or(Millis::ZERO, |check| {
        Millis(check.interval.0.saturating_mul(u64::from(check.fall)).saturating_add(check.timeout.0))
    })
}

/// The signals that take a workload from one release to another, where that needs no new process.
fn refresh_signals(old: &InstancePlan, new: &InstancePlan) -> Option<Vec<StopSignal>> {
    if old.artifact != new.artifact || !needs_no_process(&old.spec, &new.spec) {
        return None;
    }
    match new.spec.configuration.change_from(&old.spec.configuration) {
        Change::Refresh(signals) => Some(signals),
        Change::None | Change::Swap => None,
    }
}

/// Whether a workload goes from one spec to the other, with the same artifact, without a new process: where nothing but
/// files differs and none of them asks for a restart. Where nothing at all differs it does not: whoever deploys that
/// wants a fresh process.
#[must_use]
pub fn needs_no_process(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    match new.lifecycle.kind {
        RunKind::Service => {}
        // It has to do its work with the new files.
        RunKind::OneShot => return false,
    }
    // `${VERSION}` in a command or a variable is of the process: only a new one has the new text.
    let uses_version = new.exec.iter().chain(new.env.values()).any(|word| word.contains("${VERSION}"));
    let change = new.configuration.change_from(&old.configuration);
    let same = ServiceSpec { configuration: new.configuration.clone(), ..old.clone() } == *new;
    same && !uses_version && matches!(change, Change::Refresh(_))
}
