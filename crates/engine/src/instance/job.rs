//! Jobs: services of kind one-shot. Exit code 0 is their readiness, and it stays when nothing of them is left: the run
//! is stopped and forgotten, and neither an agent's restart nor a boot of the node runs it again. A job that was
//! interrupted (its shim was lost, the node went down) runs again.

use super::event::Effect;
use super::state::{Current, Phase, Run, Swap, Why};
use super::{BootMs, Instance};
use baton_model::id::RunNumber;
use baton_model::lifecycle::RunKind;
use baton_model::observed::Exit;

impl Run {
    /// It does one thing and ends.
    pub(super) fn is_job(&self) -> bool {
        match self.plan.spec.lifecycle.kind {
            RunKind::OneShot => true,
            RunKind::Service => false,
        }
    }

    /// A job that did not end as it should, and is not tried again soon.
    pub(super) fn has_failed_job(&self) -> bool {
        self.is_job() && self.pid.is_none() && !self.is_done() && (self.down || self.crash_loop)
    }

    /// A job that ended as it should.
    pub(super) fn is_done(&self) -> bool {
        self.is_job() && self.down && self.last_exit == Some(Exit::Code(0))
    }
}

impl Instance {
    /// Running → Done. Nothing where the run is another's, or has not done its work; a candidate is judged with its swap.
    pub(super) fn finish_job(&mut self, number: RunNumber, now: BootMs, effects: &mut Vec<Effect>) {
        match &self.current {
            Current::Running(run) if run.number == number && run.is_done() => {
                let run = run.clone();
                self.job_done(&run, now, effects);
            }
            Current::Running(_) | Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => {}
            Current::Parked { .. } | Current::Failed { .. } | Current::Done { .. } => {}
        }
    }

    /// Confirming → (none): the job of the new release is done, and takes the place of the old release.
    pub(super) fn promote_job(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let Some(Swap { plan, phase: Phase::Confirming { run, .. }, .. }) = self.swap.take() else { return };
        let message = format!("{} now has {} (release {})", self.id, plan.version, plan.release);
        effects.push(Effect::Note { warning: false, kind: "swap-done", message });
        if let Current::Running(old) = &self.current {
            let old = old.clone();
            self.replace(&old, &plan, now, effects);
        }
        self.job_done(&run, now, effects);
    }

    /// The run has done its work, and nothing of it is needed any more.
    fn job_done(&mut self, run: &Run, now: BootMs, effects: &mut Vec<Effect>) {
        let (id, version) = (&self.id, &run.plan.version);
        let message = format!(
            "{id} has done its work: {version} (release {}) ended with exit code 0",
            run.plan.release
        );
        effects.push(Effect::Note { warning: false, kind: "instance-done", message });
        self.leave(run, Why::Finished, None, effects);
        self.current =
            Current::Done { plan: run.plan.clone(), run: run.number, restarts: run.restarts, since: now };
    }

    /// Whether a job of an earlier release is done here: there is nothing to start beside, and nothing to bring back.
    pub(super) fn has_done_job(&self) -> bool {
        match self.current {
            Current::Done { .. } => true,
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => false,
            Current::Running(_) | Current::Parked { .. } | Current::Failed { .. } => false,
        }
    }
}
