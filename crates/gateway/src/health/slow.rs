//! Who is much slower than the others of its release: ejected as one that fails.
//!
//! An instance is slow when most of its answers of a span took many times as long as is usual in its release. Most, and
//! not their mean: one long answer among short ones is the request's doing, not the instance's.

use crate::choose::RouteState;
use crate::clock::{Tick, micros, tick};
use std::time::{Duration, Instant};

/// How long a span is.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// How many times as long as usual is slow.
const TIMES: f64 = 5.0;
/// What takes less is not slow, however fast the others are.
const FLOOR: Duration = Duration::from_millis(50);
/// Of fewer answers in a span nothing is concluded.
const ANSWERS_MIN: u32 = 20;

/// Ejects who was slow in the span that ends now, and says what is slow in the next.
pub(super) fn sweep(route: &RouteState, now: Instant) {
    let now = tick(now);
    for upstreams in route.releases() {
        for upstream in &upstreams {
            let (slow, all) = upstream.take_span();
            if all >= ANSWERS_MIN && slow > all / 2 && route.spec().ejection.failures != 0 {
                upstream.eject(route.spec().ejection, "it is much slower than the others", now);
            }
        }
        let limit = slow_above(&upstreams.iter().filter_map(|it| it.average(now)).collect::<Vec<_>>());
        upstreams.iter().for_each(|upstream| upstream.set_slow_above(limit));
    }
}

/// What is slow where these averages, in microseconds, are usual: by the lower median, so that of two the faster counts.
/// One alone has nobody to be compared with.
fn slow_above(averages: &[f64]) -> Tick {
    if averages.len() < 2 {
        return Tick::MAX;
    }
    let mut sorted = averages.to_vec();
    sorted.sort_by(f64::total_cmp);
    let usual = Duration::from_micros(1).mul_f64(sorted[(sorted.len() - 1) / 2].max(0.0));
    micros(usual.mul_f64(TIMES).max(FLOOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_told_by_the_others() {
        assert_eq!(slow_above(&[]), Tick::MAX);
        assert_eq!(slow_above(&[9_000_000.0]), Tick::MAX, "alone");
        assert_eq!(slow_above(&[20_000.0, 2_000_000.0]), 100_000);
        assert_eq!(slow_above(&[1_000_000.0, 20_000.0, 30_000.0]), 150_000);
        assert_eq!(slow_above(&[300.0, 900.0]), micros(FLOOR));
    }
}
