//! What gateways count: per service and release, what was answered, what failed, and how long it took.
//!
//! A gateway reports what was added since its last report ([`Evidence`]); whoever holds several reports merges them.
//! Everything here only adds up, so that the order of reports and of gateways does not matter.

pub mod histogram;
pub mod series;
pub mod sketch;
pub mod trial;

use crate::id::{ReleaseNumber, ServiceName};
use crate::time::Millis;
use histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trial::TrialEvidence;

/// What one gateway counted in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The span: since the report before, or since the gateway's start.
    pub span: Millis,
    /// By service; one for which nothing was counted and nothing is in flight may be missing.
    pub services: BTreeMap<ServiceName, ServiceEvidence>,
    /// Comparisons of two releases, by service: not of the span, but all of it since the gateway began to compare.
    #[serde(default)]
    pub trials: BTreeMap<ServiceName, TrialEvidence>,
}

/// What was counted of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceEvidence {
    /// Requests and connections that came in.
    pub requests: u64,
    /// Requests that the gateway itself had to answer with 502, 503 or 504, and connections it had to close: nobody of
    /// the service answered them.
    pub unanswered: u64,
    /// Requests that the gateway refused for what they are: malformed, too large, too slow.
    pub refused: u64,
    /// Requests that went to another release than the split or a rule said, since that one had nobody to answer.
    pub fallbacks: u64,
    /// Requests that had to wait for an instance or for the end of a planned switch.
    pub queued: u64,
    /// Retries that were not made, since the budget was spent.
    pub over_budget: u64,
    /// Requests that wait now; not a count of the span.
    pub waiting: u64,
    /// By release.
    pub releases: BTreeMap<ReleaseNumber, ReleaseEvidence>,
}

/// What was counted of one release of a service. A request that was tried twice counts at each try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReleaseEvidence {
    /// Answers by status class.
    pub status: StatusCounts,
    /// Tries without an answer: no connection, no head in time, a reset, or an answer that is not HTTP.
    pub failures: u64,
    /// Answers that broke off after their head.
    pub broken: u64,
    /// Requests that were this release's and went to another one, since gateways leave all of its instances out: ejected, or
    /// down by their checks. Its own instances would have failed them.
    pub diverted: u64,
    /// Tries whose client went away before the answer, or that were not waited for since another try was faster.
    pub cancelled: u64,
    /// Tries after a first one that failed.
    pub retries: u64,
    /// Second tries beside a first one that was slow.
    pub hedges: u64,
    /// Clients that were given this release for the first time: exposures, where the service has a sticky cookie.
    pub exposures: u64,
    /// Requests and connections in flight now; not a count of the span.
    pub in_flight: u64,
    /// Its instances that are left out now, ejected or down by their checks, at each gateway; not a count of the span.
    pub left_out: u64,
    /// Copies sent to this release.
    pub mirrored: u64,
    /// Copies that should have been sent and were not: not safe, too large, too many, or nobody to take them.
    pub unmirrored: u64,
    /// Copies whose answer, or whose want of one, was compared with what the client got.
    pub compared: u64,
    /// Of these, those that differed.
    pub differing: u64,
    /// From the request's end to the head of the answer; for connections of a TCP route, how long they took to open.
    pub latency: Histogram,
}

/// Answers by the first digit of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCounts {
    /// 100 to 199, that is 101: a connection that was upgraded; and connections of a TCP route that were opened.
    pub informational: u64,
    /// 200 to 299.
    pub successful: u64,
    /// 300 to 399.
    pub redirected: u64,
    /// 400 to 499.
    pub client_error: u64,
    /// 500 to 599, and whatever else an instance may invent.
    pub server_error: u64,
}

impl StatusCounts {
    /// All answers.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.informational + self.successful + self.redirected + self.client_error + self.server_error
    }

    /// What was added since `earlier` was counted.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            informational: self.informational.saturating_sub(earlier.informational),
            successful: self.successful.saturating_sub(earlier.successful),
            redirected: self.redirected.saturating_sub(earlier.redirected),
            client_error: self.client_error.saturating_sub(earlier.client_error),
            server_error: self.server_error.saturating_sub(earlier.server_error),
        }
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        self.informational += other.informational;
        self.successful += other.successful;
        self.redirected += other.redirected;
        self.client_error += other.client_error;
        self.server_error += other.server_error;
    }
}

impl ReleaseEvidence {
    /// Tries that ended with an answer or without one; those that were cancelled tell nothing.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.status.total() + self.failures
    }

    /// The requests that the release was to answer, whoever did in the end.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.ended() + self.diverted
    }

    /// Of these, what the release failed: status 500 to 599, no answer, or nobody well who could have been asked.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.status.server_error + self.failures + self.diverted
    }

    /// The share of requests that the release failed; `None` when none was asked of it.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub fn error_share(&self) -> Option<f64> {
        let asked = self.asked();
        (asked > 0).then(|| self.failed() as f64 / asked as f64)
    }

    /// What was added since `earlier` was counted on the same counters; what is in flight or left out is
    /// today's.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            status: self.status.since(&earlier.status),
            failures: self.failures.saturating_sub(earlier.failures),
            broken: self.broken.saturating_sub(earlier.broken),
            diverted: self.diverted.saturating_sub(earlier.diverted),
            cancelled: self.cancelled.saturating_sub(earlier.cancelled),
            retries: self.retries.saturating_sub(earlier.retries),
            hedges: self.hedges.saturating_sub(earlier.hedges),
            exposures: self.exposures.saturating_sub(earlier.exposures),
            in_flight: self.in_flight,
            left_out: self.left_out,
            mirrored: self.mirrored.saturating_sub(earlier.mirrored),
            unmirrored: self.unmirrored.saturating_sub(earlier.unmirrored),
            compared: self.compared.saturating_sub(earlier.compared),
            differing: self.differing.saturating_sub(earlier.differing),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Adds `other`, another gateway's or another span's. What is in flight adds up too: merge spans of one gateway
    /// with [`ReleaseEvidence::follow`].
    pub fn merge(&mut self, other: &Self) {
        self.status.merge(&other.status);
        self.failures += other.failures;
        self.broken += other.broken;
        self.diverted += other.diverted;
        self.cancelled += other.cancelled;
        self.retries += other.retries;
        self.hedges += other.hedges;
        self.exposures += other.exposures;
        self.in_flight += other.in_flight;
        self.left_out += other.left_out;
        self.mirrored += other.mirrored;
        self.unmirrored += other.unmirrored;
        self.compared += other.compared;
        self.differing += other.differing;
        self.latency.merge(&other.latency);
    }

    /// Adds a later span of the same gateway: counts add up, what is in flight is the later's.
    pub fn follow(&mut self, later: &Self) {
        self.in_flight = 0;
        self.left_out = 0;
        self.merge(later);
    }
}

