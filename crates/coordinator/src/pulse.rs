//! Whether this process itself stood still: a machine that was suspended, or had no time for it. What others said
//! meanwhile lies unread in its sockets, so that time is nobody's silence: what was last heard of each counts from as
//! much later.

use baton_model::time::{Millis, UnixMs};

/// A beat that comes this many periods after the one before is late: this process stood still in between.
const PERIODS_LATE: u64 = 3;
/// Silence is looked for, which is a beat, this many times in the time that makes somebody silent.
pub(crate) const BEATS_PER_SILENCE: u64 = 6;

/// When this process was last seen to run.
#[derive(Debug)]
pub(crate) struct Pulse {
    late_after: Millis,
    last: UnixMs,
    was_late: bool,
}

impl Pulse {
    pub(crate) const fn new(silence: Millis, now: UnixMs) -> Self {
        Self { late_after: Millis(silence.0 * PERIODS_LATE / BEATS_PER_SILENCE), last: now, was_late: false }
    }

    /// Beats, and says for how long this process stood still before. Of two late beats in a row only the first one does: a
    /// coordinator that is always slow must find out who is silent, too.
    pub(crate) fn beat(&mut self, now: UnixMs) -> Option<Millis> {
        let gap = now.since(self.last);
        let late = gap > self.late_after;
        let stood_still = late && !self.was_late;
        (self.last, self.was_late) = (now, late);
        stood_still.then_some(gap)
    }

    /// The same between two beats, for whoever is about to decide by what was heard: it may be awake before the one who
    /// beats is.
    pub(crate) fn feel(&mut self, now: UnixMs) -> Option<Millis> {
        (now.since(self.last) > self.late_after).then(|| self.beat(now)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse() -> Pulse {
        Pulse::new(Millis::secs(3), UnixMs(0))
    }

    #[test]
    fn time_that_it_stood_still_is_told_once_and_not_where_it_is_always_slow() {
        let mut pulse = pulse();
        let told: Vec<Option<u64>> = [500, 1_000, 5_000, 5_500, 9_000, 13_000, 17_000]
            .map(|ms| pulse.beat(UnixMs(ms)).map(|gap| gap.0))
            .to_vec();
        assert_eq!(told, [None, None, Some(4_000), None, Some(3_500), None, None]);
    }

    #[test]
    fn who_is_awake_first_is_told_and_nobody_after_it() {
        let mut pulse = pulse();
        assert_eq!((pulse.beat(UnixMs(500)), pulse.feel(UnixMs(1_900))), (None, None));
        assert_eq!(pulse.feel(UnixMs(20_000)), Some(Millis(19_500)));
        assert_eq!((pulse.feel(UnixMs(20_001)), pulse.beat(UnixMs(20_002))), (None, None));
    }
}
