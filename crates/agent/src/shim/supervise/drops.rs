//! Telling the agent of output that could not be kept: at once when that begins, then seldom, and never unasked twice.

use super::Shim;
use crate::shim::clock::boot_ms;
use crate::shim::protocol::{LogDropped, Message};
use baton_model::observed::LogDrops;

/// Between two tellings while it goes on: each is a report to the coordinator.
const TELL_AGAIN_MS: u64 = 5_000;
/// Without a drop for so long, the next one is a new beginning.
const OVER_AFTER_MS: u64 = 60_000;

/// What was seen and told of drops.
#[derive(Default)]
pub(super) struct Telling {
    file: Episode,
    journal: Episode,
    told: LogDrops,
    told_at_ms: u64,
}

/// A time in which output is dropped again and again.
#[derive(Default)]
struct Episode {
    seen: u64,
    grew_at_ms: u64,
    /// It began, and nobody was told yet.
    untold: bool,
}

impl Episode {
    fn look(&mut self, count: u64, now: u64) {
        if count == self.seen {
            return;
        }
        self.untold |= self.seen == 0 || now.saturating_sub(self.grew_at_ms) > OVER_AFTER_MS;
        (self.seen, self.grew_at_ms) = (count, now);
    }
}

impl Telling {
    fn look(&mut self, drops: LogDrops, now: u64) {
        self.file.look(drops.bytes, now);
        self.journal.look(drops.journal_lines, now);
    }

    /// When the agent is to be told, where there is something it does not know.
    fn due_ms(&self, drops: LogDrops) -> Option<u64> {
        let due_ms =
            if self.file.untold || self.journal.untold { 0 } else { self.told_at_ms + TELL_AGAIN_MS };
        (drops != self.told).then_some(due_ms)
    }

    fn take(&mut self, drops: LogDrops, now: u64) -> LogDropped {
        (self.told, self.told_at_ms) = (drops, now);
        LogDropped {
            drops,
            file_began: std::mem::take(&mut self.file.untold),
            journal_began: std::mem::take(&mut self.journal.untold),
        }
    }
}

impl Shim {
    /// When [`Self::tell_drops`] has something to do.
    pub(super) fn drops_due_ms(&self) -> Option<u64> {
        let due = self.telling.due_ms(self.parts.logs.dropped());
        due.filter(|_| self.parts.control.has_agent())
    }

    /// Tells the agent, if there is one, what it does not know.
    pub(super) fn tell_drops(&mut self) {
        let (drops, now) = (self.parts.logs.dropped(), boot_ms());
        self.telling.look(drops, now);
        if self.drops_due_ms().is_some_and(|due| due <= now) {
            let dropped = self.telling.take(drops, now);
            self.parts.control.send(&Message::LogDropped(dropped), 0);
        }
    }

    /// The shim ends, and what is dropped by that is told before.
    pub(super) fn tell_last_drops(&mut self) {
        let (drops, now) = (self.parts.logs.dropped(), boot_ms());
        self.telling.look(drops, now);
        if drops != self.telling.told {
            let dropped = self.telling.take(drops, now);
            self.parts.control.send(&Message::LogDropped(dropped), 0);
        }
    }

    /// A new agent has the counts from the state it was given; that it began while nobody listened, it has not.
    pub(super) fn tell_drops_anew(&mut self) {
        let (drops, now) = (self.parts.logs.dropped(), boot_ms());
        self.telling.look(drops, now);
        let dropped = self.telling.take(drops, now);
        if dropped.file_began || dropped.journal_began {
            self.parts.control.send(&Message::LogDropped(dropped), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks and tells at each moment; what was told, as file and journal beginnings and lines.
    fn told(moments: &[(u64, u64, u64)]) -> Vec<(u64, bool, bool, u64)> {
        let mut telling = Telling::default();
        let mut told = Vec::new();
        for (now, bytes, journal_lines) in moments.iter().copied() {
            let drops = LogDrops { lines: bytes, bytes, journal_lines };
            telling.look(drops, now);
            if telling.due_ms(drops).is_some_and(|due| due <= now) {
                let LogDropped { drops, file_began, journal_began } = telling.take(drops, now);
                told.push((now, file_began, journal_began, drops.lines));
            }
        }
        told
    }

    #[test]
    fn a_beginning_is_told_at_once_and_what_follows_seldom() {
        assert_eq!(told(&[(100_000, 0, 0), (200_000, 0, 0)]), []);
        assert_eq!(
            told(&[(100_000, 1, 0), (101_000, 2, 0), (105_000, 9, 0), (106_000, 9, 0)]),
            [(100_000, true, false, 1), (105_000, false, false, 9)]
        );
        // The journal begins by itself, and each begins anew after a while.
        assert_eq!(
            told(&[(100_000, 1, 0), (101_000, 1, 5), (150_000, 2, 5), (170_000, 3, 6)]),
            [
                (100_000, true, false, 1),
                (101_000, false, true, 1),
                (150_000, false, false, 2),
                (170_000, false, true, 3)
            ]
        );
    }
}
