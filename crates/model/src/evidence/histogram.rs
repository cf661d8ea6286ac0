//! A histogram of latencies with a bounded relative error, in the manner of HdrHistogram (Gil Tene):
//! each power of two is cut into equal steps, so that a value is known to 1/32 of itself. Two of them merge into the
//! histogram of all their values.

use crate::receipt::Latency;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Values below this many microseconds are counted exactly; above, each doubling has half as many steps.
pub const STEPS: u64 = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// New steps of each doubling.
pub const STEPS_OF_DOUBLING: usize = 32;
/// Doublings above the exact range: reaches 2^36 µs, 19 hours; what is longer falls on the last step.
pub const DOUBLINGS: usize = 30;
/// How many steps there are.
pub const STEPS_ALL: usize = 64 + DOUBLINGS * STEPS_OF_DOUBLING;

/// Counts of latencies by step. Holds only the steps that were hit, in their order: a second of a gateway's latencies
/// is a few hundred bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Histogram {
    counts: Vec<(u16, u64)>,
    total: u64,
    max_us: u64,
    sum_us: u64,
}

/// A histogram as it is kept and sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Pairs of a step and its count.
    pub counts: Vec<(u16, u64)>,
    /// The largest value.
    pub max_us: u64,
    /// The sum of all values.
    pub sum_us: u64,
}

/// Why counts are not a histogram's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// A step beyond the last.
    #[error("step {0} of a histogram does not exist; the last one is {last}", last = STEPS_ALL - 1)]
    NoSuchStep(u16),
    /// Steps that do not grow.
    #[error("the steps of a histogram must grow: {0} does not")]
    Order(u16),
}

impl Histogram {
    /// Counts one latency, to the microsecond.
    pub fn record(&mut self, latency: Duration) {
        self.record_us(microseconds(latency));
    }

    /// Counts one latency.
    pub fn record_us(&mut self, us: u64) {
        self.add(step_number(us), 1);
        self.max_us = self.max_us.max(us);
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.counts {
            self.add(*step, *count);
        }
        self.max_us = self.max_us.max(other.max_us);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// What was added since `earlier` was counted on the same counters. Its largest value is known to the precision of
    /// its step.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |step: u16| {
            let at = earlier.counts.binary_search_by_key(&step, |(step, _)| *step);
            at.map_or(0, |at| earlier.counts[at].1)
        };
        let added = self.counts.iter().map(|(step, count)| (*step, count.saturating_sub(before(*step))));
        let counts: Vec<(u16, u64)> = added.filter(|(_, count)| *count > 0).collect();
        Self {
            total: counts.iter().map(|(_, count)| count).sum(),
            max_us: counts.last().map_or(0, |(step, _)| top(usize::from(*step)).min(self.max_us)),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
            counts,
        }
    }

    fn add(&mut self, step: u16, count: u64) {
        match self.counts.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.counts[at].1 += count,
            Err(at) => self.counts.insert(at, (step, count)),
        }
        self.total += count;
    }

    /// The steps that were hit, in their order, and their counts.
    #[must_use]
    pub fn counts(&self) -> &[(u16, u64)] {
        &self.counts
    }

    /// The largest, in microseconds.
    #[must_use]
    pub const fn max_us(&self) -> u64 {
        self.max_us
    }

    /// How many were counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The sum of all, in microseconds.
    #[must_use]
    pub const fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many were counted at most `us`, to the histogram's precision: a step counts when its top does not exceed `us`.
    #[must_use]
    pub fn at_most(&self, us: u64) -> u64 {
        self.counts.iter().take_while(|(step, _)| top(usize::from(*step)) <= us).map(|(_, count)| count).sum()
    }

    /// The smallest latency in milliseconds that at least `quantile` (0 to 1) of all do not exceed, to the
    /// histogram's precision; 0 when nothing was counted.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "counts stay far below 2^52"
        )]
        let rank = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (step, count) in &self.counts {
            seen += count;
            if seen >= rank {
                return milliseconds(top(usize::from(*step)).min(self.max_us));
            }
        }
        0.0
    }

    /// The figures of a receipt.
    #[must_use]
    pub fn latency(&self) -> Latency {
        Latency { p50: self.quantile_ms(0.50), p99: self.quantile_ms(0.99), max: milliseconds(self.max_us) }
    }
}

impl From<Histogram> for Stored {
    fn from(histogram: Histogram) -> Self {
        Self { counts: histogram.counts, max_us: histogram.max_us, sum_us: histogram.sum_us }
    }
}

