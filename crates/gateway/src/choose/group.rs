//! The instances of one release, and who of them may be chosen now.
//!
//! Health changes seldom and requests come often: who may be chosen is worked out once after each change, and a request
//! only looks whether there was one.

use super::balance::{Way, score};
use crate::clock::Tick;
use crate::evidence::shard::{Padded, shard, shards};
use crate::hash::Salt;
use crate::upstream::{Refused, Serial, UpstreamState};
use arc_swap::ArcSwap;
use baton_model::id::ReleaseNumber;
use baton_model::route::Weight;
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Draws by chance before all are looked at: with one of ten in slow start, three fail once in a thousand times.
const DRAWS: usize = 3;
/// An instance in slow start begins with this part of its share, so that its answers show how it is.
const SLOW_START_FLOOR: f64 = 0.1;

/// The instances of one release.
#[derive(Debug)]
pub(super) struct Group {
    release: ReleaseNumber,
    members: Box<[Member]>,
    zone_spill_below: Weight,
    slow_start: Tick,
    choice: ArcSwap<Choice>,
    /// Whose turn it is, for each thread.
    turns: Box<[Padded<AtomicUsize>]>,
}

#[derive(Clone, Debug)]
struct Member {
    state: Arc<UpstreamState>,
    /// The hash of the instance, not of its run: a swap in place moves nobody.
    hash: u64,
    local: bool,
}

/// Who may be chosen, as of a change of health.
#[derive(Debug)]
struct Choice {
    health: u64,
    /// From here on it must be worked out again: an ejection ends.
    until: Tick,
    /// Who is well: those of the gateway's zone first, where they are preferred.
    well: Box<[Member]>,
    /// How many of `well` are drawn from; the others get what those have no room for.
    preferred: usize,
    /// Until then some are in slow start and others are not.
    slow_until: Tick,
}

/// What a request looks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) way: Way,
    pub(super) tried: &'a [Serial],
    pub(super) in_flight_max: u32,
    pub(super) now: Tick,
}

/// What a group has for it.
#[derive(Debug)]
pub(super) enum Found {
    /// This one; the request has entered.
    Upstream(Arc<UpstreamState>),
    /// Some that have no room.
    Full,
    /// None.
    Nobody,
}

impl Group {
    pub(super) fn new(
        release: ReleaseNumber,
        upstreams: Vec<Arc<UpstreamState>>,
        zone: Option<&str>,
        zone_spill_below: Weight,
        slow_start: Tick,
    ) -> Self {
        let member = |state: Arc<UpstreamState>| Member {
            hash: Salt::new(state.id().instance.service.as_str(), "instance")
                .hash(&state.id().instance.slot.to_be_bytes()),
            local: zone.is_some() && state.upstream().zone.as_deref() == zone,
            state,
        };
        let choice = Choice { health: 0, until: 0, well: Box::default(), preferred: 0, slow_until: 0 };
        Self {
            release,
            members: upstreams.into_iter().map(member).collect(),
            zone_spill_below,
            slow_start,
            choice: ArcSwap::from_pointee(choice),
            turns: (0..shards()).map(|_| Padded(AtomicUsize::new(fastrand::usize(..1 << 16)))).collect(),
        }
    }

    pub(super) const fn release(&self) -> ReleaseNumber {
        self.release
    }

