//! Since when an instance is ready, from what agents say: for how long it has been.
//!
//! Every report takes a slightly different time to arrive, so that the start computed from it wanders. The first
//! estimate is kept as long as the later ones agree with it, else each report would look like a change.

use baton_model::id::InstanceId;
use baton_model::observed::InstanceObserved;
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;

/// Estimates that differ by less speak of the same start. A report that was held up for longer moves the start to a
/// later time, which is the safe side: it is believed to be ready for less long.
const TOLERANCE: Millis = Millis(500);

/// Keeps the known start of instances whose freshly estimated one agrees with it.
pub(crate) fn settle(
    known: &BTreeMap<InstanceId, InstanceObserved>,
    reported: &mut BTreeMap<InstanceId, InstanceObserved>,
) {
    for (id, instance) in reported {
        let same_run = known.get(id).filter(|old| old.run == instance.run && old.release == instance.release);
        let previous = same_run.and_then(|old| old.ready_since);
        instance.ready_since = instance.ready_since.map(|estimate| settled(previous, estimate));
    }
}

fn settled(previous: Option<UnixMs>, estimate: UnixMs) -> UnixMs {
    match previous {
        Some(known) if known.0.abs_diff(estimate.0) <= TOLERANCE.0 => known,
        Some(_) | None => estimate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::id::{ReleaseNumber, RunNumber};
    use baton_model::observed::InstanceState;

    fn ready(since: u64, run: u64) -> BTreeMap<InstanceId, InstanceObserved> {
        let instance = InstanceObserved {
            release: ReleaseNumber(1),
            state: InstanceState::Ready,
            ready_since: Some(UnixMs(since)),
            run: RunNumber(run),
            pid: None,
            ports: BTreeMap::new(),
            restarts: 0,
            crash_loop: false,
            last_exit: None,
            reason: String::new(),
            swap: None,
            status: String::new(),
            reload: None,
            log_drops: Default::default(),
        };
        BTreeMap::from([("web.1".parse().unwrap(), instance)])
    }

    /// The start that is kept when an estimate of `run` follows the known start 99,000 of run 1.
    fn check(estimate: u64, run: u64, expected: u64) {
        let mut reported = ready(estimate, run);
        settle(&ready(99_000, 1), &mut reported);
        let settled: Vec<_> = reported.values().map(|instance| instance.ready_since).collect();
        assert_eq!(settled, [Some(UnixMs(expected))], "estimate {estimate} of run {run}");
    }

    #[test]
    fn jitter_does_not_move_the_start() {
        check(99_300, 1, 99_000);
        check(98_700, 1, 99_000);
    }

    #[test]
    fn a_break_or_another_run_moves_the_start() {
        check(109_900, 1, 109_900);
        check(60_000, 1, 60_000);
        check(99_300, 2, 99_300);
    }
}
