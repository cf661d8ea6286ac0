//! What a route says: which requests, and which runs may be sent them.

use super::split;
use crate::progress::Slot;
use crate::sight::Sight;
use crate::turn::Turn;
use baton_model::id::InstanceId;
use baton_model::observed::InstanceObserved;
use baton_model::route::{Route, RouteSpec, Upstream, UpstreamId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The route that the release in charge asks for; of a service that is removed, the one it had.
pub(super) fn spec<'a>(turn: &Turn<'a>) -> Option<&'a RouteSpec> {
    turn.spec().filter(|_| !turn.service.removed)?.route.as_ref()
}

/// The route as it should be now, under the revision of the one before. Without a `spec` it names no run any more, so
/// that gateways take out what they have.
pub(super) fn route(turn: &Turn<'_>, spec: &RouteSpec, ends: bool) -> Route {
    let upstreams = if ends { BTreeMap::new() } else { upstreams(turn, spec) };
    let share = split::share(turn, &upstreams);
    Route {
        revision: turn.memory.route.revision,
        spec: spec.clone(),
        split: share.split,
        rules: share.rules,
        mirror: share.mirror,
        held: share.held,
        trial: share.trial,
        upstreams,
    }
}

fn upstreams(turn: &Turn<'_>, spec: &RouteSpec) -> BTreeMap<UpstreamId, Upstream> {
    let named =
        turn.slots_seen().filter_map(|(number, slot, sight)| upstream(turn, spec, number, slot, sight));
    named.collect()
}

/// Its node may be about to stop the run, by a plan that is not wanted any more: until it says otherwise, the run does not
/// come back into the route.
fn may_be_stopped(turn: &Turn<'_>, slot: &Slot, sight: &Sight<'_>, seen: &InstanceObserved) -> bool {
    let by_change = || seen.swap.as_ref().is_some_and(|swap| turn.stops(seen.release, swap.to));
    !sight.confirmed || (!sight.settled(slot) && by_change())
}

/// What may be sent requests of a slot. What is known of a node that is silent is what it said last: gateways see for
/// themselves whether its instances answer, and a coordinator that has just started has heard of nobody.
fn upstream(
    turn: &Turn<'_>,
    spec: &RouteSpec,
    number: u64,
    slot: &Slot,
    sight: &Sight<'_>,
) -> Option<(UpstreamId, Upstream)> {
    if slot.retiring {
        return None;
    }
    let stays = |release| sight.settled(slot) || !turn.stops(release, slot.release);
    let named = turn.memory.route.of_slot(turn.name, number);
    if !sight.heard {
        let (id, upstream) = named?;
        return stays(upstream.release).then(|| (id.clone(), upstream.clone()));
    }
    let seen = sight.seen.filter(|seen| sight.serves && stays(seen.release))?;
    let known = named.is_some_and(|(id, _)| id.run == seen.run);
    if !known && may_be_stopped(turn, slot, sight, seen) {
        return None;
    }
    let port = turn.port(seen.release, &seen.ports, &spec.port)?;
    let node = sight.node?.node?;
    let address = SocketAddr::new(node.address.parse().ok()?, port);
    let zone = node.labels.get("zone").cloned();
    let id = UpstreamId { instance: InstanceId { service: turn.name.clone(), slot: number }, run: seen.run };
    Some((id, Upstream { release: seen.release, address, zone }))
}
