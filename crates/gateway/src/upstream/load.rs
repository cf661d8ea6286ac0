//! How long an upstream takes to answer, as an average that forgets: "peak EWMA", as Finagle and Linkerd balance by it.
//! It rises at once with a slow answer and falls slowly, so that a slow instance is known after one answer.

use crate::clock::{Tick, micros};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// After this long a third of what was known is left (1/e).
const MEMORY: Duration = Duration::from_secs(10);

/// The average and when it was last brought up to date. Threads that write at the same time may lose one of the
/// samples: the average is a hint, and a loop of compare-and-set on every answer would cost more than it is worth.
#[derive(Debug, Default)]
pub(crate) struct Load {
    average_us: AtomicU64,
    at: AtomicU64,
}

impl Load {
    /// An answer took this long.
    pub(crate) fn sample(&self, latency: Duration, now: Tick) {
        let sample = float(micros(latency)).max(1.0);
        let (average, weight) = self.faded(now);
        let next = if sample >= average { sample } else { average.mul_add(weight, sample * (1.0 - weight)) };
        self.average_us.store(next.to_bits(), Relaxed);
        self.at.store(now, Relaxed);
    }

    /// It took at least this long, and was no answer: can only raise the average. An instance that fails fast must not
    /// look like a fast one.
    pub(crate) fn at_least(&self, latency: Duration, now: Tick) {
        if self.average(now).is_none_or(|average| float(micros(latency)) > average) {
            self.sample(latency, now);
        }
    }

    /// The expected time of an answer, in microseconds; one that was not asked for long is forgiven. `None` before the
    /// first answer.
    pub(crate) fn average(&self, now: Tick) -> Option<f64> {
        if self.at.load(Relaxed) == 0 {
            return None;
        }
        let (average, weight) = self.faded(now);
        Some(average * weight)
    }

    /// What was known is worth nothing: it was of another time.
    pub(crate) fn forget(&self) {
        self.at.store(0, Relaxed);
    }

    /// The stored average and how much of it is still worth: 1 now, 1/e after [`MEMORY`].
    fn faded(&self, now: Tick) -> (f64, f64) {
        let age = float(now.saturating_sub(self.at.load(Relaxed)));
        let memory = float(micros(MEMORY));
        (f64::from_bits(self.average_us.load(Relaxed)), (-age / memory).exp())
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(us: u64) -> f64 {
    us as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Tick = 1_000_000;
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let load = Load::default();
        assert_eq!(load.average(100 * SECOND), None);
        load.sample(10 * MS, 100 * SECOND);
        load.sample(500 * MS, 100 * SECOND);
        assert_eq!(load.average(100 * SECOND), Some(500_000.0));
        load.sample(10 * MS, 101 * SECOND);
        let after = load.average(101 * SECOND).expect("known");
        assert!(after > 400_000.0 && after < 500_000.0, "{after}");
        for second in 102..200 {
            load.sample(10 * MS, second * SECOND);
        }
        assert!(load.average(200 * SECOND).expect("known") < 20_000.0);
    }

    #[test]
    fn failing_fast_is_not_being_fast_and_old_trouble_is_forgiven() {
        let load = Load::default();
        load.sample(10 * MS, 100 * SECOND);
        load.at_least(MS, 100 * SECOND);
        assert_eq!(load.average(100 * SECOND), Some(10_000.0));
        load.at_least(1_000 * MS, 100 * SECOND);
        assert_eq!(load.average(100 * SECOND), Some(1_000_000.0));
        // One that hung for a second is as cheap as one that answers in 3 ms within a minute.
        assert!(load.average(160 * SECOND).expect("known") < 3_000.0, "nobody would ever ask it again");
        load.forget();
        assert_eq!(load.average(160 * SECOND), None);
    }
}
