//! What gateways counted in the last hour, in bounded memory: by second for the last minutes, by ten seconds before that.
//! Never stored: a coordinator that starts begins with none, and missing evidence is told as missing.
//!
//! ```text
//! gateway ─ each second ─► slot of its second ── older than FINE_KEPT ──► slot of ten seconds ── older than an hour ──► gone
//! ```

use crate::clock::Clock;
use baton_model::evidence::{Evidence, ReleaseEvidence, ServiceEvidence};
use baton_model::id::{GatewayName, ReleaseNumber, ServiceName};
use baton_model::observed::EvidenceSeries;
use baton_model::time::{Millis, UnixMs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Length of a fine slot: gateways report this often.
const FINE: Millis = Millis::secs(1);
/// Length of a coarse slot.
const COARSE: Millis = Millis::secs(10);
/// For how long fine slots are kept.
const FINE_KEPT: Millis = Millis::secs(5 * 60);
/// For how long evidence is kept.
const KEPT: Millis = Millis::secs(60 * 60);
/// Services and releases of a slot that are kept, all together; what comes beyond is dropped and told once. With
/// histograms of a few hundred bytes it bounds the whole to some hundred MB, of which a fleet of usual size uses few.
const SERIES_MAX: usize = 2000;
/// A report is over a span, and counts in the slot in which it comes; one that spans more than this is of a gateway that
/// was cut off, and says nothing of the present: it counts in no slot.
const SPAN_MAX: Millis = Millis::secs(15);

/// Evidence by service over a span of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// The gateways that reported in it.
    pub(crate) gateways: usize,
    /// How long it is in fact; less than was asked for where there is no more.
    pub(crate) span: Millis,
    /// What they counted.
    pub(crate) services: BTreeMap<ServiceName, ServiceEvidence>,
}

/// The evidence of the last hour.
pub(crate) struct EvidenceLog {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fine: BTreeMap<UnixMs, Slot>,
    coarse: BTreeMap<UnixMs, Slot>,
    /// That more series than are kept were reported.
    full_told: bool,
    /// The spans of the services that the decider watches.
    watched: BTreeMap<ServiceName, Watched>,
}

/// A service that is watched: its spans are built once and shared.
#[derive(Default)]
struct Watched {
    /// Slots before this are in the series.
    through: UnixMs,
    series: EvidenceSeries,
}

/// By gateway, so that what is in flight adds up over gateways but not over time.
type Slot = BTreeMap<GatewayName, BTreeMap<ServiceName, ServiceEvidence>>;

impl EvidenceLog {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a report of a gateway, as of now.
    pub(crate) fn take(&self, gateway: &GatewayName, evidence: Evidence) {
        self.lock().take(gateway, evidence, self.clock.now());
    }

    /// The spans of these services, which are whole seconds of all gateways together; a second in which nobody reported has
    /// none. Other services are no longer watched.
    pub(crate) fn watch(&self, services: &BTreeSet<ServiceName>) -> BTreeMap<ServiceName, EvidenceSeries> {
        self.lock().watch(services, self.clock.now())
    }

    /// What was counted of one service in the last `span`, and how long that is in fact.
    pub(crate) fn of(
        &self,
        service: &ServiceName,
        span: Millis,
    ) -> (Millis, BTreeMap<ReleaseNumber, ReleaseEvidence>) {
        self.lock().of(service, span, self.clock.now())
    }

    /// What was counted in the last `span`, all gateways together.
    pub(crate) fn last(&self, span: Millis) -> Counted {
        self.lock().last(span, self.clock.now())
    }
}

impl State {
    fn take(&mut self, gateway: &GatewayName, evidence: Evidence, now: UnixMs) {
        self.age(now);
        if evidence.span > SPAN_MAX {
            tracing::debug!(%gateway, span = %evidence.span, "a report of a long span is left out");
            return;
        }
        let slot = self.fine.entry(slot_of(now, FINE)).or_default();
        let held: usize = slot.values().flat_map(BTreeMap::values).map(series).sum();
        let offered: usize = evidence.services.values().map(series).sum();
        if held + offered > SERIES_MAX {
            if !std::mem::replace(&mut self.full_told, true) {
                tracing::warn!(
                    series = SERIES_MAX,
                    "more services and releases report evidence than is kept; the rest is left out"
                );
            }
            return;
        }
        follow(slot.entry(gateway.clone()).or_default(), evidence.services);
    }

