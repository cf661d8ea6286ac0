//! Order among services: what holds back the placing of new instances until what they come after is ready, and where
//! instances may go that need another service beside them. What runs already is left alone.

use crate::sight::{Sight, Sightings};
use baton_model::id::ServiceName;
use baton_model::lifecycle::Near;
use baton_model::spec::{Count, ServiceSpec};
use std::collections::BTreeSet;

/// Why no new instance of the service may be placed now, for people; `None`: what it comes after is ready.
pub(crate) fn unready(sightings: &Sightings<'_>, spec: &ServiceSpec) -> Option<String> {
    spec.lifecycle.after.iter().find_map(|(name, near)| match near {
        Near::Anywhere => unready_anywhere(sightings, name),
        Near::SameNode if places(sightings, name).is_empty() => {
            Some(format!("it comes after `{name}` on the same node, and `{name}` is on no node yet"))
        }
        // Its agent starts it when the other is ready there.
        Near::SameNode => None,
    })
}

/// The places of the nodes that have every service which must be on the same node; `None` where there is no such.
pub(crate) fn beside(sightings: &Sightings<'_>, spec: &ServiceSpec) -> Option<BTreeSet<usize>> {
    let near = spec.lifecycle.after.iter().filter_map(|(name, near)| match near {
        Near::SameNode => Some(places(sightings, name)),
        Near::Anywhere => None,
    });
    near.reduce(|common, places| common.intersection(&places).copied().collect())
}

fn unready_anywhere(sightings: &Sightings<'_>, name: &ServiceName) -> Option<String> {
    let input = &sightings.input;
    let there = input.desired.services.get(name).filter(|service| !service.removed);
    let Some(service) = there else {
        return Some(format!(
            "it comes after `{name}`, which does not exist: deploy it, or take it out of `[after]`"
        ));
    };
    let Some(memory) = input.progress.get(name) else {
        return Some(format!("it comes after `{name}`, of which nothing is ready yet"));
    };
    let sights = sightings.of(name, &memory.slots);
    let live = |number: &u64| memory.slots.get(number).is_some_and(|slot| !slot.retiring);
    let live: Vec<bool> =
        sights.iter().filter(|(number, _)| live(number)).map(|(_, sight)| is_up(sight)).collect();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (whole, ready) = (count(live.len()), count(live.iter().filter(|ready| **ready).count()));
    let release = memory.stable.or(service.request.as_ref().map(|request| request.to));
    let spec = release.and_then(|number| service.releases.get(&number)).map(|release| &release.spec);
    let need = spec.map_or(1, |spec| {
        let whole = match spec.placement.count {
            Count::Replicas(replicas) => replicas,
            Count::PerNode => whole,
        };
        spec.min_available.ceil_of(whole).max(1)
    });
    (ready < need)
        .then(|| format!("it comes after `{name}`, of which {ready} of {need} needed instances are ready"))
}

/// Ready, and not only for the moment between two crashes.
fn is_up(sight: &Sight<'_>) -> bool {
    sight.ready && !sight.seen.is_some_and(|seen| seen.crash_loop)
}

fn places(sightings: &Sightings<'_>, name: &ServiceName) -> BTreeSet<usize> {
    let slots = sightings.input.progress.get(name).into_iter().flat_map(|memory| memory.slots.values());
    let live = slots.filter(|slot| !slot.retiring);
    live.filter_map(|slot| sightings.nodes.get(&slot.node).map(|view| view.place)).collect()
}
