//! Leaving out an instance that fails (outlier detection, as Envoy calls it).

use super::UpstreamState;
use super::service::LONG_AGO;
use crate::clock::{Tick, micros};
use baton_model::route::{Ejection, Weight};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// An ejection never lasts longer, however often it was made.
const LENGTH_MAX: Duration = Duration::from_secs(300);

/// What is remembered of an instance's failures.
#[derive(Debug, Default)]
pub(crate) struct Ejected {
    /// Failures since the last success.
    failures: AtomicU32,
    /// When it is over; [`LONG_AGO`] when there was none.
    until: AtomicU64,
    /// How often it was ejected, less one for each `base` that it was well since.
    times: AtomicU32,
}

impl Ejected {
    pub(crate) fn at(&self, now: Tick) -> bool {
        now < self.until.load(SeqCst)
    }

    pub(crate) fn until(&self) -> Tick {
        self.until.load(SeqCst)
    }

    /// The next one's end, and how often it will have been.
    fn next(&self, ejection: Ejection, now: Tick) -> (Tick, u32) {
        let base = micros(ejection.base.duration()).max(1);
        let until = self.until.load(SeqCst);
        let well_for = if until == LONG_AGO { 0 } else { now.saturating_sub(until) / base };
        let forgiven = u32::try_from(well_for).unwrap_or(u32::MAX);
        let times = self.times.load(SeqCst).saturating_sub(forgiven).saturating_add(1);
        (now + (base.saturating_mul(u64::from(times))).min(micros(LENGTH_MAX)), times)
    }
}

/// How many of a release's instances may be ejected at a time: the share, rounded down, but always one, since an instance
/// that does not answer costs every request that is sent to it. With nobody left, all are used (see `choose`).
pub(crate) fn most(instances: usize, share: Weight) -> usize {
    if share == Weight::NONE {
        return 0;
    }
    (instances * usize::from(share.0) / usize::from(Weight::ALL.0)).max(1)
}

impl UpstreamState {
    /// It answered: the row of failures is over.
    pub(crate) fn succeeded(&self) {
        if self.ejected.failures.load(SeqCst) != 0 {
            self.ejected.failures.store(0, SeqCst);
        }
    }

    /// It failed: the last of so many in a row ejects it.
    pub(crate) fn failed(&self, why: &'static str, now: Tick) {
        self.suspect();
        let failures = self.ejected.failures.fetch_add(1, SeqCst).saturating_add(1);
        let ejection = self.service.ejection();
        if ejection.failures != 0 && failures >= ejection.failures {
            self.eject(ejection, why, now);
        }
    }

    /// Ejects it, unless it is already or as many others of its release are as may be.
    pub(crate) fn eject(&self, ejection: Ejection, why: &'static str, now: Tick) -> bool {
        let members = self.service.members();
        let same =
            members.iter().filter_map(std::sync::Weak::upgrade).filter(|it| it.release() == self.release());
        let (all, ejected) =
            same.fold((0, 0), |(all, ejected), it| (all + 1, ejected + usize::from(it.ejected.at(now))));
        if self.ejected.at(now) || ejected >= most(all, ejection.share_max) {
            return false;
        }
        let (until, times) = self.ejected.next(ejection, now);
        self.ejected.times.store(times, SeqCst);
        self.ejected.until.store(until, SeqCst);
        self.ejected.failures.store(0, SeqCst);
        self.well_since.store(until, SeqCst);
        drop(members);
        tracing::warn!(upstream = %self.id, why, times, seconds = (until - now) / 1_000_000, "ejected");
        self.service.health_changed();
        true
    }
}