    /// Moves what is old into coarse slots, and drops what is older than an hour.
    fn age(&mut self, now: UnixMs) {
        let fine_from = before(now, FINE_KEPT);
        while let Some(entry) = self.fine.first_entry().filter(|entry| *entry.key() < fine_from) {
            let (at, slot) = entry.remove_entry();
            let coarse = self.coarse.entry(slot_of(at, COARSE)).or_default();
            for (gateway, services) in slot {
                follow(coarse.entry(gateway).or_default(), services);
            }
        }
        let from = before(now, KEPT);
        while let Some(entry) = self.coarse.first_entry().filter(|entry| *entry.key() < from) {
            entry.remove();
        }
    }

    fn watch(
        &mut self,
        services: &BTreeSet<ServiceName>,
        now: UnixMs,
    ) -> BTreeMap<ServiceName, EvidenceSeries> {
        self.age(now);
        // Reports count in the present slot: those before it change no more.
        let until = slot_of(now, FINE);
        self.watched.retain(|name, _| services.contains(name));
        for name in services {
            let watched = self.watched.entry(name.clone()).or_default();
            let since = std::mem::replace(&mut watched.through, until);
            let coarse = self.coarse.range(since..until).map(|(at, slot)| (*at, COARSE, slot));
            let fine = self.fine.range(since..until).map(|(at, slot)| (*at, FINE, slot));
            for (at, length, slot) in coarse.chain(fine) {
                // Whoever reports may leave out a service of which it counted nothing: then there was nothing.
                if !slot.is_empty() {
                    watched.series.push(at, at.plus(length), releases(slot, name).unwrap_or_default());
                }
            }
            watched.series.forget_before(before(now, KEPT));
        }
        self.watched.iter().map(|(name, watched)| (name.clone(), watched.series.clone())).collect()
    }

    fn of(
        &mut self,
        service: &ServiceName,
        span: Millis,
        now: UnixMs,
    ) -> (Millis, BTreeMap<ReleaseNumber, ReleaseEvidence>) {
        self.age(now);
        let until = slot_of(now, FINE);
        let mut earliest = until;
        let mut sum: BTreeMap<ReleaseNumber, ReleaseEvidence> = BTreeMap::new();
        for (at, slot) in self.fine.range(before(until, span)..until) {
            earliest = earliest.min(*at);
            for (release, evidence) in releases(slot, service).into_iter().flatten() {
                sum.entry(release).or_default().follow(&evidence);
            }
        }
        (until.since(earliest), sum)
    }

    fn last(&mut self, span: Millis, now: UnixMs) -> Counted {
        self.age(now);
        // The present slot is not full yet.
        let until = slot_of(now, FINE);
        let from = before(until, span);
        let mut by_gateway = Slot::new();
        let mut earliest = until;
        // Coarse slots are the older ones: in this order what is later follows.
        for (at, slot) in self.coarse.range(from..until).chain(self.fine.range(from..until)) {
            earliest = earliest.min(*at);
            for (gateway, services) in slot {
                follow(by_gateway.entry(gateway.clone()).or_default(), services.clone());
            }
        }
        let mut counted =
            Counted { gateways: by_gateway.len(), span: until.since(earliest), services: BTreeMap::new() };
        for (name, evidence) in by_gateway.into_values().flatten() {
            counted.services.entry(name).or_default().merge(&evidence);
        }
        counted
    }
}

/// What all gateways counted of a service in a slot; `None` where none reported it.
fn releases(slot: &Slot, service: &ServiceName) -> Option<BTreeMap<ReleaseNumber, ReleaseEvidence>> {
    let mut reports = slot.values().filter_map(|services| services.get(service)).peekable();
    reports.peek()?;
    let mut all: BTreeMap<ReleaseNumber, ReleaseEvidence> = BTreeMap::new();
    for (release, evidence) in reports.flat_map(|report| &report.releases) {
        all.entry(*release).or_default().merge(evidence);
    }
    Some(all)
}

fn series(evidence: &ServiceEvidence) -> usize {
    1 + evidence.releases.len()
}

/// Adds what the same gateway counted later.
fn follow(
    earlier: &mut BTreeMap<ServiceName, ServiceEvidence>,
    later: BTreeMap<ServiceName, ServiceEvidence>,
) {
    for (name, evidence) in later {
        match earlier.entry(name) {
            std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().follow(&evidence),
            std::collections::btree_map::Entry::Vacant(empty) => drop(empty.insert(evidence)),
        }
    }
}

fn before(at: UnixMs, length: Millis) -> UnixMs {
    UnixMs(at.0.saturating_sub(length.0))
}

