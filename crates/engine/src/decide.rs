//! The spine: the order of the rooms, and the only file that names them. They share nouns alone: [`Input`], the
//! budget, [`Outcome`], and the [`Turn`] of the service they work on.
//!
//! Each service is decided by itself, in rounds, until nothing changes any more: a room does one step and the next
//! round sees it. So a decision is complete, and deciding again at the same time yields nothing (invariant `quiet`).

use crate::heal::brake;
use crate::input::Input;
use crate::outcome::{EventDraft, Outcome};
use crate::placement::{self, Ground};
use crate::progress::HISTORY_MAX;
use crate::roster::Roster;
use crate::sight::Sightings;
use crate::turn::Turn;
use crate::{heal, report, retire, rollout, route, scale};
use baton_model::desired::Service;
use baton_model::id::{NodeName, ServiceName};
use baton_model::report::Subject;
use baton_model::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of one service in one decision. Each round that changes something begins or ends a stage, grants a wish or
/// spends budget; what is left after so many is done in the next decision, at once.
const ROUNDS_MAX: u32 = 1_000;

/// One decision over the whole fleet: what is remembered next, who runs what, and why.
#[must_use]
pub fn decide(input: &Input<'_>) -> Outcome {
    decide_holding(&look(input), &Held::new(), input.now)
}

/// Services that stay as they are stored, and why.
pub(crate) type Held = BTreeMap<ServiceName, String>;

/// What is seen, and which of the silent nodes are held by the brake.
pub(crate) fn look<'a>(input: &Input<'a>) -> Sightings<'a> {
    let mut sightings = Sightings::index(input);
    sightings.nodes.held = brake::held(&sightings.nodes);
    sightings
}

/// The same, while some services are held until `until`: of them only the report changes, and says why.
pub(crate) fn decide_holding(sightings: &Sightings<'_>, held: &Held, until: UnixMs) -> Outcome {
    let (input, nodes) = (&sightings.input, &sightings.nodes);
    let gone: BTreeMap<&ServiceName, Service> = input
        .progress
        .iter()
        .filter(|(name, memory)| !input.desired.services.contains_key(*name) && !memory.is_forgotten())
        .map(|(name, _)| (name, gone(name)))
        .collect();
    let services: BTreeMap<&ServiceName, &Service> =
        input.desired.services.iter().chain(gone.iter().map(|(name, gone)| (*name, gone))).collect();
    let mut ground = Ground::new(sightings);
    let mut roster = Roster::new(nodes);
    let mut outcome = Outcome { wake_at: nodes.next_silence(), ..Outcome::default() };
    for (name, service) in services {
        let mut turn = Turn::open(sightings, service, input.progress.get(name));
        match held.get(name) {
            Some(why) => turn.wait(Subject::Service, "audit", why.clone(), Some(until)),
            None => rounds(&mut turn, &mut ground),
        }
        conclude(turn, &mut roster, &mut outcome);
    }
    outcome.assignments = roster.hand_out(nodes);
    outcome.events = once_per_node(outcome.events);
    outcome
}

/// A service that is remembered and that nobody wants.
fn gone(name: &ServiceName) -> Service {
    let (releases, request, control) = (BTreeMap::new(), None, Default::default());
    Service { name: name.clone(), releases, request, control, removed: true, reload: 0 }
}

/// Round after round, until one changes nothing.
fn rounds<'a>(turn: &mut Turn<'a>, ground: &mut Ground<'a>) {
    for _ in 0..ROUNDS_MAX {
        round(turn, ground);
        if !turn.memory.written() {
            return;
        }
        turn.begin_round();
    }
    debug_assert!(false, "{}: a room writes and changes nothing", turn.name);
    turn.wake_at = Some(turn.now);
}

/// The rooms, in their order. Failover has its place before heal: who may lead is decided before anything is moved
/// (see `LEASES.md` of the design; it comes with active-passive groups).
fn round<'a>(turn: &mut Turn<'a>, ground: &mut Ground<'a>) {
    if turn.service.removed {
        retire::run(turn);
        route::run(turn);
        return;
    }
    heal::run(turn);
    placement::grant(turn, ground);
    rollout::run(turn);
    placement::grant(turn, ground);
    scale::run(turn);
    placement::grant(turn, ground);
    route::run(turn);
}

/// Takes what one service has come to into the outcome.
fn conclude(mut turn: Turn<'_>, roster: &mut Roster, outcome: &mut Outcome) {
    roster.enter(&turn);
    let done = turn.service.removed && turn.memory.slots.is_empty();
    if !done {
        outcome.report.services.insert(turn.name.clone(), report::of(&turn));
    }
    outcome.wake_at = earlier(outcome.wake_at, turn.wake_at);
    outcome.events.append(&mut turn.events);
    remember(outcome, turn, done);
}

/// Puts the memory into the outcome if it changed.
fn remember(outcome: &mut Outcome, turn: Turn<'_>, done: bool) {
    let stored = turn.stored();
    if done {
        let left = turn.memory.forgotten();
        if left.as_ref() != stored {
            outcome.progress.insert(turn.name.clone(), left);
        }
        return;
    }
    if turn.memory.same(stored) && turn.ended.is_empty() {
        return;
    }
    let mut memory = turn.memory.into_owned();
    memory.history = stored.map(|stored| stored.history.clone()).unwrap_or_default();
    for ended in turn.ended {
        memory.history.retain(|report| report.id != ended.id);
        memory.history.push(ended);
    }
    let surplus = memory.history.len().saturating_sub(HISTORY_MAX);
    memory.history.drain(..surplus);
    outcome.progress.insert(turn.name.clone(), Some(memory));
}

fn earlier(one: Option<UnixMs>, other: Option<UnixMs>) -> Option<UnixMs> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Every service of a node tells of its silence; the journal needs it once.
fn once_per_node(events: Vec<EventDraft>) -> Vec<EventDraft> {
    let mut told: BTreeSet<(&'static str, NodeName)> = BTreeSet::new();
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let node = event.node.clone().filter(|_| matches!(event.kind, "node-silent" | "node-back"));
        if node.is_none_or(|node| told.insert((event.kind, node))) {
            kept.push(event);
        }
    }
    kept
}
