//! Placement: which nodes. Eligible are nodes that are heard, neither cordoned nor draining, that have the labels asked
//! for and no conflicting port or path. Among them the choice is even over the spread label's values, then over nodes, then to
//! the node with the fewest instances of all services, then by name: the same question always gets the same answer. The set that
//! serves and the set beside it are spread each by itself.
//! It only ever adds; what fits where it is, is never moved.

mod choice;
mod field;
mod ground;

use crate::order;
use crate::turn::{Turn, Wish};
use baton_model::report::Subject;
use baton_model::spec::{Claim, ServiceSpec};
use choice::Choice;
pub(crate) use ground::Ground;
use std::collections::{BTreeMap, BTreeSet};

/// Grants the wishes that can be granted, and says of the others why they cannot.
pub(crate) fn grant<'a>(turn: &mut Turn<'a>, ground: &mut Ground<'a>) {
    if turn.wishes.is_empty() {
        return;
    }
    let wishes = std::mem::take(&mut turn.wishes);
    let Some(spec) = wishes.first().and_then(|wish| turn.release(wish.release)).map(|release| &release.spec)
    else {
        return;
    };
    if let Some(why) = order::unready(turn.sightings, spec) {
        return turn.wait(Subject::Service, "after", why, None);
    }
    let claims = ground::claims(spec);
    let mut refused = 0;
    let (beside, serving): (Vec<Wish>, Vec<Wish>) = wishes.into_iter().partition(|wish| beside(turn, wish));
    for (wishes, beside) in [(serving, false), (beside, true)].iter().filter(|(wishes, _)| !wishes.is_empty())
    {
        let places = choose(turn, ground, spec, &claims, (wishes, *beside));
        for (wish, place) in wishes.iter().zip(places) {
            match place {
                Some(place) => {
                    ground.take(place, &claims);
                    turn.grant(wish, place);
                }
                None => refused += 1,
            }
        }
    }
    if refused > 0 {
        let why = explain(turn, spec, &claims);
        let reason = format!("{refused} more instances have no node to go to: {why}");
        turn.wait(Subject::Service, "no-node", reason, None);
    }
}

/// Whether a wish is of the set that stands beside the one that serves. Each set is spread by itself: after a switch it is all
/// there is.
fn beside(turn: &Turn<'_>, wish: &Wish) -> bool {
    let replaced = wish.replaces.and_then(|old| turn.memory.slots.get(&old));
    replaced.map_or(wish.beside, |old| old.beside)
}

/// A node for each wish of one set, by its place, as far as there are any.
fn choose<'a>(
    turn: &Turn<'_>,
    ground: &mut Ground<'a>,
    spec: &'a ServiceSpec,
    claims: &BTreeSet<Claim>,
    (wishes, beside): (&[Wish], bool),
) -> Vec<Option<usize>> {
    let mine = mine(turn, beside);
    let (field, closed) = ground.field(&spec.placement, claims);
    let allowed = order::beside(turn.sightings, spec);
    let apart = |place: usize| allowed.as_ref().is_some_and(|allowed| !allowed.contains(&place));
    let mut choice = Choice::open(field, &mine, |place| closed(place) || apart(place));
    let grant = |wish: &Wish| match wish.only {
        Some(place) => Some(place).filter(|place| choice.allows(*place)),
        None => choice.take(claims.is_empty()),
    };
    wishes.iter().map(grant).collect()
}

/// How many instances of one of the service's sets each node has that are to stay, by its place.
fn mine(turn: &Turn<'_>, beside: bool) -> BTreeMap<usize, u32> {
    let mut mine = BTreeMap::new();
    let replaced = turn.replaced();
    let of_set = turn.live_seen().filter(|(_, slot, _)| slot.beside == beside);
    let staying = of_set.filter(|(number, _, _)| !replaced.contains(number));
    for view in staying.filter_map(|(_, _, sight)| sight.node) {
        *mine.entry(view.place).or_default() += 1;
    }
    mine
}

/// What stands against each node, for people.
fn explain(turn: &Turn<'_>, spec: &ServiceSpec, claims: &BTreeSet<Claim>) -> String {
    let beside = order::beside(turn.sightings, spec);
    let (mut silent, mut closed, mut unfit, mut full, mut apart) = (0, 0, 0, 0, 0);
    for view in turn.nodes.iter() {
        if !view.fits(&spec.placement) {
            unfit += 1;
        } else if !view.heard() {
            silent += 1;
        } else if !view.eligible(&spec.placement) {
            closed += 1;
        } else if beside.as_ref().is_some_and(|beside| !beside.contains(&view.place)) {
            apart += 1;
        } else {
            full += 1;
        }
    }
    let mut parts = Vec::new();
    let mut part = |count: u32, text: &str| {
        if count > 0 {
            parts.push(format!("{count} {text}"));
        }
    };
    let labels: Vec<String> =
        spec.placement.require.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let taken: Vec<String> = claims.iter().map(ToString::to_string).collect();
    part(silent, "silent");
    part(closed, "cordoned or draining");
    part(unfit, &format!("without the label {}", labels.join(" and ")));
    part(apart, "without the services it comes after");
    if !claims.is_empty() {
        part(full, &format!("with {} taken", taken.join(" or ")));
    }
    let nodes = if parts.is_empty() {
        "there are no nodes".to_owned()
    } else {
        format!("nodes: {}", parts.join(", "))
    };
    format!("{nodes}; join a node, uncordon or label one, or ask for fewer replicas")
}

#[cfg(test)]
mod tests;