    pub(super) fn states(&self) -> Vec<Arc<UpstreamState>> {
        self.upstreams().cloned().collect()
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamState>> {
        self.members.iter().map(|member| &member.state)
    }

    /// An instance that was not tried: one that is well, or any where `any` is set.
    pub(super) fn find(&self, search: &Search<'_>, any: bool) -> Found {
        if any {
            return self.best(&self.members, search);
        }
        let mut choice = self.choice.load();
        let health = self.members.first().map_or(0, |member| member.state.service().health());
        if choice.health != health || search.now >= choice.until {
            // Several threads may do this at a time, all with the same result.
            self.choice.store(Arc::new(self.work_out(health, search.now)));
            choice = self.choice.load();
        }
        let preferred = &choice.well[..choice.preferred];
        if let Some(member) = self.draw(preferred, search, choice.slow_until)
            && !search.tried.contains(&member.state.serial())
            && member.state.enter(search.in_flight_max).is_ok()
        {
            return Found::Upstream(Arc::clone(&member.state));
        }
        match self.best(preferred, search) {
            found @ Found::Upstream(_) => found,
            Found::Full => match self.best(&choice.well[choice.preferred..], search) {
                found @ Found::Upstream(_) => found,
                Found::Full | Found::Nobody => Found::Full,
            },
            Found::Nobody => self.best(&choice.well[choice.preferred..], search),
        }
    }

    fn work_out(&self, health: u64, now: Tick) -> Choice {
        let is_well = |member: &&Member| !member.state.is_down() && member.state.ejected_until() <= now;
        let mut well: Vec<Member> = self.members.iter().filter(is_well).cloned().collect();
        well.sort_by_key(|member| !member.local);
        let locals = self.members.iter().filter(|member| member.local).count();
        let well_locals = well.iter().filter(|member| member.local).count();
        let share = (well_locals * usize::from(Weight::ALL.0)).checked_div(locals).unwrap_or(0);
        let stays = well_locals > 0 && share >= usize::from(self.zone_spill_below.0);
        let ends =
            self.members.iter().map(|member| member.state.ejected_until()).filter(|until| *until > now);
        let slow_ends = || well.iter().map(|member| member.state.well_since() + self.slow_start);
        let all_slow = slow_ends().all(|end| end > now);
        Choice {
            health,
            until: ends.min().unwrap_or(Tick::MAX),
            preferred: if stays { well_locals } else { well.len() },
            slow_until: if all_slow { 0 } else { slow_ends().max().unwrap_or(0) },
            well: well.into_boxed_slice(),
        }
    }

    /// One of `among` by the search's way, whether it has room or not.
    fn draw<'a>(&self, among: &'a [Member], search: &Search<'_>, slow_until: Tick) -> Option<&'a Member> {
        let slow = search.now < slow_until;
        match search.way {
            Way::LeastLoaded => self.less_loaded(among, search.now, slow),
            Way::RoundRobin => {
                let mut drawn = None;
                for _ in 0..DRAWS {
                    let turn = self.turns[shard()].0.fetch_add(1, Relaxed);
                    drawn = among.get(turn.checked_rem(among.len())?);
                    if !slow || drawn.is_some_and(|member| self.accepts(member, search.now, fastrand::f64()))
                    {
                        break;
                    }
                }
                drawn
            }
            Way::Hash(key) => {
                let part = |member: &Member| part_of(score(key.rotate_left(32), member.hash));
                let ready = |member: &&Member| !slow || self.accepts(member, search.now, part(member));
                among.iter().filter(ready).max_by_key(|member| score(key, member.hash))
            }
        }
    }

    fn less_loaded<'a>(&self, among: &'a [Member], now: Tick, slow: bool) -> Option<&'a Member> {
        let first = self.by_chance(among, now, slow, None)?;
        if among.len() == 1 {
            return among.first();
        }
        let second = self.by_chance(among, now, slow, Some(first))?;
        let (first, second) = (&among[first], &among[second]);
        Some(if cheaper(&second.state, &first.state, now).is_lt() { second } else { first })
    }

    fn by_chance(&self, among: &[Member], now: Tick, slow: bool, but: Option<usize>) -> Option<usize> {
        let mut drawn = None;
        for _ in 0..DRAWS {
            let choices = among.len() - usize::from(but.is_some());
            if choices == 0 {
                return None;
            }
            let at = fastrand::usize(..choices);
            // The others are numbered as if the one that is out were not there.
            let at = at + usize::from(but.is_some_and(|but| at >= but));
            drawn = Some(at);
            if !slow || self.accepts(&among[at], now, fastrand::f64()) {
                break;
            }
        }
        drawn
    }

    /// Whether a member that was drawn keeps the request: in slow start only that part of the times.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a slow start")]
    fn accepts(&self, member: &Member, now: Tick, chance: f64) -> bool {
        let age = now.saturating_sub(member.state.well_since());
        age >= self.slow_start || chance < (age as f64 / self.slow_start as f64).max(SLOW_START_FLOOR)
    }

    /// The best of those that were not tried and have room.
    fn best(&self, among: &[Member], search: &Search<'_>) -> Found {
        let open = || {
            let untried = |member: &&Member| !search.tried.contains(&member.state.serial());
            among.iter().filter(untried).filter(|member| !member.state.has_left())
        };
        let room = |member: &&Member| member.state.in_flight() < u64::from(search.in_flight_max);
        let best = match search.way {
            Way::LeastLoaded | Way::RoundRobin => {
                open().filter(room).min_by(|one, two| cheaper(&one.state, &two.state, search.now))
            }
            Way::Hash(key) => open().filter(room).max_by_key(|member| score(key, member.hash)),
        };
        let Some(best) = best else {
            return if open().next().is_some() { Found::Full } else { Found::Nobody };
        };
        match best.state.enter(search.in_flight_max) {
            Ok(()) => Found::Upstream(Arc::clone(&best.state)),
            // Others were faster by a moment: waiting for room, which comes at once, is all there is to do.
            Err(Refused::Full) => Found::Full,
            Err(Refused::Left) => Found::Nobody,
        }
    }
}

/// Where one more request costs less: the expected time of an answer for each that is in flight, this one included.
/// While nothing is known of one of them, who has less in flight: a new one is neither flooded nor starved.
#[allow(clippy::cast_precision_loss, reason = "requests in flight")]
fn cheaper(one: &UpstreamState, two: &UpstreamState, now: Tick) -> Ordering {
    let in_flight = (one.in_flight(), two.in_flight());
    match (one.average(now), two.average(now)) {
        (Some(one), Some(two)) => {
            ((in_flight.0 + 1) as f64 * one).total_cmp(&((in_flight.1 + 1) as f64 * two))
        }
        (None, _) | (_, None) => in_flight.0.cmp(&in_flight.1),
    }
}

/// A hash as a number from 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "a share")]
fn part_of(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
