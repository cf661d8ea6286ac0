//! What the workload says of itself (`notify`), and what follows: it is ready, it is well, it needs more time; or it
//! keeps silent for too long, and is ended to be started again.

use super::{Goal, Shim};
use crate::shim::clock::boot_ms;
use crate::shim::ending;
use crate::shim::notify::{Heard, Watchdog};
use crate::shim::protocol::{Message, Notified};
use baton_model::observed::Exit;

/// Messages taken in at once, so that a workload that floods does not hold up a restart.
const MESSAGES_PER_ROUND: usize = 32;
/// From the signal that ends a workload which is not well to the kill: time for a core dump, and no more, since
/// nobody is served meanwhile.
const ENDING_GRACE_MS: u64 = 2_000;
/// `EXTEND_TIMEOUT_USEC` moves a deadline by this in all, at most.
const EXTENSION_MAX_MS: u64 = 3_600_000;
/// A watchdog that the workload sets itself is not shorter than a service file's.
const WATCHDOG_MIN_MS: u64 = 100;
/// Between two tellings of a status alone.
const STATUS_PAUSE_MS: u64 = 200;
/// Never.
const NEVER: u64 = u64::MAX;

/// What is watched of one workload.
pub(super) struct Watch {
    said: Notified,
    told: Notified,
    told_ms: u64,
    watchdog_ms: u64,
    watchdog_due_ms: u64,
    start_due_ms: u64,
    /// Why it is being ended, where that was not asked for by an operator.
    pub(super) cause: Option<Exit>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            said: Notified::default(),
            told: Notified::default(),
            told_ms: 0,
            watchdog_ms: 0,
            watchdog_due_ms: NEVER,
            start_due_ms: NEVER,
            cause: None,
        }
    }

    pub(super) fn said(&self) -> Notified {
        self.said
    }

    fn is_untold(&self) -> bool {
        self.said != self.told
    }

    /// Whether more than the status has changed.
    fn is_urgent(&self) -> bool {
        let flags = |said: &Notified| (said.ready, said.reloading, said.stopping);
        flags(&self.said) != flags(&self.told)
    }

    /// When something is due, at the latest.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let telling = if self.is_untold() { self.told_ms.saturating_add(STATUS_PAUSE_MS) } else { NEVER };
        Some(self.watchdog_due_ms.min(self.start_due_ms).min(telling)).filter(|due| *due < NEVER)
    }

    fn disarm(&mut self) {
        self.watchdog_due_ms = NEVER;
        self.start_due_ms = NEVER;
    }
}

impl Shim {
    /// A workload was started.
    pub(super) fn watch_anew(&mut self, now: u64) {
        let life = &self.parts.config.life;
        let mut watch = Watch::new();
        watch.watchdog_ms = life.watchdog_ms;
        if life.ready_within_ms > 0 {
            watch.start_due_ms = now.saturating_add(life.ready_within_ms);
        } else if life.watchdog_ms > 0 {
            watch.watchdog_due_ms = now.saturating_add(life.watchdog_ms);
        }
        self.watch = watch;
    }

    /// No workload runs: nothing is due, and what it said holds no longer.
    pub(super) fn watch_nothing(&mut self) {
        self.watch = Watch::new();
    }

    /// Takes in what was said.
    pub(super) fn take_notifications(&mut self) {
        let now = boot_ms();
        for _ in 0..MESSAGES_PER_ROUND {
            let (shim, workload) = (self.parts.shim.pid, self.workload.pid);
            let Some(heard) = self.parts.notify.receive(shim, workload) else { break };
            if self.runs() {
                self.hear(&heard, now);
            }
        }
        self.tell_notified(now);
    }

