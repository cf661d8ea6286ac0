//! Writing the page. Values are read when it is asked for; nothing is registered beforehand.

pub mod documented;

use baton_model::evidence::histogram::Histogram;
use prometheus_client::encoding::{NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;

pub use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
pub use prometheus_client::metrics::counter::ConstCounter;
pub use prometheus_client::metrics::gauge::ConstGauge;

/// The type of the page for the `Content-Type` of its answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the page's buckets of latencies, in milliseconds: what people ask alerts for.
const BUCKETS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// The labels of one sample, by name.
pub type Labels<const N: usize> = [(&'static str, String); N];

/// The page that `metrics` writes, each name with `prefix` and an underscore before it.
#[must_use]
pub fn text(prefix: &str, metrics: impl Collector) -> String {
    let mut registry = Registry::with_prefix(prefix);
    registry.register_collector(Box::new(metrics));
    let mut page = String::new();
    // fmt::Write for String never fails.
    if encode(&mut page, &registry).is_err() {
        tracing::error!(prefix, "the page of metrics could not be written");
    }
    page
}

/// Writes one metric with all its samples; one without a sample is not on the page.
///
/// # Errors
/// What the page's own writer says.
pub fn write_all<M: EncodeMetric, const N: usize>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<N>, M)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    let Some((_, first)) = samples.peek() else { return Ok(()) };
    let mut metric = out.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, sample) in samples {
        sample.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes one metric that has one sample and no labels.
///
/// # Errors
/// As [`write_all`].
pub fn write_one(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    sample: impl EncodeMetric,
) -> fmt::Result {
    let kind = sample.metric_type();
    sample.encode(out.encode_descriptor(name, help, None, kind)?)
}

/// Writes `build_info`, which says what version this is.
///
/// # Errors
/// As [`write_all`].
pub fn write_build(out: &mut DescriptorEncoder<'_>, version: &str) -> fmt::Result {
    let version: Labels<1> = [("version", version.to_owned())];
    write_one(out, "build", "What runs here", Info::new(version))
}

/// A gauge of something that is counted.
#[must_use]
pub fn gauge(count: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A histogram of the model as the page has it, in seconds.
#[derive(Debug)]
pub struct Seconds<'a>(pub &'a Histogram);

impl EncodeMetric for Seconds<'_> {
    #[allow(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
    fn encode(&self, mut out: MetricEncoder<'_>) -> fmt::Result {
        let mut below = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(BUCKETS_MS.len() + 1);
        for end in BUCKETS_MS {
            let at_most = self.0.at_most(end * 1_000);
            buckets.push((end as f64 / 1_000.0, at_most - below));
            below = at_most;
        }
        buckets.push((f64::INFINITY, self.0.total() - below));
        out.encode_histogram::<NoLabelSet>(self.0.sum_us() as f64 / 1e6, self.0.total(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
