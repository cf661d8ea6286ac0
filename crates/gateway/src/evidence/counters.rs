//! The counters of a service and of each of its releases.

use super::shard::{Padded, shard, shards};
use baton_model::evidence::histogram::{self, Histogram, STEPS_ALL, STEPS_OF_DOUBLING, Stored};
use baton_model::evidence::{ReleaseEvidence, ServiceEvidence, StatusCounts};
use http::StatusCode;
use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What can happen to a try at a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseEvent {
    /// An answer 100 to 199, or a TCP connection that was opened.
    Informational,
    /// An answer 200 to 299.
    Successful,
    /// An answer 300 to 399.
    Redirected,
    /// An answer 400 to 499.
    ClientError,
    /// An answer 500 to 599.
    ServerError,
    /// No answer.
    Failure,
    /// An answer that broke off after its head.
    Broken,
    /// A request of this release that another one had to take: gateways leave all of its instances out.
    Diverted,
    /// Not waited for any longer.
    Cancelled,
    /// It was a try after one that failed.
    Retry,
    /// It was a try beside one that was slow.
    Hedge,
    /// A client was given the release for the first time.
    Exposure,
    /// It was a copy.
    Mirrored,
    /// A copy that was not sent.
    Unmirrored,
    /// A copy whose answer, or want of one, was compared with the client's.
    Compared,
    /// A copy whose answer was another than the client's.
    Differing,
}

const RELEASE_EVENTS: usize = ReleaseEvent::Differing as usize + 1;

impl ReleaseEvent {
    /// The event that an answer of this status is.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            100..=199 => Self::Informational,
            200..=299 => Self::Successful,
            300..=399 => Self::Redirected,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// What can happen to a request of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// It came in.
    Request,
    /// The gateway itself had to answer 502, 503 or 504, or to close the connection.
    Unanswered,
    /// The gateway refused it for what it is.
    Refused,
    /// It went to another release than was decided, since that one had nobody to answer.
    Fallback,
    /// It had to wait.
    Queued,
    /// It was not retried, since the budget was spent.
    OverBudget,
}

const SERVICE_EVENTS: usize = ServiceEvent::OverBudget as usize + 1;

/// Counts of a service at this gateway since its start.
#[derive(Debug)]
pub struct ServiceCounters(Box<[Padded<[AtomicU64; SERVICE_EVENTS]>]>);

impl Default for ServiceCounters {
    fn default() -> Self {
        Self((0..shards()).map(|_| Padded(array::from_fn(|_| AtomicU64::new(0)))).collect())
    }
}

impl ServiceCounters {
    /// Counts one event.
    pub fn count(&self, event: ServiceEvent) {
        self.0[shard()].0[event as usize].fetch_add(1, Relaxed);
    }

    /// All counts, without the releases and without what waits.
    #[must_use]
    pub fn total(&self) -> ServiceEvidence {
        let of = |event: ServiceEvent| self.0.iter().map(|shard| shard.0[event as usize].load(Relaxed)).sum();
        ServiceEvidence {
            requests: of(ServiceEvent::Request),
            unanswered: of(ServiceEvent::Unanswered),
            refused: of(ServiceEvent::Refused),
            fallbacks: of(ServiceEvent::Fallback),
            queued: of(ServiceEvent::Queued),
            over_budget: of(ServiceEvent::OverBudget),
            ..ServiceEvidence::default()
        }
    }
}

const ROWS: usize = STEPS_ALL / STEPS_OF_DOUBLING;
type Row = Box<[AtomicU64; STEPS_OF_DOUBLING]>;

#[derive(Debug)]
struct Shard {
    events: [AtomicU64; RELEASE_EVENTS],
    /// Latencies by step, a row for each doubling. Latencies of one service fall on few rows: a whole histogram for
    /// each core and release would be most of the gateway's memory.
    rows: [OnceLock<Row>; ROWS],
    sum_us: AtomicU64,
}

/// Counts of one release at this gateway since its start.
#[derive(Debug)]
pub struct ReleaseCounters(Box<[Padded<Shard>]>);

impl Default for ReleaseCounters {
    fn default() -> Self {
        let shard = || Shard {
            events: array::from_fn(|_| AtomicU64::new(0)),
            rows: array::from_fn(|_| OnceLock::new()),
            sum_us: AtomicU64::new(0),
        };
        Self((0..shards()).map(|_| Padded(shard())).collect())
    }
}

impl ReleaseCounters {
    /// Counts one event.
    pub fn count(&self, event: ReleaseEvent) {
        self.0[shard()].0.events[event as usize].fetch_add(1, Relaxed);
    }

    /// Counts an answer and how long it took.
    pub fn answered(&self, event: ReleaseEvent, latency: Duration) {
        let us = histogram::microseconds(latency);
        let step = histogram::step(us);
        let shard = &self.0[shard()].0;
        shard.events[event as usize].fetch_add(1, Relaxed);
        shard.sum_us.fetch_add(us, Relaxed);
        let row = shard.rows[step / STEPS_OF_DOUBLING]
            .get_or_init(|| Box::new(array::from_fn(|_| AtomicU64::new(0))));
        row[step % STEPS_OF_DOUBLING].fetch_add(1, Relaxed);
    }

    /// All counts, without what is in flight or left out.
    #[must_use]
    pub fn total(&self) -> ReleaseEvidence {
        let of = |event: ReleaseEvent| {
            self.0.iter().map(|shard| shard.0.events[event as usize].load(Relaxed)).sum()
        };
        ReleaseEvidence {
            status: StatusCounts {
                informational: of(ReleaseEvent::Informational),
                successful: of(ReleaseEvent::Successful),
                redirected: of(ReleaseEvent::Redirected),
                client_error: of(ReleaseEvent::ClientError),
                server_error: of(ReleaseEvent::ServerError),
            },
            failures: of(ReleaseEvent::Failure),
            broken: of(ReleaseEvent::Broken),
            diverted: of(ReleaseEvent::Diverted),
            cancelled: of(ReleaseEvent::Cancelled),
            retries: of(ReleaseEvent::Retry),
            hedges: of(ReleaseEvent::Hedge),
            exposures: of(ReleaseEvent::Exposure),
            in_flight: 0,
            left_out: 0,
            mirrored: of(ReleaseEvent::Mirrored),
            unmirrored: of(ReleaseEvent::Unmirrored),
            compared: of(ReleaseEvent::Compared),
            differing: of(ReleaseEvent::Differing),
            latency: self.latency(),
        }
    }

    fn latency(&self) -> Histogram {
        let mut counts = Vec::new();
        for row in 0..ROWS {
            let rows: Vec<&Row> = self.0.iter().filter_map(|shard| shard.0.rows[row].get()).collect();
            for step in 0..STEPS_OF_DOUBLING {
                let count: u64 = rows.iter().map(|row| row[step].load(Relaxed)).sum();
                if count > 0 {
                    let step = u16::try_from(row * STEPS_OF_DOUBLING + step).expect("about a thousand steps");
                    counts.push((step, count));
                }
            }
        }
        // The largest value is told to the precision of its step: keeping it exactly would cost each request more.
        let max_us = counts.last().map_or(0, |(step, _)| histogram::top(usize::from(*step)));
        let sum_us = self.0.iter().map(|shard| shard.0.sum_us.load(Relaxed)).sum();
        Histogram::try_from(Stored { counts, max_us, sum_us }).expect("the steps are walked in their order")
    }
}
