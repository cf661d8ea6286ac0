//! What was counted since the last report: sent to the coordinator each second.

use super::counters::ReleaseCounters;
use super::total::total;
use crate::table::Table;
use crate::upstream::ServiceState;
use baton_model::evidence::{Evidence, ServiceEvidence};
use baton_model::id::{ReleaseNumber, ServiceName};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Makes reports. Each count is in exactly one of them, also those of a service that has left the table. What is counted of a
/// comparison is in each of them whole, for as long as the table compares.
#[derive(Debug)]
pub struct Reporter {
    told: Vec<Told>,
    at: Instant,
}

/// What was told of a service. One that was removed and is back is another one of the same name.
#[derive(Debug)]
struct Told {
    service: Arc<ServiceState>,
    releases: BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>,
    total: ServiceEvidence,
}

impl Reporter {
    /// The first report counts from the gateway's start.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { told: Vec::new(), at: now }
    }

    /// What was counted since the last report, and what is in flight now.
    ///
    /// A report that was lost on its way is lost: evidence is a measurement, and late samples would be worse than few.
    pub fn next(&mut self, table: &Table, now: Instant) -> Evidence {
        let mut services: BTreeMap<ServiceName, ServiceEvidence> = BTreeMap::new();
        let mut trials = BTreeMap::new();
        let mut before = std::mem::take(&mut self.told);
        for (name, route) in table.routes() {
            let service = route.service();
            let next = Told::of(service, table, now);
            let earlier = before.iter().position(|it| Arc::ptr_eq(&it.service, service));
            let counted = next.since(earlier.map(|at| before.swap_remove(at)).as_ref());
            service.forget_releases(|release| route.names(release) || next.in_flight(release));
            services.insert(name.clone(), counted);
            trials.extend(route.trial().map(|trial| (name.clone(), trial.total())));
            self.told.push(next);
        }
        // Those that have left the table are told of for as long as something of theirs is in flight.
        for gone in before {
            let next = Told::of(&gone.service, table, now);
            services.entry(gone.service.name.clone()).or_default().merge(&next.since(Some(&gone)));
            if next.total.releases.keys().any(|release| next.in_flight(*release)) {
                self.told.push(next);
            }
        }
        let span = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at = now;
        Evidence { span: Millis(span), services, trials }
    }
}

impl Told {
    fn of(service: &Arc<ServiceState>, table: &Table, now: Instant) -> Self {
        let releases = service.releases();
        Self { total: total(service, &releases, table, now), releases, service: Arc::clone(service) }
    }

    fn in_flight(&self, release: ReleaseNumber) -> bool {
        self.total.releases.get(&release).is_some_and(|it| it.in_flight > 0)
    }

    /// What was counted since `before`, by the same counters.
    fn since(&self, before: Option<&Self>) -> ServiceEvidence {
        let Some(before) = before else { return self.total.clone() };
        let mut earlier = before.total.clone();
        let same = |release: &ReleaseNumber| match (self.releases.get(release), before.releases.get(release))
        {
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            (None, _) | (_, None) => false,
        };
        earlier.releases.retain(|release, _| same(release));
        self.total.since(&earlier)
    }
}
