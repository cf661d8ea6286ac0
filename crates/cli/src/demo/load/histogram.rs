//! A histogram of latencies with a bounded relative error, in the manner of HdrHistogram (Gil Tene):
//! each power of two is cut into [`STEPS`] equal steps, so that a value is known to 1/[`STEPS`] of itself.

use baton_model::receipt::Latency;
use std::time::Duration;

/// Steps in each power of two; the relative error is at most one part in this many.
const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Powers of two above the exact range: reaches 2^36 µs, 19 hours.
const OCTAVES: u64 = 30;

/// Counts of latencies, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let len = usize::try_from(STEPS * (OCTAVES + 1)).expect("a few thousand");
        Self { counts: vec![0; len], total: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[index(us).min(last)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// The smallest latency in milliseconds that at least `quantile` (0 to 1) of all do not exceed, to the
    /// histogram's precision; 0 when nothing was counted.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "counts stay far below 2^52"
        )]
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return milliseconds(highest(index).min(self.max_us));
            }
        }
        0.0
    }

    /// The figures of a receipt.
    pub(crate) fn latency(&self) -> Latency {
        Latency { p50: self.quantile_ms(0.50), p99: self.quantile_ms(0.99), max: milliseconds(self.max_us) }
    }
}

/// The counter of a value: exact below `STEPS`, then `STEPS / 2` new ones for each doubling.
fn index(us: u64) -> usize {
    if us < STEPS {
        return usize::try_from(us).expect("below STEPS");
    }
    let octave = u64::from(us.ilog2() - STEPS_LOG2 + 1);
    let step = (us >> octave) - STEPS / 2;
    usize::try_from(STEPS + (octave - 1) * (STEPS / 2) + step).expect("a few thousand")
}

/// The largest value that falls on the counter `index`.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let octave = (index - STEPS) / (STEPS / 2) + 1;
    let step = (index - STEPS) % (STEPS / 2) + STEPS / 2;
    ((step + 1) << octave) - 1
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_on_a_counter_that_is_close_to_it() {
        let mut previous = 0;
        for us in (0..5_000).chain([10_000, 123_456, 1_000_000, 60_000_000, 3_600_000_000]) {
            let index = index(us);
            assert!(index >= previous, "{us} falls before a smaller one");
            previous = index;
            let top = highest(index);
            assert!(top >= us, "{us} is above the top {top} of its counter");
            assert!(top - us <= us / (STEPS / 2), "{us} is too far from {top}");
        }
    }

    #[test]
    fn quantiles_of_a_known_spread() {
        let mut histogram = Histogram::default();
        for ms in 1..=1000 {
            histogram.record(Duration::from_millis(ms));
        }
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 30.0;
        assert!(near(histogram.quantile_ms(0.5), 500.0), "{}", histogram.quantile_ms(0.5));
        assert!(near(histogram.quantile_ms(0.99), 990.0), "{}", histogram.quantile_ms(0.99));
        assert_eq!(histogram.latency().max, 1000.0);
        assert_eq!(Histogram::default().latency(), Latency::default());
    }
}
