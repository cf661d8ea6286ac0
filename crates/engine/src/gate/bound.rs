//! Whether what was measured is within the bound of its metric.

use baton_model::rollout::{Measured, Metric};

/// Whether it is.
pub(super) fn holds(metric: &Metric, measured: Measured) -> bool {
    match (metric, measured) {
        (Metric::ErrorShare { at_most } | Metric::Differing { at_most }, Measured::Share(share)) => {
            share <= *at_most
        }
        (Metric::Latency { at_most, .. }, Measured::Micros(micros)) => {
            micros <= at_most.0.saturating_mul(1000)
        }
        (Metric::RequestRate { at_least }, Measured::MilliRate(rate)) => rate >= u64::from(*at_least) * 1000,
        (Metric::Restarts { at_most }, Measured::Count(restarts)) => restarts <= u64::from(*at_most),
        (Metric::Cpu { at_most_percent }, Measured::MilliCores(milli)) => {
            milli <= u64::from(*at_most_percent) * 10
        }
        (Metric::Memory { at_most }, Measured::Bytes(bytes)) => bytes <= *at_most,
        // A measure of another metric is none of this one.
        (
            Metric::ErrorShare { .. }
            | Metric::Differing { .. }
            | Metric::Latency { .. }
            | Metric::RequestRate { .. }
            | Metric::Cpu { .. }
            | Metric::Memory { .. }
            | Metric::Restarts { .. },
            Measured::Share(_)
            | Measured::Micros(_)
            | Measured::MilliRate(_)
            | Measured::MilliCores(_)
            | Measured::Bytes(_)
            | Measured::Count(_),
        ) => false,
    }
}