impl TryFrom<Stored> for Histogram {
    type Error = HistogramError;
    fn try_from(stored: Stored) -> Result<Self, HistogramError> {
        let mut total = 0_u64;
        let mut before = None;
        for (step, count) in &stored.counts {
            if usize::from(*step) >= STEPS_ALL {
                return Err(HistogramError::NoSuchStep(*step));
            }
            if before.is_some_and(|before| *step <= before) {
                return Err(HistogramError::Order(*step));
            }
            before = Some(*step);
            total = total.saturating_add(*count);
        }
        Ok(Self { counts: stored.counts, total, max_us: stored.max_us, sum_us: stored.sum_us })
    }
}

/// The microseconds of a latency.
#[must_use]
pub fn microseconds(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

/// The step that a value falls on: exact below [`STEPS`], then [`STEPS_OF_DOUBLING`] new ones for each doubling.
#[must_use]
pub fn step(us: u64) -> usize {
    usize::from(step_number(us))
}

fn step_number(us: u64) -> u16 {
    let number = if us < STEPS {
        us
    } else {
        let doubling = u64::from(us.ilog2() - STEPS_LOG2 + 1);
        STEPS + (doubling - 1) * (STEPS / 2) + ((us >> doubling) - STEPS / 2)
    };
    u16::try_from(number.min(STEPS_ALL as u64 - 1)).expect("about a thousand steps")
}

/// The largest value that falls on a step.
#[must_use]
pub fn top(step: usize) -> u64 {
    let step = step as u64;
    if step < STEPS {
        return step;
    }
    let doubling = (step - STEPS) / (STEPS / 2) + 1;
    let within = (step - STEPS) % (STEPS / 2) + STEPS / 2;
    ((within + 1) << doubling) - 1
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_value_falls_on_a_step_that_is_close_to_it() {
        let mut previous = 0;
        for us in (0..5_000).chain([10_000, 123_456, 1_000_000, 60_000_000, 3_600_000_000]) {
            let step = step(us);
            assert!(step >= previous, "{us} falls before a smaller one");
            previous = step;
            let top = top(step);
            assert!(top >= us, "{us} is above the top {top} of its step");
            assert!(top - us <= us / (STEPS / 2), "{us} is too far from {top}");
        }
        assert_eq!(step(u64::MAX), STEPS_ALL - 1);
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
        assert_eq!(histogram.sum_us(), 500_500_000);
        assert_eq!(Histogram::default().latency(), Latency::default());
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let stored = |counts: &[(u16, u64)]| {
            Histogram::try_from(Stored { counts: counts.to_vec(), ..Default::default() })
        };
        assert_eq!(stored(&[(1, 1), (1, 1)]), Err(HistogramError::Order(1)));
        assert_eq!(stored(&[(9999, 1)]), Err(HistogramError::NoSuchStep(9999)));
        assert_eq!(stored(&[(3, 2), (7, 1)]).map(|it| it.total()), Ok(3));
    }

    proptest! {
        #[test]
        fn merged_is_as_if_one_had_counted_all(
            left in prop::collection::vec(0_u64..100_000_000, 0..50),
            right in prop::collection::vec(0_u64..100_000_000, 0..50),
        ) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|us| histogram.record_us(*us));
                histogram
            };
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let all = of(&[left, right].concat());
            prop_assert_eq!(&merged, &all);
            prop_assert_eq!(Histogram::try_from(Stored::from(merged)), Ok(all));
        }

        #[test]
        fn what_was_added_since_is_what_was_counted_since(
            early in prop::collection::vec(0_u64..100_000_000, 0..50),
            late in prop::collection::vec(0_u64..100_000_000, 0..50),
        ) {
            let mut histogram = Histogram::default();
            early.iter().for_each(|us| histogram.record_us(*us));
            let before = histogram.clone();
            let mut alone = Histogram::default();
            for us in &late {
                histogram.record_us(*us);
                alone.record_us(*us);
            }
            let since = histogram.since(&before);
            prop_assert_eq!((since.total(), since.sum_us()), (alone.total(), alone.sum_us()));
            prop_assert_eq!(&since.counts, &alone.counts);
            prop_assert!(since.max_us >= alone.max_us && since.max_us <= alone.max_us + alone.max_us / 32);
        }

        #[test]
        fn a_quantile_is_near_the_value_of_its_rank(
            mut values in prop::collection::vec(1_u64..100_000_000, 1..80), quantile in 0.0_f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|us| histogram.record_us(*us));
            values.sort_unstable();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let rank = ((values.len() as f64 * quantile).ceil() as usize).max(1);
            let exact = milliseconds(values[rank - 1]);
            let told = histogram.quantile_ms(quantile);
            prop_assert!(told >= exact && told <= exact * (1.0 + 1.0 / 32.0), "{told} for {exact}");
        }
    }
}