fn slot_of(at: UnixMs, length: Millis) -> UnixMs {
    UnixMs(at.0 - at.0 % length.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::evidence::StatusCounts;

    fn report(requests: u64, in_flight: u64, span: Millis) -> Evidence {
        let release = ReleaseEvidence {
            status: StatusCounts { successful: requests, ..StatusCounts::default() },
            in_flight,
            ..ReleaseEvidence::default()
        };
        let service = ServiceEvidence {
            requests,
            releases: BTreeMap::from([(ReleaseNumber(1), release)]),
            ..ServiceEvidence::default()
        };
        Evidence { span, services: BTreeMap::from([(web(), service)]), ..Evidence::default() }
    }

    fn web() -> ServiceName {
        "web".parse().unwrap()
    }

    fn edge(number: u64) -> GatewayName {
        format!("edge-{number}").parse().unwrap()
    }

    fn at(second: u64) -> UnixMs {
        UnixMs(1_700_000_000_000 + second * 1000 + 500)
    }

    #[test]
    fn counts_add_up_over_time_and_gateways_and_what_is_in_flight_over_gateways_only() {
        let mut log = State::default();
        for second in 0..10 {
            log.take(&edge(1), report(10, 3, FINE), at(second));
            log.take(&edge(2), report(1, 4, FINE), at(second));
        }
        let counted = log.last(Millis::secs(5), at(10));
        let service = &counted.services[&web()];
        assert_eq!((counted.gateways, counted.span), (2, Millis::secs(5)));
        assert_eq!(service.requests, 55);
        assert_eq!(service.releases[&ReleaseNumber(1)].in_flight, 7);
    }

    #[test]
    fn an_hour_is_kept_in_few_slots_and_no_more_than_that() {
        let mut log = State::default();
        for second in 0..2 * 3600 {
            log.take(&edge(1), report(1, 0, FINE), at(second));
        }
        let now = at(2 * 3600);
        let hour = log.last(KEPT, now);
        // The oldest coarse slot is whole or not there, and the span says which.
        assert!(hour.span <= KEPT && hour.span.0 + COARSE.0 >= KEPT.0, "{}", hour.span);
        assert_eq!(hour.services[&web()].requests, hour.span.0 / 1000);
        assert!(log.fine.len() <= 301 && log.coarse.len() <= 361, "{} {}", log.fine.len(), log.coarse.len());
        assert!(log.last(KEPT, at(4 * 3600)).services.is_empty(), "it ages without reports too");
    }

    #[test]
    fn what_is_missing_is_not_made_up() {
        let mut log = State::default();
        log.take(&edge(1), report(1, 0, FINE), at(58));
        let counted = log.last(Millis::secs(60), at(60));
        assert_eq!(counted.span, Millis::secs(2), "nothing is known of before");
        assert_eq!(log.last(Millis::secs(60), at(1000)).span, Millis::ZERO);
        log.take(&edge(1), report(100, 0, Millis::secs(3000)), at(1001));
        assert!(
            log.last(Millis::secs(60), at(1003)).services.is_empty(),
            "the report of one that was cut off"
        );
    }

    #[test]
    fn a_watched_service_has_a_span_for_each_second_that_was_reported() {
        let mut log = State::default();
        let watched = BTreeSet::from([web()]);
        let count = |log: &mut State, now| {
            let series = log.watch(&watched, now).remove(&web()).unwrap_or_default();
            (series.len(), series.since(ReleaseNumber(1), UnixMs(0)).status.successful)
        };
        for second in [0, 1, 3] {
            log.take(&edge(1), report(10, 3, FINE), at(second));
            log.take(&edge(2), report(1, 4, FINE), at(second));
        }
        assert_eq!(count(&mut log, at(3)), (2, 22), "the present second is not over");
        assert_eq!(count(&mut log, at(4)), (3, 33), "nobody reported in second 2");
        assert_eq!(count(&mut log, at(4)), (3, 33), "each of them once");
        log.take(&edge(1), Evidence { span: FINE, ..Evidence::default() }, at(4));
        assert_eq!(count(&mut log, at(5)), (4, 33), "a second without a request was reported too");
        assert_eq!(count(&mut log, at(5000)), (0, 0), "an hour is kept");
        let mut aged = State::default();
        for second in 0..600 {
            aged.take(&edge(1), report(1, 0, FINE), at(second));
        }
        assert_eq!(count(&mut aged, at(600)).1, 600, "watched from later on, the past is there too");
    }

    #[test]
    fn memory_is_bounded() {
        let mut log = State::default();
        for gateway in 0..3 * SERIES_MAX as u64 {
            log.take(&edge(gateway), report(1, 0, FINE), at(1));
        }
        let held: usize = log.fine.values().map(BTreeMap::len).sum();
        assert_eq!(held, SERIES_MAX / 2);
    }
}
