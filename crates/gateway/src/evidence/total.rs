//! What was counted of a service, put together.

use super::counters::ReleaseCounters;
use crate::table::Table;
use crate::upstream::ServiceState;
use baton_model::evidence::ServiceEvidence;
use baton_model::id::ReleaseNumber;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// All that was counted of a service since it came into the table, and what is in flight and left out now.
pub(super) fn total(
    service: &Arc<ServiceState>,
    releases: &BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>,
    table: &Table,
    now: Instant,
) -> ServiceEvidence {
    // Before the counters: a request that is seen as ended has been counted.
    let mut in_flight: BTreeMap<ReleaseNumber, u64> = BTreeMap::new();
    for upstream in table.upstreams().chain(table.leaving()) {
        if Arc::ptr_eq(upstream.service(), service) {
            *in_flight.entry(upstream.release()).or_default() += upstream.in_flight();
        }
    }
    let mut left_out: BTreeMap<ReleaseNumber, u64> = BTreeMap::new();
    for upstream in table.upstreams().filter(|it| Arc::ptr_eq(it.service(), service) && !it.is_well(now)) {
        *left_out.entry(upstream.release()).or_default() += 1;
    }
    let mut total = service.counters.total();
    total.waiting = u64::from(service.waiting());
    for (release, counters) in releases {
        let mut of_release = counters.total();
        of_release.in_flight = in_flight.get(release).copied().unwrap_or(0);
        of_release.left_out = left_out.get(release).copied().unwrap_or(0);
        total.releases.insert(*release, of_release);
    }
    total
}
