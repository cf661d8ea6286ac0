//! The page for scrapers, in the text form of OpenMetrics. Names and labels are stable: docs/metrics.md lists them, and
//! a test holds the list.

use super::total;
use crate::table::Table;
use baton_model::evidence::histogram::Histogram;
use baton_model::evidence::{ReleaseEvidence, ServiceEvidence};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// The type of the page for the `Content-Type` of its answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of the page's buckets of latencies, in milliseconds: what people ask alerts for. The reports to the
/// coordinator have finer ones.
const BUCKETS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// The page.
#[must_use]
pub fn text(table: &Arc<Table>, now: Instant) -> String {
    let mut registry = Registry::with_prefix("baton_gateway");
    registry.register_collector(Box::new(Page { table: Arc::clone(table), now }));
    let mut page = String::new();
    encode(&mut page, &registry).expect("writing into a string cannot fail");
    page
}

#[derive(Debug)]
struct Page {
    table: Arc<Table>,
    now: Instant,
}

type ServiceCount = (&'static str, &'static str, fn(&ServiceEvidence) -> u64);
const OF_SERVICES: [ServiceCount; 6] = [
    ("requests", "Requests and connections that came in", |it| it.requests),
    ("unanswered", "Requests that the gateway answered with 502, 503 or 504 itself", |it| it.unanswered),
    ("refused", "Requests that the gateway refused for what they are", |it| it.refused),
    ("fallbacks", "Requests that went to another release than decided, since that one had nobody", |it| {
        it.fallbacks
    }),
    ("queued", "Requests that had to wait for an instance", |it| it.queued),
    ("retries_over_budget", "Retries that were not made, since the budget was spent", |it| it.over_budget),
];

type ReleaseCount = (&'static str, &'static str, fn(&ReleaseEvidence) -> u64);
const OF_RELEASES: [ReleaseCount; 9] = [
    ("failures", "Tries without an answer", |it| it.failures),
    ("broken", "Answers that broke off after their head", |it| it.broken),
    ("cancelled", "Tries that were not waited for", |it| it.cancelled),
    ("retries", "Tries after one that failed", |it| it.retries),
    ("hedges", "Tries beside one that was slow", |it| it.hedges),
    ("exposures", "Clients that were given the release for the first time", |it| it.exposures),
    ("mirrored", "Copies that were sent", |it| it.mirrored),
    ("unmirrored", "Copies that were not sent", |it| it.unmirrored),
    ("differing", "Copies whose answer was another than the client's", |it| it.differing),
];

/// A sample: its labels and its value.
type Labels<const N: usize> = [(&'static str, String); N];

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let services: Vec<(String, ServiceEvidence)> = self
            .table
            .routes()
            .iter()
            .map(|(name, route)| {
                let service = route.service();
                (name.to_string(), total(service, &service.releases(), &self.table))
            })
            .collect();
        let revision = ConstGauge::new(signed(self.table.revision().0));
        let help = "Revision of the route table in force";
        revision.encode(out.encode_descriptor("table_revision", help, None, revision.metric_type())?)?;
        write_services(&mut out, &services)?;
        write_releases(&mut out, &services)?;
        self.write_upstreams(&mut out)
    }
}

impl Page {
    fn write_upstreams(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let named =
            self.table.upstreams().map(|upstream| (upstream, if upstream.is_well(self.now) { 1 } else { 0 }));
        let samples = named.map(|(upstream, well)| {
            let labels: Labels<3> = [
                ("service", upstream.service().name.to_string()),
                ("release", upstream.release().to_string()),
                ("instance", upstream.id().instance.to_string()),
            ];
            (labels, ConstGauge::new(well))
        });
        write_all(out, "upstream_well", "Whether an instance passes its check and is not ejected", samples)
    }
}

fn write_services(out: &mut DescriptorEncoder<'_>, services: &[(String, ServiceEvidence)]) -> fmt::Result {
    let label = |name: &String| [("service", name.clone())];
    for (metric, help, value) in OF_SERVICES {
        let samples = services.iter().map(|(name, it)| (label(name), ConstCounter::new(value(it))));
        write_all(out, metric, help, samples)?;
    }
    let waiting = services.iter().map(|(name, it)| (label(name), ConstGauge::new(signed(it.waiting))));
    write_all(out, "waiting", "Requests that wait for an instance now", waiting)
}

fn write_releases(out: &mut DescriptorEncoder<'_>, services: &[(String, ServiceEvidence)]) -> fmt::Result {
    let releases = || {
        services.iter().flat_map(|(name, service)| {
            service.releases.iter().map(move |(release, it)| {
                let labels: Labels<2> = [("service", name.clone()), ("release", release.to_string())];
                (labels, it)
            })
        })
    };
    for (metric, help, value) in OF_RELEASES {
        write_all(out, metric, help, releases().map(|(labels, it)| (labels, ConstCounter::new(value(it)))))?;
    }
    let in_flight = releases().map(|(labels, it)| (labels, ConstGauge::new(signed(it.in_flight))));
    write_all(out, "in_flight", "Requests and connections in flight now", in_flight)?;
    let answers = releases().flat_map(|(labels, it)| {
        let classes = [
            ("1xx", it.status.informational),
            ("2xx", it.status.successful),
            ("3xx", it.status.redirected),
            ("4xx", it.status.client_error),
            ("5xx", it.status.server_error),
        ];
        classes.map(|(class, count)| {
            let [service, release] = labels.clone();
            ([service, release, ("class", class.to_owned())], ConstCounter::new(count))
        })
    });
    write_all(out, "answers", "Answers by the first digit of their status", answers)?;
    let latencies = releases().map(|(labels, it)| (labels, Latencies(&it.latency)));
    write_all(out, "latency_seconds", "From a request's end to the head of its answer", latencies)
}

/// Writes one metric with all its samples.
fn write_all<M: EncodeMetric, const N: usize>(
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

/// A histogram of the model as the page has it.
struct Latencies<'a>(&'a Histogram);

impl EncodeMetric for Latencies<'_> {
    #[allow(clippy::cast_precision_loss, reason = "microseconds, far below 2^52")]
    fn encode(&self, mut out: prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result {
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

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