impl ServiceEvidence {
    /// What was added since `earlier` was counted on the same counters; what waits or is in flight is today's.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let none = ReleaseEvidence::default();
        let of = |number: &ReleaseNumber| earlier.releases.get(number).unwrap_or(&none);
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            unanswered: self.unanswered.saturating_sub(earlier.unanswered),
            refused: self.refused.saturating_sub(earlier.refused),
            fallbacks: self.fallbacks.saturating_sub(earlier.fallbacks),
            queued: self.queued.saturating_sub(earlier.queued),
            over_budget: self.over_budget.saturating_sub(earlier.over_budget),
            waiting: self.waiting,
            releases: self.releases.iter().map(|(number, now)| (*number, now.since(of(number)))).collect(),
        }
    }

    /// Adds another gateway's.
    pub fn merge(&mut self, other: &Self) {
        self.add(other, ReleaseEvidence::merge);
        self.waiting += other.waiting;
    }

    /// Adds a later span of the same gateway: counts add up, what waits or is in flight is the later's.
    pub fn follow(&mut self, later: &Self) {
        for release in self.releases.values_mut() {
            release.in_flight = 0;
            release.left_out = 0;
        }
        self.add(later, ReleaseEvidence::follow);
        self.waiting = later.waiting;
    }

    fn add(&mut self, other: &Self, add: fn(&mut ReleaseEvidence, &ReleaseEvidence)) {
        self.requests += other.requests;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.fallbacks += other.fallbacks;
        self.queued += other.queued;
        self.over_budget += other.over_budget;
        for (number, evidence) in &other.releases {
            add(self.releases.entry(*number).or_default(), evidence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(successful: u64, server_error: u64, failures: u64, in_flight: u64) -> ReleaseEvidence {
        ReleaseEvidence {
            status: StatusCounts { successful, server_error, ..StatusCounts::default() },
            failures,
            in_flight,
            ..ReleaseEvidence::default()
        }
    }

    #[test]
    fn nothing_ended_is_no_share_of_errors() {
        assert_eq!(ReleaseEvidence { cancelled: 3, in_flight: 1, ..Default::default() }.error_share(), None);
        assert_eq!(counted(6, 1, 1, 0).error_share(), Some(0.25));
        let ejected = ReleaseEvidence { diverted: 8, ..counted(6, 1, 1, 0) };
        assert_eq!((ejected.asked(), ejected.failed(), ejected.ended()), (16, 10, 8));
    }

    #[test]
    fn a_later_span_replaces_what_is_in_flight_and_another_gateway_adds_to_it() {
        let mut spans = counted(1, 0, 0, 5);
        spans.follow(&counted(2, 0, 0, 3));
        assert_eq!((spans.status.successful, spans.in_flight), (3, 3));
        let mut gateways = counted(1, 0, 0, 5);
        gateways.merge(&counted(2, 0, 0, 3));
        assert_eq!((gateways.status.successful, gateways.in_flight), (3, 8));
    }

    #[test]
    fn a_release_that_a_later_span_does_not_name_has_nothing_in_flight() {
        let only = |release, evidence| ServiceEvidence {
            waiting: 4,
            releases: BTreeMap::from([(ReleaseNumber(release), evidence)]),
            ..ServiceEvidence::default()
        };
        let mut service = only(1, counted(1, 0, 0, 7));
        service.follow(&ServiceEvidence { waiting: 1, ..only(2, counted(1, 0, 0, 2)) });
        assert_eq!(service.waiting, 1);
        assert_eq!(service.releases[&ReleaseNumber(1)].in_flight, 0);
        assert_eq!(service.releases[&ReleaseNumber(2)].in_flight, 2);
    }

    proptest! {
        #[test]
        fn the_order_of_gateways_does_not_matter(
            counts in prop::collection::vec((0_u64..9, 0_u64..9, 0_u64..9, 0_u64..9, 1_u64..90_000), 0..8),
        ) {
            let of = |(ok, bad, none, now, us): &(u64, u64, u64, u64, u64)| {
                let mut one = counted(*ok, *bad, *none, *now);
                one.latency.record_us(*us);
                one
            };
            let merged = |order: &mut dyn Iterator<Item = &(u64, u64, u64, u64, u64)>| {
                let mut all = ReleaseEvidence::default();
                order.for_each(|one| all.merge(&of(one)));
                all
            };
            prop_assert_eq!(merged(&mut counts.iter()), merged(&mut counts.iter().rev()));
        }
    }
}
