//! What is kept of a service over the revisions of its route.

use super::UpstreamState;
use crate::budget::Budget;
use crate::clock::Tick;
use crate::evidence::{ReleaseCounters, ServiceCounters};
use arc_swap::ArcSwap;
use baton_model::id::{ReleaseNumber, ServiceName, TableRevision};
use baton_model::route::Ejection;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What is kept of a service over the revisions of its route: its counters, its retry budget, and who waits.
#[derive(Debug)]
pub struct ServiceState {
    /// The service.
    pub name: ServiceName,
    /// Its counts.
    pub counters: ServiceCounters,
    /// Its retry budget.
    pub budget: Budget,
    releases: Mutex<BTreeMap<ReleaseNumber, Arc<ReleaseCounters>>>,
    members: Mutex<Vec<Weak<UpstreamState>>>,
    policy: ArcSwap<Policy>,
    /// Grows with each change of an instance's health.
    health: AtomicU64,
    /// The table whose route is in force.
    table: AtomicU64,
    waiting: AtomicU32,
    room: Notify,
    /// Copies in flight, of all mirrors.
    pub(crate) copies: AtomicU32,
}

/// What the current revision says about failing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) ejection: Ejection,
}

impl ServiceState {
    pub(crate) fn new(name: ServiceName, ejection: Ejection) -> Self {
        Self {
            name,
            counters: ServiceCounters::default(),
            budget: Budget::default(),
            releases: Mutex::default(),
            members: Mutex::default(),
            policy: ArcSwap::from_pointee(Policy { ejection }),
            health: AtomicU64::new(1),
            table: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            room: Notify::new(),
            copies: AtomicU32::new(0),
        }
    }

    /// The counters of a release, made when they are first asked for.
    #[must_use]
    pub fn release(&self, release: ReleaseNumber) -> Arc<ReleaseCounters> {
        Arc::clone(locked(&self.releases).entry(release).or_default())
    }

    /// The counters of all releases that were ever counted and not forgotten.
    #[must_use]
    pub fn releases(&self) -> BTreeMap<ReleaseNumber, Arc<ReleaseCounters>> {
        locked(&self.releases).clone()
    }

    /// Drops the counters of releases that are not to be kept: all of them have been reported.
    pub(crate) fn forget_releases(&self, keep: impl Fn(ReleaseNumber) -> bool) {
        locked(&self.releases).retain(|release, _| keep(*release));
    }

    /// The revision that is in force has these members and this policy. Wakes all who wait.
    pub(crate) fn enact(&self, table: TableRevision, ejection: Ejection, members: Vec<Weak<UpstreamState>>) {
        *locked(&self.members) = members;
        self.policy.store(Arc::new(Policy { ejection }));
        self.table.store(table.0, SeqCst);
        self.health_changed();
    }

    pub(crate) fn in_force(&self) -> TableRevision {
        TableRevision(self.table.load(SeqCst))
    }

    pub(crate) fn ejection(&self) -> Ejection {
        self.policy.load().ejection
    }

    /// The members of the revision in force. Held while one of them is ejected, so that two at a time cannot pass the
    /// limit on how many may be.
    pub(crate) fn members(&self) -> MutexGuard<'_, Vec<Weak<UpstreamState>>> {
        locked(&self.members)
    }

    /// The number of the latest change of health.
    pub(crate) fn health(&self) -> u64 {
        self.health.load(SeqCst)
    }

    /// An instance became well or unwell, or the route changed: groups look again, and who waits tries again.
    pub(crate) fn health_changed(&self) {
        self.health.fetch_add(1, SeqCst);
        self.room.notify_waiters();
    }

    /// An instance has room for one more.
    pub(crate) fn one_left(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.room.notify_one();
        }
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// A place in the queue, unless `most` wait already.
    #[must_use]
    pub fn queue(self: &Arc<Self>, most: u32) -> Option<Waiting> {
        if self.waiting.fetch_add(1, SeqCst) >= most {
            self.waiting.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Waiting(Arc::clone(self)))
    }
}

/// A place in the queue of a service; given back when dropped.
#[derive(Debug)]
pub struct Waiting(Arc<ServiceState>);

impl Waiting {
    /// Completes when it is worth trying again: an instance has room, became well, or a newer route is in force.
    /// Call [`Notified::enable`] on it before trying, so that what happens in between is not missed.
    pub fn woken(&self) -> Notified<'_> {
        self.0.room.notified()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
        // The wake-up that was meant for this one, if it had come, is for the next.
        self.0.one_left();
    }
}

/// A panic while one of these short lists was held leaves it whole: each change is one call.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tick from which something counts as long ago.
pub(crate) const LONG_AGO: Tick = 0;
