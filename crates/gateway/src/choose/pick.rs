//! Which instance a request goes to, and what happens when its release has nobody.
//!
//! In this order: a well instance of the decided release that was not tried; one of another release of the split (the
//! greatest share first), counted as a fallback; any instance of the decided release, well or not, since trying beats
//! refusing; any of another release; and for a retry, one that was tried. So no request fails while anybody might
//! answer it. A copy goes to its release or nowhere. A hedge never goes where the request already is, nor to another
//! release: that one's speed would hide how slow its own is, and its client would see the other of two that are compared.

use super::group::{Found, Group, Search};
use super::{Decision, RouteState};
use crate::clock::{Tick, tick};
use crate::evidence::counters::{ReleaseEvent, ServiceEvent};
use crate::request::RequestView;
use crate::upstream::{InFlight, Purpose, Serial, UpstreamState};
use baton_model::id::ReleaseNumber;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

/// What came of looking for an instance.
#[derive(Debug)]
pub enum Picked {
    /// This one, and the request counts as in flight to it from now on.
    Upstream(InFlight),
    /// There are some, and all have as many requests as they may: wait for room.
    Busy,
    /// There is none: wait for one, or answer 503.
    Nobody,
    /// A newer table is in force: find the route again.
    Stale,
}

impl RouteState {
    /// Looks for an instance for a request that was decided. `tried` are avoided where another can be had.
    #[must_use]
    pub fn pick(
        &self,
        decision: &Decision,
        view: &RequestView<'_>,
        tried: &[Serial],
        purpose: Purpose,
        now: Instant,
    ) -> Picked {
        let search = Search {
            way: self.balancer.way(view),
            tried,
            in_flight_max: self.spec.limits.in_flight_max,
            now: tick(now),
        };
        let picked = match purpose {
            Purpose::First | Purpose::Retry | Purpose::Hedge => {
                self.pick_live(decision.release, &search, purpose, now)
            }
            Purpose::Mirror | Purpose::Again => self.pick_copy(decision.mirror, &search, purpose, now),
        };
        match picked {
            Picked::Nobody | Picked::Busy if self.service.in_force() > self.table => Picked::Stale,
            Picked::Nobody | Picked::Busy | Picked::Stale | Picked::Upstream(_) => picked,
        }
    }

    fn pick_live(
        &self,
        release: Option<ReleaseNumber>,
        search: &Search<'_>,
        purpose: Purpose,
        now: Instant,
    ) -> Picked {
        let Some(release) = release else { return Picked::Nobody };
        let again = Search { tried: &[], ..*search };
        let may_repeat = purpose == Purpose::Retry && !search.tried.is_empty();
        let attempts = [(false, search), (true, search), (true, &again)];
        for (any, search) in attempts.into_iter().take(if may_repeat { 3 } else { 2 }) {
            match self.group(release).map_or(Found::Nobody, |group| group.find(search, any)) {
                Found::Upstream(upstream) => return Picked::Upstream(InFlight::new(upstream, purpose, now)),
                Found::Full => return Picked::Busy,
                Found::Nobody => {}
            }
            if purpose == Purpose::Hedge {
                continue;
            }
            if let Some(upstream) = self.others(release).find_map(|group| match group.find(search, any) {
                Found::Upstream(upstream) => Some(upstream),
                Found::Full | Found::Nobody => None,
            }) {
                self.service.counters.count(ServiceEvent::Fallback);
                if purpose == Purpose::First && self.is_left_out(release, search.now) {
                    // Where it went says nothing against the one, and that it could not be answered here something
                    // against the other: a canary that only fails must not be silent as soon as it is left out.
                    self.count(release, ReleaseEvent::Diverted);
                }
                return Picked::Upstream(InFlight::new(upstream, purpose, now));
            }
        }
        Picked::Nobody
    }

    /// Whether the release has instances and none of them is well: they fail, or their checks do. One that has none is not
    /// to blame for it.
    fn is_left_out(&self, release: ReleaseNumber, now: Tick) -> bool {
        let well = |it: &Arc<UpstreamState>| !it.is_down() && it.ejected_until() <= now;
        self.group(release).is_some_and(|group| !group.upstreams().any(well))
    }

    /// The other releases of the split, the greatest share first.
    fn others(&self, but: ReleaseNumber) -> impl Iterator<Item = &Group> {
        let mut start = 0;
        let mut shares: Vec<(u16, ReleaseNumber)> = self
            .borders
            .iter()
            .map(|(end, release)| {
                let share = end - start;
                start = *end;
                (share, *release)
            })
            .filter(|(_, release)| *release != but)
            .collect();
        shares.sort_unstable_by(|one, two| two.cmp(one));
        shares.into_iter().filter_map(|(_, release)| self.group(release))
    }

    fn pick_copy(
        &self,
        release: Option<ReleaseNumber>,
        search: &Search<'_>,
        purpose: Purpose,
        now: Instant,
    ) -> Picked {
        let (Some(release), Some(mirror)) = (release, &self.mirror) else { return Picked::Nobody };
        let copies = &self.service.copies;
        if copies.fetch_add(1, SeqCst) >= mirror.in_flight_max {
            copies.fetch_sub(1, SeqCst);
            return Picked::Busy;
        }
        let group = self.group(release);
        let found = match group.map_or(Found::Nobody, |group| group.find(search, false)) {
            Found::Nobody => group.map_or(Found::Nobody, |group| group.find(search, true)),
            found @ (Found::Upstream(_) | Found::Full) => found,
        };
        match found {
            Found::Upstream(upstream) => Picked::Upstream(InFlight::new(upstream, purpose, now)),
            Found::Full => {
                copies.fetch_sub(1, SeqCst);
                Picked::Busy
            }
            Found::Nobody => {
                copies.fetch_sub(1, SeqCst);
                Picked::Nobody
            }
        }
    }

    /// Takes one retry from the service's budget; counted when it is refused.
    #[must_use]
    pub fn may_retry(&self, now: Instant) -> bool {
        let may = self.service.budget.withdraw(self.spec.retries.budget_percent, tick(now));
        if !may {
            self.service.counters.count(ServiceEvent::OverBudget);
        }
        may
    }

    /// Gives one back that nothing came of.
    pub fn give_retry_back(&self, now: Instant) {
        self.service.budget.give_back(tick(now));
    }

    /// Whether the request's release has an instance that it was not sent to.
    #[must_use]
    pub fn has_another(&self, decision: &Decision, tried: &[Serial]) -> bool {
        let group = decision.release.and_then(|release| self.group(release));
        group.is_some_and(|group| group.upstreams().any(|it| !tried.contains(&it.serial())))
    }

    /// Counts a copy that was compared.
    pub fn compared(&self, release: ReleaseNumber) {
        self.count(release, ReleaseEvent::Compared);
    }

    /// Counts a copy that was wanted and not sent.
    pub fn unmirrored(&self, release: ReleaseNumber) {
        self.count(release, ReleaseEvent::Unmirrored);
    }

    /// Counts a copy whose answer was another than the client's.
    pub fn differing(&self, release: ReleaseNumber) {
        self.count(release, ReleaseEvent::Differing);
    }
}
