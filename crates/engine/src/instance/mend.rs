//! Files that may be damaged: checked again and fetched anew, whatever made them suspect.
//!
//! A shim executes nothing that has changed since it was checked, and tells so. A program that cannot be executed, and
//! one that falls into a crash loop, may have come to it by a disk that lost a bit, which no time of a file tells.

use super::Instance;
use super::event::Effect;
use super::state::{Ended, Run};
use baton_model::id::RunNumber;
use baton_model::observed::Exit;

impl Run {
    /// Whether this end makes its files suspect although its shim found nothing; asked before it is taken in, so that
    /// each trouble is looked into once.
    pub(super) fn is_suspect_after(&self, ended: &Ended) -> bool {
        let not_executed = |exit| matches!(exit, Exit::Exec(_));
        (not_executed(ended.exit) && !self.last_exit.is_some_and(not_executed))
            || (ended.crash_loop && !self.crash_loop)
    }
}

impl Instance {
    /// The files are good. What waited for that, or may have failed for it, is started now and not after its wait.
    pub(super) fn mended(&mut self, number: RunNumber, fetched: bool, effects: &mut Vec<Effect>) {
        let id = self.id.clone();
        let Some(run) = self.run_mut(number) else { return };
        if run.down || !(fetched || run.damaged) {
            return;
        }
        run.damaged = false;
        let message = if run.pid.is_some() {
            // Its shim tried again between the mending and the word of it.
            format!("the files of {id} were damaged and have been mended")
        } else {
            run.reason = "its files were damaged and have been fetched anew; it is started".to_owned();
            let stop = &run.plan.spec.stop;
            effects.push(Effect::Restart { run: number, signal: stop.signal, timeout: stop.timeout });
            format!("the files of {id} were damaged and have been mended; it is started")
        };
        effects.push(Effect::Note { warning: false, kind: "instance-mended", message });
    }

    /// The files could not be mended. The shim tries to start it again after its wait, and what it finds is told anew.
    pub(super) fn mend_failed(&mut self, number: RunNumber, reason: &str, effects: &mut Vec<Effect>) {
        let id = self.id.clone();
        let Some(run) = self.run_mut(number) else { return };
        if run.pid.is_none() {
            run.reason = format!("not started: its files are damaged: {reason}");
        }
        let message = format!("the files of {id} are damaged and could not be mended yet: {reason}");
        effects.push(Effect::Note { warning: true, kind: "instance-not-mended", message });
    }
}
