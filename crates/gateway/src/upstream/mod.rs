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

use crate::clock::{Tick, tick};
use crate::evidence::ReleaseCounters;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Upstream, UpstreamId};
use ejection::Ejected;
use flight::Flight;
use load::Load;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;
use tokio::sync::watch;

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

    pub(crate) const fn load(&self) -> &Load {
        &self.load
    }

    /// Since when it is well; while it is ejected, from when it will be.
    pub(crate) fn well_since(&self) -> Tick {
        self.well_since.load(SeqCst)
    }

    /// What its check says. Coming back begins a slow start.
    pub(crate) fn checked(&self, well: bool, now: Instant) {
        if self.down.swap(!well, SeqCst) == well {
            if well {
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
