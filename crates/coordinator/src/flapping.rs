//! Two processes that use one identity: each opens a session, and so ends the other's, again and again.

use baton_model::time::{Millis, UnixMs};
use std::collections::VecDeque;

/// This many replacements within [`FLAPPING_WITHIN`] are no reconnection any more.
const FLAPPING_COUNT: usize = 3;
const FLAPPING_WITHIN: Millis = Millis::secs(10);

/// When the sessions of one node or gateway were last replaced by newer ones; at most [`FLAPPING_COUNT`].
#[derive(Debug, Default)]
pub(crate) struct Replacements(VecDeque<UnixMs>);

impl Replacements {
    /// Notes that a session was replaced; `true` when that happens too often.
    pub(crate) fn note(&mut self, now: UnixMs) -> bool {
        self.0.push_back(now);
        while self.0.len() > FLAPPING_COUNT {
            self.0.pop_front();
        }
        let first = self.0.front().copied().unwrap_or(now);
        let flapping = self.0.len() == FLAPPING_COUNT && now.since(first) <= FLAPPING_WITHIN;
        if flapping {
            // Counted anew: one of the two may go on while an operator looks into it.
            self.0.clear();
        }
        flapping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(times: &[u64]) -> Vec<bool> {
        let mut replacements = Replacements::default();
        times.iter().map(|ms| replacements.note(UnixMs(*ms))).collect()
    }

    #[test]
    fn three_replacements_within_ten_seconds_are_told_once() {
        assert_eq!(noted(&[0, 5_000, 10_000, 10_001, 10_002]), [false, false, true, false, false]);
        assert_eq!(noted(&[0, 5_000, 10_001, 14_999]), [false, false, false, true]);
    }

    #[test]
    fn an_agent_that_reconnects_now_and_then_is_one_agent() {
        assert!(!noted(&[0, 6_000, 12_000, 18_000, 24_000]).contains(&true));
    }
}