    fn hear(&mut self, heard: &Heard, now: u64) {
        let watch = &mut self.watch;
        if let Some(status) = heard.status {
            watch.said.status = status;
        }
        watch.said.stopping |= heard.stopping;
        if let Some(since) = heard.reloading {
            watch.said.reloading = true;
            self.reload.heard_reloading(since);
        }
        let watch = &mut self.watch;
        if heard.ready {
            watch.start_due_ms = NEVER;
            if !watch.said.ready && watch.watchdog_ms > 0 && self.goal == Goal::Run {
                watch.watchdog_due_ms = now.saturating_add(watch.watchdog_ms);
            }
            watch.said.ready = true;
            watch.said.reloading = false;
            self.reload_heard_ready();
        }
        let watch = &mut self.watch;
        if let Some(usec) = heard.watchdog_usec {
            watch.watchdog_ms = if usec == 0 { 0 } else { (usec / 1000).max(WATCHDOG_MIN_MS) };
        }
        let lives = heard.watchdog == Some(Watchdog::Alive) || heard.watchdog_usec.is_some();
        if lives && self.goal == Goal::Run && watch.start_due_ms == NEVER {
            let due = now.saturating_add(watch.watchdog_ms);
            watch.watchdog_due_ms = if watch.watchdog_ms == 0 { NEVER } else { due };
        }
        if let Some(usec) = heard.extend_usec {
            self.extend(now.saturating_add(usec / 1000));
        }
        if heard.watchdog == Some(Watchdog::Trigger) && self.goal == Goal::Run {
            self.end_workload(Exit::WatchdogTriggered, libc::SIGABRT, now);
        }
    }

    /// Gives the start, stop or reload under way until then, if that is later than its deadline.
    fn extend(&mut self, until_ms: u64) {
        let later = |due: u64, began: u64| due.max(until_ms.min(began.saturating_add(EXTENSION_MAX_MS)));
        if self.watch.start_due_ms != NEVER {
            self.watch.start_due_ms = later(self.watch.start_due_ms, self.started_ms);
        }
        // One that is ended since it was not well has had its time.
        let stops = self.goal != Goal::Run && self.kill_at_ms != NEVER;
        if stops && self.stop_signal != libc::SIGKILL && !self.is_ended_unwell() {
            self.kill_at_ms = later(self.kill_at_ms, self.stop_began_ms);
        }
        self.reload.extend(until_ms, EXTENSION_MAX_MS);
    }

    fn is_ended_unwell(&self) -> bool {
        matches!(self.watch.cause, Some(Exit::Watchdog | Exit::WatchdogTriggered | Exit::StartDeadline))
    }

    /// Ends a workload that has kept silent for too long.
    pub(super) fn mind_watch(&mut self, now: u64) {
        if self.goal == Goal::Run && self.watch.watchdog_due_ms <= now {
            self.end_workload(Exit::Watchdog, libc::SIGABRT, now);
        } else if self.goal == Goal::Run && self.watch.start_due_ms <= now {
            self.end_workload(Exit::StartDeadline, libc::SIGTERM, now);
        }
        self.tell_notified(now);
    }

    /// Ends the workload, to be started again under its restart policy.
    fn end_workload(&mut self, cause: Exit, signal: i32, now: u64) {
        self.watch.cause = Some(cause);
        self.watch.disarm();
        self.goal = Goal::Restart;
        self.stop_signal = signal;
        self.kill_at_ms = now.saturating_add(ENDING_GRACE_MS);
        ending::signal(self.workload.pid, signal);
    }

    /// A stop disarms what would end the workload otherwise.
    pub(super) fn watch_no_more(&mut self) {
        self.watch.disarm();
    }

    /// Tells what has changed: readiness at once, a status alone not too often.
    fn tell_notified(&mut self, now: u64) {
        let watch = &mut self.watch;
        let due = watch.is_urgent() || now >= watch.told_ms.saturating_add(STATUS_PAUSE_MS);
        if watch.is_untold() && due {
            watch.told = watch.said;
            watch.told_ms = now;
            self.parts.control.send(&Message::Notified(watch.said), 0);
        }
    }
}
