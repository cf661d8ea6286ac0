//! Reload without a restart: a signal or a command, and the workload's answer where one is waited for.

use super::errand::Task;
use super::{Goal, Shim};
use crate::shim::clock::{boot_ms, monotonic_us};
use crate::shim::ending;
use crate::shim::lifecycle::Way;
use crate::shim::protocol::{Message, ReloadEnd};

/// The reloads of one shim.
#[derive(Default)]
pub(super) struct Reload {
    /// Asked for, not begun.
    wanted: Option<u64>,
    under_way: Option<UnderWay>,
    /// The last that ended, to be told again to whoever asks for it again.
    last: Option<(u64, ReloadEnd)>,
}

struct UnderWay {
    number: u64,
    /// When the signal was sent.
    began_ms: u64,
    began_us: u64,
    /// `u64::MAX` for a command, which has a deadline of its own.
    due_ms: u64,
    /// What the workload says is about an earlier reload.
    stale: bool,
}

impl Reload {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.under_way.as_ref().map(|it| it.due_ms).filter(|due| *due < u64::MAX)
    }

    /// The workload says that it has begun; `since` is on the monotonic clock, in microseconds.
    pub(super) fn heard_reloading(&mut self, since: Option<u64>) {
        if let Some(under_way) = &mut self.under_way {
            under_way.stale = since.is_some_and(|since| since < under_way.began_us);
        }
    }

    /// More time, `most_ms` from the beginning at most.
    pub(super) fn extend(&mut self, until_ms: u64, most_ms: u64) {
        if let Some(under_way) = self.under_way.as_mut().filter(|it| it.due_ms < u64::MAX) {
            let limit = under_way.began_ms.saturating_add(most_ms);
            under_way.due_ms = under_way.due_ms.max(until_ms.min(limit));
        }
    }
}

impl Shim {
    /// Takes the order in; what was done before is told again.
    pub(super) fn order_reload(&mut self, number: u64) {
        if let Some((_, end)) = self.reload.last.filter(|(last, _)| *last >= number) {
            self.parts.control.send(&Message::Reloaded { number, end }, 0);
        } else if self.reload.under_way.as_ref().is_none_or(|it| it.number < number) {
            self.reload.wanted = Some(number);
            if !self.runs() {
                self.finish_reload(ReloadEnd::Ended);
            }
        }
    }

    /// Begins a reload that is wanted; the place for a command is free.
    pub(super) fn begin_reload(&mut self, now: u64) {
        if self.reload.under_way.is_some() || self.goal != Goal::Run {
            return;
        }
        let Some(number) = self.reload.wanted.take() else { return };
        let life = &self.parts.config.life;
        let began_us = monotonic_us();
        let mut under_way = UnderWay { number, began_ms: now, began_us, due_ms: u64::MAX, stale: false };
        match &life.reload {
            Some(Way::Signal { signal, timeout_ms }) => {
                let (signal, answers) = (*signal, life.ready_within_ms > 0);
                under_way.due_ms = now.saturating_add(*timeout_ms);
                self.reload.under_way = Some(under_way);
                ending::signal(self.workload.pid, signal);
                if !answers {
                    self.finish_reload(ReloadEnd::Done);
                }
            }
            Some(Way::Command(_)) => {
                self.reload.under_way = Some(under_way);
                self.begin_errand(Task::Reload, now);
            }
            // The coordinator does not ask for it; there is nothing to be done.
            None => {
                self.reload.under_way = Some(under_way);
                self.finish_reload(ReloadEnd::Done);
            }
        }
    }

    /// The workload says that it is ready: with a signal, that is the answer.
    pub(super) fn reload_heard_ready(&mut self) {
        if self.reload.under_way.as_ref().is_some_and(|it| it.due_ms < u64::MAX && !it.stale) {
            self.finish_reload(ReloadEnd::Done);
        }
    }

    /// Gives up on an answer that does not come.
    pub(super) fn mind_reload(&mut self) {
        if self.reload.due_ms().is_some_and(|due| due <= boot_ms()) {
            self.finish_reload(ReloadEnd::Deaf);
        }
    }

    /// Tells a new agent how the last one ended: the one before it may not have heard.
    pub(super) fn tell_last_reload(&mut self) {
        if let Some((number, end)) = self.reload.last {
            self.parts.control.send(&Message::Reloaded { number, end }, 0);
        }
    }

    /// Ends the reload under way, or the one that was wanted.
    pub(super) fn finish_reload(&mut self, end: ReloadEnd) {
        let number = self.reload.under_way.take().map(|it| it.number).or(self.reload.wanted.take());
        if let Some(number) = number {
            self.reload.last = Some((number, end));
            self.parts.control.send(&Message::Reloaded { number, end }, 0);
        }
    }
}
