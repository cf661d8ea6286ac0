//! Why everything stands as it stands: the report of one service, from its turn.

use crate::rollout;
use crate::sight::Sight;
use crate::turn::Turn;
use baton_model::observed::{InstanceState, SwapPhase};
use baton_model::report::{Health, ServiceReport, Subject, Waiting};
use std::collections::BTreeSet;

/// The report of a service after its rooms have spoken.
pub(crate) fn of(turn: &Turn<'_>) -> ServiceReport {
    let mut waiting = turn.waiting.clone();
    waiting.extend(unready(turn));
    ServiceReport {
        health: health(turn),
        stable: turn.memory.stable,
        wanted: turn.budget.wanted,
        ready: turn.budget.ready,
        floor: turn.budget.floor,
        rollout: turn.memory.rollout.as_ref().and_then(|rollout| rollout::describe(turn, rollout, true)),
        waiting,
    }
}

fn health(turn: &Turn<'_>) -> Health {
    let budget = &turn.budget;
    let unknown = |sight: &Sight<'_>| sight.serves && !sight.ready;
    let changing =
        turn.slots_seen().any(|(_, slot, sight)| slot.retiring || unknown(sight) || !sight.settled(slot));
    if turn.rollout().is_some() {
        Health::Changing
    } else if turn.memory.slots.is_empty() && budget.wanted == 0 {
        Health::Unknown
    } else if budget.ready == 0 && budget.wanted > 0 && !changing {
        Health::Down
    } else if budget.ready >= budget.wanted && !changing {
        Health::Healthy
    } else if changing && turn.memory.silent.is_empty() {
        Health::Changing
    } else if budget.ready == 0 {
        Health::Down
    } else {
        Health::Degraded
    }
}

/// Instances that are not ready and that no room has spoken of.
fn unready(turn: &Turn<'_>) -> Vec<Waiting> {
    let spoken = turn.waiting.iter().filter_map(|waiting| match &waiting.subject {
        Subject::Instance(id) => Some(id.slot),
        Subject::Service | Subject::Rollout | Subject::Stage(_) | Subject::Node(_) => None,
    });
    let spoken: BTreeSet<u64> = spoken.collect();
    let mut waiting = Vec::new();
    let unwell = turn.live_seen().filter(|(number, _, sight)| !sight.well() && !spoken.contains(number));
    for (number, slot, sight) in unwell {
        let Some(seen) = sight.seen.filter(|_| sight.heard) else { continue };
        // Of a first release there is none before; its own reason says it all.
        let failed_swap = seen.swap.as_ref().filter(|swap| {
            swap.phase == SwapPhase::Failed && swap.to == slot.release && seen.release != slot.release
        });
        let (gate, reason) = if let Some(swap) = failed_swap {
            (
                "swap",
                format!(
                    "the change failed and the release before serves on: {}; try `baton rollout retry`",
                    swap.reason
                ),
            )
        } else if seen.crash_loop {
            (
                "crash-loop",
                format!("it crashes again and again and is retried slowly; see `baton logs {}`", turn.name),
            )
        } else if seen.state != InstanceState::Ready {
            (
                "start",
                format!(
                    "it is {}{}{}",
                    seen.state,
                    if seen.reason.is_empty() { "" } else { ": " },
                    seen.reason
                ),
            )
        } else {
            continue;
        };
        let subject = Subject::Instance(turn.id(number));
        waiting.push(Waiting { subject, gate: gate.to_owned(), reason, until: None });
    }
    waiting
}
