//! A gateway's page for scrapers. Names and labels are stable: docs/metrics.md lists them, and a test holds the list.

use super::total::total;
use crate::table::Table;
use baton_metrics::page::{
    Collector, ConstCounter, ConstGauge, DescriptorEncoder, Labels, Seconds, gauge, write_all, write_build,
    write_one,
};
use baton_model::evidence::{ReleaseEvidence, ServiceEvidence};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// The page.
#[must_use]
pub fn text(table: &Arc<Table>, now: Instant) -> String {
    baton_metrics::page::text("baton_gateway", Page { table: Arc::clone(table), now })
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
const OF_RELEASES: [ReleaseCount; 11] = [
    ("failures", "Tries without an answer", |it| it.failures),
    ("broken", "Answers that broke off after their head", |it| it.broken),
    ("diverted", "Requests that another release took, since all instances of this one are left out", |it| {
        it.diverted
    }),
    ("cancelled", "Tries that were not waited for", |it| it.cancelled),
    ("retries", "Tries after one that failed", |it| it.retries),
    ("hedges", "Tries beside one that was slow", |it| it.hedges),
    ("exposures", "Clients that were given the release for the first time", |it| it.exposures),
    ("mirrored", "Copies that were sent", |it| it.mirrored),
    ("unmirrored", "Copies that were not sent", |it| it.unmirrored),
    ("compared", "Copies that were compared with what the client got", |it| it.compared),
    ("differing", "Copies whose answer was another than the client's", |it| it.differing),
];

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let services: Vec<(String, ServiceEvidence)> = self
            .table
            .routes()
            .iter()
            .map(|(name, route)| {
                let service = route.service();
                (name.to_string(), total(service, &service.releases(), &self.table, self.now))
            })
            .collect();
        write_build(&mut out, env!("CARGO_PKG_VERSION"))?;
        let revision = gauge(self.table.revision().0);
        write_one(&mut out, "table_revision", "Revision of the route table in force", revision)?;
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
    let waiting = services.iter().map(|(name, it)| (label(name), gauge(it.waiting)));
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
    let in_flight = releases().map(|(labels, it)| (labels, gauge(it.in_flight)));
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
    let latencies = releases().map(|(labels, it)| (labels, Seconds(&it.latency)));
    write_all(out, "latency_seconds", "From a request's end to the head of its answer", latencies)
}
