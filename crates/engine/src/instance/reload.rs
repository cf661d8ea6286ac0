//! Reload without a restart, and what else a run is told once it is ready.
//!
//! ```text
//! (nothing) ─plan counts one more, ready─► Running ─reloaded─► Done | Failed        a start: Done, whatever was before
//! ```

use super::Instance;
use super::event::Effect;
use super::state::{Current, Run};
use baton_model::id::RunNumber;
use baton_model::observed::{ReloadObserved, ReloadPhase};

impl Instance {
    /// Asks the current run to reload, where the plan counts a reload that it has not had. One at a time, and only of
    /// a workload that is ready: one that is being started reads its configuration anyway.
    pub(super) fn follow_reload(&mut self, effects: &mut Vec<Effect>) {
        let Current::Running(run) = &mut self.current else { return };
        let number = run.plan.reload;
        let asked = run.reload.as_ref().map_or(0, |reload| reload.number);
        let busy = run.reload.as_ref().is_some_and(|reload| reload.phase == ReloadPhase::Running);
        if number <= asked || busy || run.ready_since.is_none() || run.plan.spec.lifecycle.reload.is_none() {
            return;
        }
        run.reload = Some(ReloadObserved { number, phase: ReloadPhase::Running, reason: String::new() });
        effects.push(Effect::Reload { run: run.number, number });
    }

    /// Running → Done or Failed. An answer about another reload is stale.
    pub(super) fn reloaded(
        &mut self,
        number: RunNumber,
        reload: u64,
        failure: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id.clone();
        let Some(run) = self.run_mut(number) else { return };
        let asked = run.reload.as_mut().filter(|it| it.number == reload && it.phase == ReloadPhase::Running);
        let Some(asked) = asked else { return };
        let (phase, kind, message) = match &failure {
            None => (ReloadPhase::Done, "instance-reloaded", format!("{id} has reloaded its configuration")),
            Some(why) => {
                let message = format!(
                    "{id} could not reload its configuration: {why}; what runs goes on with what it had"
                );
                (ReloadPhase::Failed, "reload-failed", message)
            }
        };
        asked.phase = phase;
        effects.push(Effect::Note { warning: failure.is_some(), kind, message });
        asked.reason = failure.unwrap_or_default();
    }

    /// Says of each workload that has become ready that its `after_ready` hook is due, once per workload.
    pub(super) fn tell_ready(&mut self, effects: &mut Vec<Effect>) {
        for run in self.runs_mut() {
            let due = run.plan.spec.lifecycle.hooks.after_ready.is_some()
                && run.ready_since.is_some()
                && run.told_ready != run.pid;
            if due {
                run.told_ready = run.pid;
                effects.push(Effect::TellReady { run: run.number });
            }
        }
    }
}

impl Run {
    /// A workload that starts has read its configuration: whatever reload was asked for is done.
    pub(super) fn starts_loaded(&mut self) {
        let number = self.plan.reload;
        self.reload =
            (number > 0).then(|| ReloadObserved { number, phase: ReloadPhase::Done, reason: String::new() });
    }

    /// The effects that an agent before this one may not have carried out.
    pub(super) fn resume_orders(&mut self, effects: &mut Vec<Effect>) {
        self.told_ready = None;
        if let Some(reload) = self.reload.as_ref().filter(|reload| reload.phase == ReloadPhase::Running) {
            effects.push(Effect::Reload { run: self.number, number: reload.number });
        }
    }
}
