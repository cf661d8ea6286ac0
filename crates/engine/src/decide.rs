//! The spine: the order of the rooms, and the only file that names them. They share nouns alone: [`Input`], the
//! budget, [`Outcome`], and the [`Turn`] of the service they work on.
//!
//! Each service is decided by itself, in rounds, until nothing changes any more: a room does one step and the next
//! round sees it. So a decision is complete, and deciding again at the same time yields nothing (invariant `quiet`).

use crate::heal::brake;
use crate::input::Input;
use crate::memory::Mark;
use crate::nodes::Nodes;
use crate::outcome::{EventDraft, Outcome};
use crate::placement::{self, Load};
use crate::progress::{HISTORY_MAX, ServiceProgress};
use crate::roster::Roster;
use crate::sight::Sightings;
use crate::turn::Turn;
use crate::{heal, report, retire, rollout, scale};
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
    decide_holding(input, &Held::new(), input.now)
}

/// Services that stay as they are stored, and why.
pub(crate) type Held = BTreeMap<ServiceName, String>;

/// The same, while some services are held until `until`: of them only the report changes, and says why.
pub(crate) fn decide_holding(input: &Input<'_>, held: &Held, until: UnixMs) -> Outcome {
    let mut nodes = Nodes::index(input);
    nodes.held = brake::held(&nodes);
    let mut load = Load::default();
    let sightings = Sightings::index(input, &nodes);
    let mut roster = Roster::new(&nodes);
    let mut outcome = Outcome { wake_at: nodes.next_silence(), ..Outcome::default() };
    let names: BTreeSet<&ServiceName> = input.desired.services.keys().chain(input.progress.keys()).collect();
    for name in names {
        if let Some(why) = held.get(name) {
            hold_service(input, name, &sightings, (why, until), &mut roster, &mut outcome);
            continue;
        }
        decide_service(input, name, &sightings, &mut load, &mut roster, &mut outcome);
    }
    outcome.assignments = roster.hand_out(&nodes);
    outcome.events = once_per_node(outcome.events);
    outcome
}

/// Enters a service as it is stored.
fn hold_service(
    input: &Input<'_>,
    name: &ServiceName,
    sightings: &Sightings<'_>,
    (why, until): (&str, UnixMs),
    roster: &mut Roster,
    outcome: &mut Outcome,
) {
    let gone = gone(name);
    let service = input.desired.services.get(name).unwrap_or(&gone);
    let mut turn = Turn::open(input, service, sightings, input.progress.get(name));
    turn.wait(Subject::Service, "audit", why.to_owned(), Some(until));
    roster.enter(&turn);
    outcome.report.services.insert(name.clone(), report::of(&turn));
    outcome.wake_at = earlier(outcome.wake_at, turn.wake_at);
}

/// A service that is remembered and that nobody wants.
fn gone(name: &ServiceName) -> Service {
    let (releases, request, control) = (BTreeMap::new(), None, Default::default());
    Service { name: name.clone(), releases, request, control, removed: true }
}

fn decide_service<'a>(
    input: &Input<'a>,
    name: &'a ServiceName,
    sightings: &'a Sightings<'a>,
    load: &mut Load,
    roster: &mut Roster,
    outcome: &mut Outcome,
) {
    let stored = input.progress.get(name);
    let gone = gone(name);
    let service = input.desired.services.get(name).unwrap_or(&gone);
    let mut turn = Turn::open(input, service, sightings, stored);
    let mut rounds = 0;
    // Most services are at rest: their first round is compared with what is stored, and nothing is copied for it.
    let mut before: Option<Mark> = None;
    loop {
        round(&mut turn, load, input);
        rounds += 1;
        let rests = match &before {
            Some(before) => before.holds(&turn.memory),
            None => turn.memory.same(stored),
        };
        if rests {
            break;
        }
        if rounds == ROUNDS_MAX {
            turn.wake_at = Some(input.now);
            break;
        }
        before = Some(Mark::of(&turn.memory));
        turn.begin_round();
    }
    roster.enter(&turn);
    if !(service.removed && turn.memory.slots.is_empty()) {
        outcome.report.services.insert(name.clone(), report::of(&turn));
    }
    outcome.wake_at = earlier(outcome.wake_at, turn.wake_at);
    outcome.events.append(&mut turn.events);
    let done = service.removed && turn.memory.slots.is_empty();
    remember(outcome, name, stored, turn, done);
}

/// The rooms, in their order. Failover has its place before heal: who may lead is decided before anything is moved
/// (see `LEASES.md` of the design; it comes with active-passive groups).
fn round(turn: &mut Turn<'_>, load: &mut Load, input: &Input<'_>) {
    let place =
        |turn: &mut Turn<'_>, load: &mut Load| placement::grant(turn, load, input.desired, input.progress);
    if turn.service.removed {
        retire::run(turn);
        return;
    }
    heal::run(turn);
    place(turn, load);
    rollout::run(turn);
    place(turn, load);
    scale::run(turn);
    place(turn, load);
}

/// Puts the memory into the outcome if it changed.
fn remember(
    outcome: &mut Outcome,
    name: &ServiceName,
    stored: Option<&ServiceProgress>,
    turn: Turn<'_>,
    done: bool,
) {
    if done {
        if stored.is_some() {
            outcome.progress.insert(name.clone(), None);
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
    outcome.progress.insert(name.clone(), Some(memory));
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
