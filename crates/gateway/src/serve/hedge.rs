//! Requests that are with several instances at a time, some of which leave their route.

use super::exchange::Runner;
use std::time::{Duration, Instant};

/// How often a request that is with several instances looks whether one of them leaves.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And one that has nothing else to wait for: a timer must have a time.
const SELDOM: Duration = Duration::from_secs(3600);

/// When to look at a request that is with so many instances, and has something to do when it is `due`.
pub(super) fn look_at(due: Option<Instant>, instances: usize) -> Instant {
    match due {
        Some(due) if instances < 2 => due,
        Some(due) => due.min(Instant::now() + LOOK_EVERY),
        None if instances < 2 => Instant::now() + SELDOM,
        None => Instant::now() + LOOK_EVERY,
    }
}

/// Gives up the tries at instances that leave their route, as long as one is left, the latest first: whoever waits for an
/// instance to have nothing in flight, and counts what is cut in the end, would wait for the request, and count it, at each.
pub(super) fn leave(runners: &mut Vec<Runner>) {
    while runners.len() > 1 {
        let Some(at) = runners.iter().rposition(|it| it.in_flight.upstream().has_left()) else { return };
        runners.remove(at);
    }
}
