//! Invariant 3, as far as one decision shows it: a run that gateways may send to, or are busy with, is not stopped.

use super::{Change, Violation, violation};
use crate::outcome::{Assignment, Outcome};
use crate::progress::{Departure, RouteProgress, Slot, Told};
use baton_model::id::RouteRevision;
use baton_model::route::UpstreamId;
use std::collections::BTreeMap;

/// What this decision lets go has left every live gateway, or its time is over; and what it does not let go is still in
/// its node's plan, as it was.
pub(super) fn acked_drain(change: &Change<'_>, outcome: &Outcome, violations: &mut Vec<Violation>) {
    let (before, after) = (&change.before.memory.route, &change.after.memory.route);
    let mut say = |id: &UpstreamId, what: &str| {
        let detail = format!("run {} of {} {what}", id.run, id.instance);
        violations.push(violation("acked-drain", detail));
    };
    let named = named(before).map(|id| (id, None));
    let left = before.left.iter().map(|(id, departure)| (id, Some(*departure)));
    for (id, departure) in named.chain(left) {
        if !knows(after, id) && !may_go(change, id, departure) {
            say(id, "is let go while a gateway may send to it");
        }
        if knows(after, id) && stops_now(change, outcome, id) {
            say(id, "is stopped while a gateway may send to it");
        }
    }
}

fn named(route: &RouteProgress) -> impl Iterator<Item = &UpstreamId> {
    route.current.iter().flat_map(|current| current.upstreams.keys())
}

fn knows(route: &RouteProgress, id: &UpstreamId) -> bool {
    route.left.contains_key(id) || named(route).any(|named| named == id)
}

/// `departure`: none where it was still named, and so must be out of the route for longer than any gateway can know.
fn may_go(change: &Change<'_>, id: &UpstreamId, departure: Option<Departure>) -> bool {
    let after = &change.after;
    let gateways = &after.sightings.gateways;
    let known = departure.map_or(RouteRevision(u64::MAX), |departure| departure.revision);
    let told = gateways.acknowledged(after.name).is_none_or(|acknowledged| acknowledged >= known);
    let overdue = departure.is_some_and(|departure| after.now >= departure.until);
    let forgotten = !after.memory.slots.contains_key(&id.instance.slot);
    forgotten || overdue || (told && gateways.in_flight(id) == 0)
}

/// The plan of its node takes the run out of service: it no longer names the instance, or names a release for which the
/// run that is seen must stop.
fn stops_now(change: &Change<'_>, outcome: &Outcome, id: &UpstreamId) -> bool {
    let (after, number) = (&change.after, id.instance.slot);
    let Some(slot) = after.memory.slots.get(&number) else { return false };
    let seen = after.seen(number).filter(|seen| seen.run == id.run);
    let told = |slot: &Slot| slot.told.unwrap_or(Told { release: slot.release, attempt: slot.attempt });
    let told_before = change.before.memory.slots.get(&number).map(told);
    let assignments = outcome.assignments.get(&slot.node);
    match assignments.and_then(|assignments: &BTreeMap<_, Assignment>| assignments.get(&id.instance)) {
        None => true,
        Some(planned) => {
            let Assignment { release, attempt, released, .. } = *planned;
            let anew = told_before != Some(Told { release, attempt });
            released >= id.run || (anew && seen.is_some_and(|seen| after.stops(seen.release, release)))
        }
    }
}
