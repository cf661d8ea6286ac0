//! The decision clock: the only place in this crate that reads wall time.
//!
//! Wall time is read once at start; from there on monotonic time is added. It never lies below the latest time
//! that was stored, so that a stepped wall clock neither re-bases nor reverses a deadline.

use baton_model::time::{Millis, UnixMs};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How often the time is stored while the coordinator runs, so that a quiet coordinator too has a mark to start from.
pub(crate) const MARK_EVERY: Millis = Millis::secs(10);

/// Gives the time of decisions. Copies give the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: UnixMs,
    started: Instant,
}

impl Clock {
    /// Starts the clock at the wall time, or at `latest_stored` where the wall clock lies before it.
    pub(crate) fn start(latest_stored: UnixMs) -> Self {
        Self { base: wall_time().max(latest_stored), started: Instant::now() }
    }

    /// The time now. Never goes back.
    pub(crate) fn now(&self) -> UnixMs {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base.plus(Millis(passed))
    }

    /// The moment on the runtime's clock at which this clock shows `at`.
    pub(crate) fn instant_of(&self, at: UnixMs) -> Instant {
        // A deadline in the far future only has to be far: a year keeps the sum within what an `Instant` can hold.
        const FAR: Millis = Millis(365 * 24 * 3_600_000);
        let ahead = at.since(self.base).min(FAR);
        self.started + ahead.duration()
    }
}

/// Wall time; zero when the machine's clock stands before 1970.
pub(crate) fn wall_time() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wall_clock_that_was_set_back_does_not_take_time_back() {
        let stored = wall_time().plus(Millis::secs(3600));
        let clock = Clock::start(stored);
        assert!(clock.now() >= stored);
        assert!(clock.now() < stored.plus(Millis::secs(60)));
    }

    #[test]
    fn a_clock_without_a_mark_shows_wall_time() {
        let before = wall_time();
        let clock = Clock::start(UnixMs(0));
        assert!(clock.now() >= before);
    }

    #[test]
    fn instants_follow_the_clock() {
        let clock = Clock::start(UnixMs(0));
        let before = Instant::now();
        let later = clock.instant_of(clock.now().plus(Millis(500)));
        // A millisecond on either side, as times are cut to them.
        let around = before + Duration::from_millis(499)..=Instant::now() + Duration::from_millis(501);
        assert!(around.contains(&later), "{later:?} is not in {around:?}");
        let _ = clock.instant_of(UnixMs(u64::MAX));
    }
}
