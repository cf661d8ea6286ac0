//! The spine: the order of the rooms, and the only file that names them. They share nouns alone: [`Input`], the
//! budget, [`Outcome`], and the [`Turn`] of the service they work on.
//!
//! Each service is decided by itself, in rounds, until nothing changes any more: a room does one step and the next
//! round sees it. So a decision is complete, and deciding again at the same time yields nothing (invariant `quiet`).

use crate::heal::brake;
use crate::input::Input;
use crate::nodes::Nodes;
use crate::outcome::{Assignment, Assignments, EventDraft, Outcome};
use crate::placement::{self, Load};
use crate::progress::{HISTORY_MAX, ServiceProgress};
use crate::turn::Turn;
use crate::{heal, report, retire, rollout, scale};
use baton_model::desired::Service;
use baton_model::id::{InstanceId, NodeName, ServiceName};
use baton_model::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};

/// Rounds of one service in one decision. Each round that changes something begins or ends a stage, grants a wish or
/// spends budget; what is left after so many is done in the next decision, at once.
const ROUNDS_MAX: u32 = 1_000;

/// One decision over the whole fleet: what is remembered next, who runs what, and why.
#[must_use]
pub fn decide(input: &Input<'_>) -> Outcome {
    let mut nodes = Nodes::index(input);
    nodes.held = brake::held(&nodes);
    let mut load = Load::default();
    let mut outcome = Outcome { wake_at: nodes.next_silence(), ..Outcome::default() };
    let names: BTreeSet<&ServiceName> = input.desired.services.keys().chain(input.progress.keys()).collect();
    for name in names {
        decide_service(input, name, &nodes, &mut load, &mut outcome);
    }
    outcome.events = once_per_node(outcome.events);
    outcome
}

fn decide_service<'a>(
    input: &Input<'a>,
    name: &'a ServiceName,
    nodes: &'a Nodes<'a>,
    load: &mut Load,
    outcome: &mut Outcome,
) {
    let stored = input.progress.get(name);
    let gone = Service {
        name: name.clone(),
        releases: BTreeMap::new(),
        request: None,
        control: Default::default(),
        removed: true,
    };
    let service = input.desired.services.get(name).unwrap_or(&gone);
    let mut turn = Turn::open(input, service, nodes, stored.map(working_copy).unwrap_or_default());
    let mut rounds = 0;
    // Most services are at rest: their first round is compared with what is stored, and nothing is copied for it.
    let mut before: Option<ServiceProgress> = None;
    loop {
        round(&mut turn, load, input);
        rounds += 1;
        let rests = match (&before, stored) {
            (Some(before), _) => turn.memory == *before,
            (None, Some(stored)) => same(stored, &turn.memory),
            (None, None) => turn.memory == ServiceProgress::default(),
        };
        if rests {
            break;
        }
        if rounds == ROUNDS_MAX {
            turn.wake_at = Some(input.now);
            break;
        }
        before = Some(turn.memory.clone());
        turn.begin_round();
    }
    assign(&turn.memory, name, &mut outcome.assignments);
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

/// The memory without its history, which no room reads and which is long.
fn working_copy(stored: &ServiceProgress) -> ServiceProgress {
    ServiceProgress {
        stable: stored.stable,
        last_slot: stored.last_slot,
        slots: stored.slots.clone(),
        rollout: stored.rollout.clone(),
        history: Vec::new(),
        silent: stored.silent.clone(),
    }
}

fn same(stored: &ServiceProgress, memory: &ServiceProgress) -> bool {
    stored.stable == memory.stable
        && stored.last_slot == memory.last_slot
        && stored.slots == memory.slots
        && stored.rollout == memory.rollout
        && stored.silent == memory.silent
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
    let unchanged = match stored {
        Some(stored) => same(stored, &turn.memory) && turn.ended.is_empty(),
        None => turn.memory == ServiceProgress::default(),
    };
    if unchanged {
        return;
    }
    let mut memory = turn.memory;
    memory.history = stored.map(|stored| stored.history.clone()).unwrap_or_default();
    for ended in turn.ended {
        memory.history.retain(|report| report.id != ended.id);
        memory.history.push(ended);
    }
    let surplus = memory.history.len().saturating_sub(HISTORY_MAX);
    memory.history.drain(..surplus);
    outcome.progress.insert(name.clone(), Some(memory));
}

fn assign(memory: &ServiceProgress, name: &ServiceName, assignments: &mut BTreeMap<NodeName, Assignments>) {
    for (number, slot) in memory.slots.iter().filter(|(_, slot)| !slot.retiring) {
        let id = InstanceId { service: name.clone(), slot: *number };
        let assignment = Assignment { release: slot.release, attempt: slot.attempt };
        match assignments.get_mut(&slot.node) {
            Some(node) => {
                node.insert(id, assignment);
            }
            None => {
                assignments.insert(slot.node.clone(), BTreeMap::from([(id, assignment)]));
            }
        }
    }
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
