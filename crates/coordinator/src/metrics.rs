//! The coordinator's page for scrapers. Names and labels are stable: docs/metrics.md lists them, and a test holds the
//! list. What is labelled is what operators have named: services and gateways; nodes are counted only.

use crate::counts::{ENDS, SEVERITIES};
use crate::state::Coordinator;
use baton_metrics::page::{
    self, Collector, ConstCounter, ConstGauge, DescriptorEncoder, Labels, Seconds, gauge, write_all,
    write_build, write_one,
};
use baton_model::report::{Health, ServiceReport};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HEALTHS: [(Health, &str); 5] = [
    (Health::Unknown, "unknown"),
    (Health::Healthy, "healthy"),
    (Health::Changing, "changing"),
    (Health::Degraded, "degraded"),
    (Health::Down, "down"),
];

/// The page.
pub(crate) fn text(coordinator: &Arc<Coordinator>) -> String {
    page::text("baton_coordinator", Page(Arc::clone(coordinator)))
}

struct Page(Arc<Coordinator>);

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page")
    }
}

type ServiceGauge = (&'static str, &'static str, fn(&ServiceReport) -> u64);
const OF_SERVICES: [ServiceGauge; 5] = [
    ("instances_wanted", "Instances that the service is to have", |it| it.wanted.into()),
    ("instances_ready", "Instances that are ready", |it| it.ready.into()),
    ("instances_floor", "Instances that stay ready whatever Baton does", |it| it.floor.into()),
    ("rollout_running", "1 while a rollout is under way or paused", |it| {
        it.rollout.as_ref().is_some_and(|rollout| rollout.ended_at.is_none()).into()
    }),
    ("waiting", "Reasons for which something of the service waits", |it| it.waiting.len() as u64),
];

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        write_build(&mut out, env!("CARGO_PKG_VERSION"))?;
        self.write_counts(&mut out)?;
        self.write_members(&mut out)?;
        self.write_services(&mut out)
    }
}

impl Page {
    fn write_counts(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = &self.0.counts;
        let read = |count: &AtomicU64| ConstCounter::new(count.load(Ordering::Relaxed));
        let events = SEVERITIES.iter().zip(&counts.events);
        let events = events.map(|((_, word), count)| ([("severity", (*word).to_owned())], read(count)));
        write_all(out, "events", "Events that went into the journal, but those of agents", events)?;
        write_one(out, "rollouts_started", "Rollouts that began", read(&counts.started))?;
        let ended = ENDS.iter().zip(&counts.ended);
        let ended = ended.map(|((_, word), count)| ([("outcome", (*word).to_owned())], read(count)));
        write_all(out, "rollouts_ended", "Rollouts that ended", ended)?;
        let help = "Decisions that were made again, since somebody else wrote in between";
        write_one(out, "store_conflicts", help, read(&counts.conflicts))?;
        write_one(out, "store_failures", "Times that the store did not work", read(&counts.failures))?;
        let decisions = counts.decisions();
        write_one(out, "decision_seconds", "How long it took to decide", Seconds(&decisions))?;
        let help = "From a route table's publication to a gateway's acknowledgement that it serves by it";
        write_one(out, "table_acknowledged_seconds", help, Seconds(&self.0.gateways.acknowledged()))
    }

    fn write_members(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = Arc::clone(&self.0.view.borrow());
        let desired = &view.snapshot.desired;
        let (mut connected, mut silent, mut away) = (0, 0, 0);
        {
            let looks = self.0.sessions.look();
            for node in desired.nodes.keys() {
                match looks.get(node) {
                    Some(look) if look.silent => silent += 1,
                    Some(look) if look.connected => connected += 1,
                    Some(_) | None => away += 1,
                }
            }
        }
        let nodes = [("connected", connected), ("away", away), ("silent", silent)];
        let nodes = nodes.map(|(state, count)| ([("state", state.to_owned())], gauge(count)));
        write_all(out, "nodes", "Nodes that have joined", nodes)?;
        write_one(
            out,
            "table_revision",
            "Revision of the route table that gateways are to serve by",
            gauge(self.0.gateways.table().revision.0),
        )?;
        let looks = || {
            desired.gateways.iter().map(|name| {
                let label: Labels<1> = [("gateway", name.to_string())];
                (label, self.0.gateways.look(name))
            })
        };
        let connected =
            looks().map(|(label, look)| (label, gauge(look.is_some_and(|look| look.connected).into())));
        write_all(out, "gateway_connected", "1 while a gateway has a session", connected)?;
        let tables = looks().map(|(label, look)| (label, gauge(look.map_or(0, |look| look.said.table.0))));
        write_all(
            out,
            "gateway_table_revision",
            "Revision of the route table that a gateway has on disk",
            tables,
        )
    }

    fn write_services(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = Arc::clone(&self.0.view.borrow());
        let services = &view.report.services;
        for (name, help, value) in OF_SERVICES {
            let samples = services.iter().map(|(service, it)| {
                let label: Labels<1> = [("service", service.to_string())];
                (label, gauge(value(it)))
            });
            write_all(out, name, help, samples)?;
        }
        let healths = services.iter().flat_map(|(service, it)| {
            HEALTHS.map(|(health, word)| {
                let labels: Labels<2> = [("service", service.to_string()), ("health", word.to_owned())];
                (labels, ConstGauge::new(i64::from(it.health == health)))
            })
        });
        write_all(out, "service_health", "1 for the health that a service has", healths)
    }
}
