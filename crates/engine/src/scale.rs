//! Scale: as many instances as wanted, outside a rollout (a rollout brings its own). What is missing is placed with
//! the stable release; what is too much retires under the budget, what is out of service first, then the fullest zone,
//! then the youngest slot.

use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::NodeName;
use baton_model::report::Subject;
use baton_model::spec::{Count, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// Brings one service to its wanted number.
pub(crate) fn run(turn: &mut Turn<'_>) {
    if turn.rollout().is_some() {
        return;
    }
    cool(turn);
    let (Some(stable), Some(spec)) = (turn.memory.stable, turn.spec()) else { return };
    turn.wishes = turn.missing(spec, stable, false);
    let surplus = match spec.placement.count {
        Count::Replicas(replicas) => {
            turn.staying(false).saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX))
        }
        Count::PerNode => {
            let mut first = BTreeSet::new();
            turn.serving().filter(|(_, slot)| !first.insert(&slot.node)).count()
        }
    };
    retire_surplus(turn, surplus, spec);
}

/// Retires the set beside the one that serves once its time is over. It serves nobody, so it costs no budget.
fn cool(turn: &mut Turn<'_>) {
    let warm = turn.memory.warm;
    if let Some(warm) = warm.filter(|warm| turn.now < warm.until) {
        let (name, version) = (turn.name, turn.version(warm.release));
        let reason = format!("{version} is kept warm: `baton rollout undo {name}` returns to it at once");
        turn.wait(Subject::Service, "warm", reason, Some(warm.until));
        return;
    }
    if warm.is_some() {
        turn.memory.warm = None;
    }
    let over: Vec<u64> = turn.beside().map(|(number, _)| number).collect();
    for number in &over {
        turn.retire(*number);
    }
    if !over.is_empty() {
        let message = format!("{}: the {} instances kept warm are retired", turn.name, over.len());
        turn.tell(Severity::Info, "set-retired", message);
    }
}

fn retire_surplus(turn: &mut Turn<'_>, surplus: usize, spec: &ServiceSpec) {
    if surplus == 0 {
        return;
    }
    for number in by_dispensability(turn, spec).into_iter().take(surplus) {
        let Some(slot) = turn.memory.slots.get(&number).cloned() else { continue };
        if !turn.spent(number, &slot) && !turn.budget.take() {
            let reason = turn.budget.refusal();
            turn.wait(Subject::Instance(turn.id(number)), "budget", reason, None);
            return;
        }
        turn.retire(number);
    }
}

/// The slots that may retire, the most dispensable first.
fn by_dispensability(turn: &Turn<'_>, spec: &ServiceSpec) -> Vec<u64> {
    let replaced = turn.replaced();
    let zone = |number: u64, node: &NodeName| {
        let label = spec.placement.spread.as_deref().filter(|label| *label != "node");
        let labels = turn.node(number).and_then(|view| view.node).map(|node| &node.labels);
        label.and_then(|label| labels?.get(label).cloned()).unwrap_or_else(|| node.to_string())
    };
    let mut fullness: BTreeMap<String, u32> = BTreeMap::new();
    let mut slots = Vec::new();
    // In the order of their age, each slot is as dispensable as its zone was full when it came.
    for (number, slot) in turn.serving().filter(|(number, _)| !replaced.contains(number)) {
        let full = fullness.entry(zone(number, &slot.node)).or_default();
        *full += 1;
        slots.push((!turn.secure(number, slot), *full, number));
    }
    slots.sort_unstable();
    slots.into_iter().rev().map(|(_, _, number)| number).collect()
}
