//! What each release answered in the last two seconds, as the load counted it: what gateways report is of the last ten,
//! and would still show a release that is gone.

use super::super::load::{Meter, Side, SideTally};
use super::super::site::Site;
use baton_model::evidence::histogram::Histogram;
use baton_model::status::ReleaseTraffic;
use baton_model::time::Millis;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The counts are of this long.
const SPAN: Duration = Duration::from_secs(2);
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Counts at some moments of the last two seconds, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    looks: VecDeque<(Instant, BTreeMap<Side, SideTally>)>,
}

impl Recent {
    /// Looks at the counts, unless it has just done so.
    pub(super) fn look(&mut self, meter: &Meter, now: Instant) {
        if self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= LOOK_EVERY) {
            self.take(now, meter.sides());
        }
    }

    fn take(&mut self, now: Instant, sides: BTreeMap<Side, SideTally>) {
        self.looks.push_back((now, sides));
        // One look from before the span is its beginning.
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPAN) {
            self.looks.pop_front();
        }
    }

    /// Puts what clients saw of each release in the place of what gateways reported.
    pub(super) fn fill(&self, site: Site, traffic: &mut [ReleaseTraffic]) {
        let (Some((from, before)), Some((to, now))) = (self.looks.front(), self.looks.back()) else { return };
        let span = to.duration_since(*from);
        for release in traffic {
            let Some(version) = &release.version else { continue };
            let side = Side::new(site.name(), version.as_str());
            let answers = |sides: &BTreeMap<Side, SideTally>| {
                sides.get(&side).map_or((0, 0), |side| (side.right + side.errors, side.errors))
            };
            let latency = now.get(&side).map_or_else(Histogram::default, |side_now| {
                before.get(&side).map_or_else(
                    || side_now.latency.clone(),
                    |side_before| side_now.latency.since(&side_before.latency),
                )
            });
            release.span = Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
            release.requests = answers(now).0 - answers(before).0;
            release.errors = answers(now).1 - answers(before).1;
            release.p50_ms = latency.quantile_ms(0.50);
            release.p99_ms = latency.quantile_ms(0.99);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::id::ReleaseNumber;
    use baton_model::route::Weight;

    fn counted(right: u64, errors: u64, now: Instant) -> BTreeMap<Side, SideTally> {
        let mut latency = Histogram::default();
        (0..right + errors).for_each(|_| latency.record(Duration::from_millis(4)));
        let side = SideTally { right, errors, latency, first: now, last: now };
        BTreeMap::from([(Side::new("shop", "2.0"), side)])
    }

    #[test]
    fn only_the_last_two_seconds_count() {
        let mut recent = Recent::default();
        let start = Instant::now();
        for (second, right, errors) in [(0, 100, 50), (1, 200, 50), (2, 300, 50), (3, 400, 51)] {
            let now = start + Duration::from_secs(second);
            recent.take(now, counted(right, errors, now));
        }
        let mut traffic = [ReleaseTraffic {
            release: ReleaseNumber(2),
            version: Some("2.0".parse().unwrap()),
            weight: Weight(5_000),
            rules: Vec::new(),
            instances: 1,
            span: Millis::secs(10),
            requests: 7,
            errors: 7,
            in_flight: 0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            mirrored: 3,
            unmirrored: 0,
            differing: 0,
            diverted: 0,
            left_out: 0,
        }];
        recent.fill(Site::Shop, &mut traffic);
        let [release] = traffic;
        assert_eq!((release.span, release.requests, release.errors), (Millis::secs(2), 201, 1));
        assert!(release.p50_ms >= 4.0 && release.mirrored == 3);
    }
}
