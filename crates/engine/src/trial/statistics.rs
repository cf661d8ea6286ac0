//! The formulas of a comparison: shares and quantiles with their intervals, and how likely a count is by chance.
//!
//! Requests count as independent of each other. Those of one client are not quite, so an interval is a little narrower than
//! it should be.

use baton_model::evidence::histogram::{Histogram, top};
use baton_model::rollout::Estimate;

/// The normal quantile of an interval with 95 % confidence.
const Z: f64 = 1.959_963_984_540_054;
/// Millionths of one.
const MILLION: f64 = 1e6;

/// A part of a whole in millionths, with Wilson's score interval (Wilson, 1927); `None` of nothing.
#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub(super) fn share(part: u64, whole: u64) -> Option<Estimate> {
    if whole == 0 {
        return None;
    }
    let (whole, share) = (whole as f64, part as f64 / whole as f64);
    let squared = Z * Z;
    let middle = share + squared / (2.0 * whole);
    let width = Z * (share * (1.0 - share) / whole + squared / (4.0 * whole * whole)).sqrt();
    let scale = 1.0 + squared / whole;
    Some(Estimate {
        low: millionths(((middle - width) / scale).max(0.0)),
        value: millionths(share),
        high: millionths(((middle + width) / scale).min(1.0)),
    })
}

/// How much larger `new` is than `old`, from their intervals: the square root of the summed squares of the distances to
/// their ends (Newcombe's hybrid score interval for shares, 1998; for other figures the method of variance estimates
/// recovery, Zou and Donner, 2008).
pub(super) fn difference(old: Estimate, new: Estimate) -> Estimate {
    let value = new.value - old.value;
    let apart = |one: i64, other: i64| float(one).hypot(float(other));
    Estimate {
        low: round(float(value) - apart(new.value - new.low, old.high - old.value)),
        value,
        high: round(float(value) + apart(new.high - new.value, old.value - old.low)),
    }
}

/// A quantile in microseconds, with the order statistics that hold the true one (David and Nagaraja, "Order Statistics",
/// 7.1, by the normal approximation of the binomial); `None` of nothing.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts stay far below 2^52, and ranks are not negative"
)]
pub(super) fn quantile(latencies: &Histogram, percent: u32) -> Option<Estimate> {
    let whole = latencies.total();
    if whole == 0 {
        return None;
    }
    let quantile = f64::from(percent) / 100.0;
    let (middle, width) = (whole as f64 * quantile, Z * (whole as f64 * quantile * (1.0 - quantile)).sqrt());
    let at = |rank: f64| {
        let rank = (rank.ceil().max(1.0) as u64).min(whole);
        i64::try_from(of_rank(latencies, rank)).unwrap_or(i64::MAX)
    };
    Some(Estimate { low: at(middle - width), value: at(middle), high: at(middle + width + 1.0) })
}

/// The latency of this rank, counted from 1, to the precision of its step.
fn of_rank(latencies: &Histogram, rank: u64) -> u64 {
    let mut seen = 0;
    for (step, count) in latencies.counts() {
        seen += count;
        if seen >= rank {
            return top(usize::from(*step)).min(latencies.max_us());
        }
    }
    latencies.max_us()
}

/// The chance of a value of the chi-squared distribution with one degree of freedom at least this large.
pub(super) fn chance_of_chi_squared(value: f64) -> f64 {
    erfc((value / 2.0).sqrt())
}

/// The complementary error function, of what is not negative, within 1.2e-7 of itself (Press and others, "Numerical
/// Recipes", 6.2: a Chebyshev fit).
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = FIT.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    t * (-x * x + sum).exp()
}

pub(super) fn millionths(share: f64) -> i64 {
    round(share * MILLION)
}

#[allow(clippy::cast_precision_loss, reason = "figures stay far below 2^52")]
const fn float(value: i64) -> f64 {
    value as f64
}

#[allow(clippy::cast_possible_truncation, reason = "figures stay far below 2^52")]
fn round(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(low: i64, value: i64, high: i64) -> Estimate {
        Estimate { low, value, high }
    }

    #[test]
    fn shares_have_wilsons_interval() {
        assert_eq!(share(0, 0), None);
        // Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3: to four places.
        let places = |part, whole| {
            let it = share(part, whole).expect("there is a whole");
            ((it.low + 50) / 100, (it.high + 50) / 100)
        };
        assert_eq!(places(81, 263), (2_553, 3_662));
        assert_eq!(places(15, 148), (624, 1_605));
        assert_eq!(places(0, 20), (0, 1_611));
        assert_eq!(places(1, 29), (61, 1_718));
        assert_eq!(share(1, 4).map(|it| it.value), Some(250_000));
    }

    #[test]
    fn differences_have_newcombes_interval() {
        // Newcombe, "Interval estimation for the difference between independent proportions", 1998, table II, method 10:
        // 56/70 and 48/80, 0.2000 (0.0524, 0.3339).
        let (old, new) = (share(48, 80).unwrap(), share(56, 70).unwrap());
        let found = difference(old, new);
        assert_eq!((found.low / 100, found.value / 100, found.high / 100), (524, 2_000, 3_338));
        assert!(found.is_above_zero());
        assert!(difference(new, old).is_below_zero());
    }

    #[test]
    fn quantiles_lie_between_their_order_statistics() {
        let mut latencies = Histogram::default();
        assert_eq!(quantile(&latencies, 50), None);
        (1..=60).for_each(|us| latencies.record_us(us));
        // The ranks of n = 60: 30 ± 1.96 √15.
        assert_eq!(quantile(&latencies, 50), Some(estimate(23, 30, 39)));
        assert_eq!(quantile(&latencies, 99), Some(estimate(58, 60, 60)), "never beyond the largest");
    }

    #[test]
    fn the_chance_is_that_of_the_tables() {
        for (value, chance) in [(0.0, 1.0), (3.841, 0.05), (6.635, 0.01), (10.828, 0.001), (23.928, 1e-6)] {
            let found = chance_of_chi_squared(value);
            assert!((found - chance).abs() <= chance * 0.01, "{value}: {found}, not {chance}");
        }
    }
}
