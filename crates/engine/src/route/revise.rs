//! The bookkeeping of a route: its revision, the runs on their way in and out, and what may be stopped.

use super::content;
use crate::progress::Departure;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::report::Subject;
use baton_model::route::{RouteSpec, UpstreamId};
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// The drain of a run whose release is not kept any more: the default of a service file.
const DRAIN_UNKNOWN: Millis = Millis::secs(5);

/// A gateway that has a revision which was never given took it from another memory: the store was restored from an older
/// copy, or a service of this name was removed. What is given from now on passes it, and everything is acknowledged anew.
pub(super) fn catch_up(turn: &mut Turn<'_>) {
    let highest = turn.sightings.gateways.highest(turn.name);
    let Some(highest) = highest.filter(|highest| *highest > turn.memory.route.revision) else { return };
    let revision = highest.next();
    let route = &mut turn.memory.route;
    route.revision = revision;
    route.current.iter_mut().for_each(|current| current.revision = revision);
    route.entered.values_mut().for_each(|entered| *entered = revision);
    route.left.values_mut().for_each(|departure| departure.revision = revision);
}

/// Gives the route another revision where it should say something else, and notes who enters and who leaves by it.
/// Without a `spec` nothing is routed any more: the route stays, and names nobody, until the last run is let go.
pub(super) fn revise(turn: &mut Turn<'_>, spec: Option<&RouteSpec>) {
    let before = &turn.memory.route;
    let mut next = match (spec, &before.current) {
        (Some(spec), _) => content::route(turn, spec, false),
        (None, Some(current)) => content::route(turn, &current.spec, true),
        (None, None) => return,
    };
    if before.current.as_ref() == Some(&next) {
        return;
    }
    let revision = before.revision.next();
    next.revision = revision;
    let named = before.current.as_ref().map(|current| &current.upstreams);
    let leaving = named.into_iter().flatten().filter(|(id, _)| !next.upstreams.contains_key(id));
    let left: Vec<(UpstreamId, Departure)> = leaving
        .map(|(id, upstream)| {
            let until = turn.now.plus(drain_of(turn, upstream.release));
            (id.clone(), Departure { revision, since: turn.now, until })
        })
        .collect();
    let same = |id: &UpstreamId| named.and_then(|named| named.get(id)) == next.upstreams.get(id);
    let entered = next.upstreams.keys().map(|id| {
        let kept = before.entered.get(id).filter(|_| same(id)).copied();
        (id.clone(), kept.unwrap_or(revision))
    });
    let entered = entered.collect();
    let route = &mut turn.memory.route;
    route.revision = revision;
    route.entered = entered;
    route.left.retain(|id, _| !next.upstreams.contains_key(id));
    route.left.extend(left);
    route.current = Some(next);
}

fn drain_of(turn: &Turn<'_>, release: ReleaseNumber) -> Millis {
    turn.release(release).map_or(DRAIN_UNKNOWN, |release| release.spec.stop.drain)
}

/// Forgets the runs that may be stopped: every live gateway has acknowledged a revision without them and has nothing in
/// flight to them, or their time is over. In the end, forgets a route that nothing asks for.
pub(super) fn let_go(turn: &mut Turn<'_>) {
    let gateways = &turn.sightings.gateways;
    let acknowledged = gateways.acknowledged(turn.name);
    let mut gone = Vec::new();
    let mut cut = Vec::new();
    for (id, departure) in &turn.memory.route.left {
        let told = acknowledged.is_none_or(|acknowledged| acknowledged >= departure.revision);
        let forgotten = !turn.memory.slots.contains_key(&id.instance.slot);
        if forgotten || (told && gateways.in_flight(id) == 0) {
            gone.push(id.clone());
        } else if turn.now >= departure.until {
            gone.push(id.clone());
            cut.push((id.clone(), *departure));
        }
    }
    for (id, departure) in cut {
        note_cut(turn, &id, departure);
    }
    if !gone.is_empty() {
        turn.memory.route.left.retain(|id, _| !gone.contains(id));
    }
    let route = &turn.memory.route;
    let empty = route.left.is_empty() && route.current.as_ref().is_some_and(|now| now.upstreams.is_empty());
    if empty && content::spec(turn).is_none() {
        turn.memory.route.current = None;
    }
}

