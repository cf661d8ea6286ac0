//! What a gateway knows of one run of an instance: kept over revisions for as long as a route names it or requests to
//! it are in flight.

mod ejection;
mod flight;
mod in_flight;
mod load;
pub mod service;

pub(crate) use flight::Refused;
pub use in_flight::{InFlight, Purpose};
pub use service::{ServiceState, Waiting};

use crate::clock::{Tick, micros, tick};
use crate::evidence::ReleaseCounters;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Upstream, UpstreamId};
use ejection::Ejected;
use flight::Flight;
use load::Load;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Tells upstreams apart within a process: for the keys of pools and for telling which were tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(u64);

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// One run of an instance, as this gateway sees it.
#[derive(Debug)]
pub struct UpstreamState {
    serial: Serial,
    id: UpstreamId,
    upstream: Upstream,
    service: Arc<ServiceState>,
    counters: Arc<ReleaseCounters>,
    flight: Flight,
    load: Load,
    ejected: Ejected,
    /// Its check says that it is not well.
    down: AtomicBool,
    /// Since when it is well: from here its slow start counts.
    well_since: AtomicU64,
    left: watch::Sender<bool>,
    /// Somebody checks it.
    watched: AtomicBool,
    /// A request failed: look at it now.
    suspicion: Notify,
    /// Answers of this span in the low half, those of them that were slow in the high half.
    span: AtomicU64,
    slow_above: AtomicU64,
}

impl UpstreamState {
    pub(crate) fn new(
        id: UpstreamId,
        upstream: Upstream,
        service: &Arc<ServiceState>,
        well_since: Tick,
    ) -> Self {
        Self {
            serial: Serial(NEXT_SERIAL.fetch_add(1, SeqCst)),
            id,
            counters: service.release(upstream.release),
            upstream,
            service: Arc::clone(service),
            flight: Flight::default(),
            load: Load::default(),
            ejected: Ejected::default(),
            down: AtomicBool::new(false),
            well_since: AtomicU64::new(well_since),
            left: watch::Sender::new(false),
            watched: AtomicBool::new(false),
            suspicion: Notify::new(),
            span: AtomicU64::new(0),
            slow_above: AtomicU64::new(Tick::MAX),
        }
    }

    /// Its number within this process.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// Which run of which instance.
    #[must_use]
    pub const fn id(&self) -> &UpstreamId {
        &self.id
    }

    /// Where it is reached.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// The release it runs.
    #[must_use]
    pub const fn release(&self) -> ReleaseNumber {
        self.upstream.release
    }

    /// As the table names it.
    #[must_use]
    pub const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Its service.
    #[must_use]
    pub const fn service(&self) -> &Arc<ServiceState> {
        &self.service
    }

    /// The counters of its release.
    #[must_use]
    pub const fn counters(&self) -> &Arc<ReleaseCounters> {
        &self.counters
    }

    /// Requests and connections in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.flight.count()
    }

    /// Counts a request in, unless it may not be sent there.
    pub(crate) fn enter(&self, most: u32) -> Result<(), Refused> {
        self.flight.enter(most)
    }

    /// No route names it any more.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.flight.is_closed()
    }

    /// Completes when no route names it any more: long connections are then told to go.
    pub async fn until_left(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// Whether its check passes and it is not ejected.
    #[must_use]
    pub fn is_well(&self, now: Instant) -> bool {
        !self.down.load(SeqCst) && !self.ejected.at(tick(now))
    }

    /// Until when it is, or was last, ejected.
    pub(crate) fn ejected_until(&self) -> Tick {
        self.ejected.until()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(SeqCst)
    }

    /// The expected time of an answer, in microseconds; `None` before the first.
    pub(crate) fn average(&self, now: Tick) -> Option<f64> {
        self.load.average(now)
    }

    /// Counts an answer of this span.
    fn count_span(&self, latency: Duration) {
        let slow = micros(latency) > self.slow_above.load(Relaxed);
        self.span.fetch_add(u64::from(slow) << 32 | 1, Relaxed);
    }

    /// Ends the span: how many of its answers were slow, and how many there were.
    pub(crate) fn take_span(&self) -> (u32, u32) {
        let span = self.span.swap(0, Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("half of the bits");
        (half(span >> 32), half(span))
    }

    pub(crate) fn set_slow_above(&self, limit: Tick) {
        self.slow_above.store(limit, Relaxed);
    }

    /// Whether the caller is to check it from now on: somebody else does not.
    pub(crate) fn begin_watch(&self) -> bool {
        !self.watched.swap(true, SeqCst)
    }

    pub(crate) fn end_watch(&self) {
        self.watched.store(false, SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(SeqCst)
    }

    fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Completes when a request has failed since it completed last.
    pub(crate) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Since when it is well; while it is ejected, from when it will be.
    pub(crate) fn well_since(&self) -> Tick {
        self.well_since.load(SeqCst)
    }

    /// What its check says. Coming back begins a slow start, and what it was like before it went is forgotten: it would be asked
    /// for nothing for as long as that is remembered.
    pub(crate) fn checked(&self, well: bool, now: Instant) {
        if self.down.swap(!well, SeqCst) == well {
            if well {
                self.load.forget();
                self.well_since.store(tick(now), SeqCst);
            }
            self.service.health_changed();
        }
    }

    /// No route names it any more: nobody enters from now on.
    pub(crate) fn leave(&self) {
        self.flight.close();
        self.left.send_replace(true);
    }

    /// A route names it again.
    pub(crate) fn come_back(&self) {
        self.left.send_replace(false);
        self.flight.open();
    }
}

impl PartialEq for UpstreamState {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}
