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
    use crate::fixture::{fleet, web};
    use crate::upstream::{InFlight, Purpose};
    use http::StatusCode;
    use std::sync::Arc;

    #[test]
    fn slow_is_told_by_the_others() {
        assert_eq!(slow_above(&[]), Tick::MAX);
        assert_eq!(slow_above(&[9_000_000.0]), Tick::MAX, "alone");
        assert_eq!(slow_above(&[20_000.0, 2_000_000.0]), 100_000);
        assert_eq!(slow_above(&[1_000_000.0, 20_000.0, 30_000.0]), 150_000);
        assert_eq!(slow_above(&[300.0, 900.0]), micros(FLOOR));
    }

    /// One span of answers: each instance of three gives so many in so many milliseconds.
    fn span(route: &RouteState, answers: [(u32, u64); 3], now: Instant) {
        for (upstream, (times, ms)) in route.upstreams().zip(answers) {
            for _ in 0..times {
                upstream.enter(u32::MAX).expect("room");
                let mut in_flight = InFlight::new(Arc::clone(upstream), Purpose::First, now);
                in_flight.answered(StatusCode::OK, Duration::from_millis(ms), now);
            }
        }
        sweep(route, now);
    }

    fn check(second: [(u32, u64); 3], failures: u32, ejected: bool) {
        let mut fleet = fleet(3);
        fleet.route.spec.ejection.failures = failures;
        let (served, now) = (fleet.served(), Instant::now());
        let route = web(&served);
        span(&route, [(30, 10), (30, 12), (30, 14)], now);
        span(&route, second, now);
        let unwell: Vec<bool> = route.upstreams().map(|it| !it.is_well(now)).collect();
        assert_eq!(unwell, [false, false, ejected], "{second:?}");
    }

    #[test]
    fn who_is_slow_most_of_the_time_is_ejected() {
        check([(30, 10), (30, 12), (30, 500)], 3, true);
        check([(30, 10), (30, 12), (30, 45)], 3, false);
        check([(30, 10), (30, 12), (ANSWERS_MIN - 1, 500)], 3, false);
        check([(30, 10), (30, 12), (30, 500)], 0, false);
    }

    #[test]
    fn a_long_answer_among_short_ones_is_the_requests_doing() {
        let (served, now) = (fleet(3).served(), Instant::now());
        let route = web(&served);
        span(&route, [(30, 10); 3], now);
        let upstream = route.upstreams().next().expect("one").clone();
        for ms in std::iter::repeat_n(9_000, 10).chain(std::iter::repeat_n(10, 20)) {
            upstream.enter(u32::MAX).expect("room");
            InFlight::new(Arc::clone(&upstream), Purpose::First, now).answered(
                StatusCode::OK,
                Duration::from_millis(ms),
                now,
            );
        }
        sweep(&route, now);
        assert!(upstream.is_well(now));
    }
}