/// The drain of a run ended by its deadline: says what was still in flight, and where.
fn note_cut(turn: &mut Turn<'_>, id: &UpstreamId, departure: Departure) {
    let gateways = &turn.sightings.gateways;
    let requests = gateways.in_flight(id);
    let busy: Vec<&str> = gateways.busy(id).into_iter().map(|name| name.as_str()).collect();
    let waited = departure.until.since(departure.since);
    let why = if busy.is_empty() {
        let behind = gateways.behind(turn.name, departure.revision);
        behind.map_or_else(|| "its time is over".to_owned(), |(behind, _)| behind)
    } else {
        format!("{requests} requests are still in flight to it at {}", busy.join(", "))
    };
    let message = format!("{} (run {}) was drained for {waited} and is let go: {why}", id.instance, id.run);
    let mut event = turn.event(Severity::Warning, "requests-cut", message);
    event.instance = Some(id.instance.clone());
    event.fields.insert("in-flight".to_owned(), requests.to_string());
    turn.events.push(event);
}

/// Tells nodes what they may do now: begin the change for which a run had to leave the gateways, and stop the runs that
/// were replaced.
pub(super) fn release(turn: &mut Turn<'_>) {
    let route = &turn.memory.route;
    // Of each slot the oldest run that is on its way out: those before it are gone.
    let mut oldest: BTreeMap<u64, RunNumber> = BTreeMap::new();
    for id in route.left.keys() {
        let run = oldest.entry(id.instance.slot).or_insert(id.run);
        *run = id.run.min(*run);
    }
    let mut changes = Vec::new();
    for (number, slot, sight) in turn.live_seen() {
        let pending = oldest.get(&number);
        let out = pending.is_none() && route.of_slot(turn.name, number).is_none();
        let begins = slot.told.is_some() && out;
        let run = sight.seen.filter(|_| sight.heard).map_or(RunNumber(0), |seen| seen.run);
        let before = pending.copied().filter(|pending| *pending < run).unwrap_or(run);
        let released = RunNumber(before.0.saturating_sub(1));
        // A node that lost its memory counts its runs from 1 again.
        let moves = run.0 > 0 && (released > slot.released || slot.released >= run);
        if begins || moves {
            changes.push((number, begins, if moves { released } else { slot.released }));
        }
    }
    let now = turn.now;
    for (number, begins, released) in changes {
        let Some(slot) = turn.memory.slots.get_mut(&number) else { continue };
        slot.released = released;
        if begins {
            slot.told = None;
            slot.assigned_at = now;
        }
    }
}

/// Says what is waited for, and wakes when the wait ends by itself.
pub(super) fn explain(turn: &mut Turn<'_>) {
    let left: Vec<(UpstreamId, Departure)> =
        turn.memory.route.left.iter().map(|(id, departure)| (id.clone(), *departure)).collect();
    for (id, departure) in left {
        let gateways = &turn.sightings.gateways;
        let why = match gateways.behind(turn.name, departure.revision) {
            Some((why, until)) => {
                turn.wake(Some(until));
                why
            }
            None => format!("{} requests are in flight to it", gateways.in_flight(&id)),
        };
        let reason = format!("run {} leaves the gateways: {why}", id.run);
        turn.wait(Subject::Instance(id.instance), "drain", reason, Some(departure.until));
    }
    let unknown: BTreeSet<u64> = turn
        .live_seen()
        .filter(|(_, slot, sight)| sight.serves && !sight.ready && slot.told.is_none())
        .map(|(number, _, _)| number)
        .collect();
    let revision = unknown.iter().filter_map(|number| turn.entered(*number)).max();
    if let Some((why, until)) =
        revision.and_then(|revision| turn.sightings.gateways.unserved(turn.name, revision))
    {
        turn.wake(Some(until));
        let reason = format!("{} instances are ready and not yet available: {why}", unknown.len());
        turn.wait(Subject::Service, "route", reason, None);
    }
}
