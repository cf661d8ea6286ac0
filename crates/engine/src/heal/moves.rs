//! Moves: a fresh slot takes the place of one whose node is lost, draining, or no longer has the labels asked for.

use crate::sight::Sight;
use crate::turn::{Turn, Wish};
use baton_model::event::Severity;
use baton_model::report::Subject;
use baton_model::spec::Count;

/// Drops the slots that have retired and are gone: their node is heard and no longer reports them, or it was removed.
pub(super) fn forget_retired(turn: &mut Turn<'_>) {
    let gone = |number: u64| match turn.node(number) {
        None => true,
        Some(view) if view.heard() => turn.seen(number).is_none(),
        Some(view) => view.node.is_none(),
    };
    let retiring = turn.memory.slots.iter().filter(|(_, slot)| slot.retiring).map(|(number, _)| *number);
    let forgotten: Vec<u64> = retiring.filter(|number| gone(*number)).collect();
    for number in forgotten {
        turn.memory.slots.remove(&number);
    }
}

/// Whether instances are bound to their nodes: one on each, none anywhere else.
fn bound(turn: &Turn<'_>) -> bool {
    turn.spec().is_none_or(|spec| spec.placement.count == Count::PerNode)
}

/// Wishes a place for every instance whose node is lost. It stays where it is until there is one.
pub(super) fn leave_lost_nodes(turn: &mut Turn<'_>) {
    if turn.memory.silent.is_empty() {
        return;
    }
    let (lost_after, bound) = (turn.lost_after(), bound(turn));
    let replaced = turn.replaced();
    let silent = turn.live_seen().filter(|(_, _, sight)| !sight.heard);
    let silent: Vec<u64> = silent.map(|(number, _, _)| number).collect();
    for number in silent {
        let Some(slot) = turn.memory.slots.get(&number) else { continue };
        let (node, release) = (slot.node.clone(), slot.release);
        let subject = Subject::Instance(turn.id(number));
        let view = turn.node(number);
        let lost = turn.nodes.lost(view, lost_after);
        let until = view.map(|view| view.last_heard.plus(lost_after));
        if bound && view.is_some_and(|view| view.node.is_some()) {
            let reason =
                format!("node {node} is silent; the instance belongs to it and follows when it is back");
            turn.wait(subject, "node-silent", reason, None);
        } else if bound || replaced.contains(&number) && lost {
            turn.retire(number);
        } else if !lost {
            let reason =
                format!("node {node} is silent; it is waited for, then the instance is placed elsewhere");
            turn.wait(subject, "node-silent", reason, until);
        } else if turn.nodes.held.contains(&node) {
            let reason = format!(
                "many nodes fell silent together, so nothing is moved: check the network; \
                 if node {node} is really lost, say so with `baton node drain {node}`"
            );
            turn.wait(subject, "mass-failure", reason, None);
        } else if !replaced.contains(&number) {
            turn.wishes.push(Wish { replaces: Some(number), lost: true, ..Wish::further(release) });
        }
    }
}

/// Wishes a place for every instance on a node that drains or no longer fits; the old one stays until the fresh one is
/// ready.
pub(super) fn leave_unfit_nodes(turn: &mut Turn<'_>) {
    let Some(spec) = turn.spec() else { return };
    if !turn.nodes.draining && spec.placement.require.is_empty() {
        return;
    }
    let bound = bound(turn);
    let replaced = turn.replaced();
    let unfit = |sight: &Sight<'_>| {
        sight.heard && sight.node.is_some_and(|view| view.draining() || !view.fits(&spec.placement))
    };
    let leaving = turn.live_seen().filter(|(_, _, sight)| unfit(sight));
    let leaving: Vec<u64> = leaving.map(|(number, _, _)| number).collect();
    for number in leaving {
        let Some(slot) = turn.memory.slots.get(&number).cloned() else { continue };
        if !bound && !replaced.contains(&number) {
            turn.wishes.push(Wish { replaces: Some(number), ..Wish::further(slot.release) });
        } else if bound && (turn.spent(number, &slot) || turn.budget.take()) {
            leave(turn, number);
        } else if bound {
            let reason = turn.budget.refusal();
            turn.wait(Subject::Instance(turn.id(number)), "budget", reason, None);
        }
    }
}

/// Retires what has been replaced, once the fresh one is ready. The budget counts both until then.
pub(super) fn finish_moves(turn: &mut Turn<'_>) {
    let moves: Vec<(u64, u64)> =
        turn.live().filter_map(|(number, slot)| slot.replaces.map(|old| (old, number))).collect();
    for (old, fresh) in moves {
        let (Some(old_slot), Some(fresh_slot)) =
            (turn.memory.slots.get(&old).cloned(), turn.memory.slots.get(&fresh).cloned())
        else {
            if let Some(slot) = turn.memory.slots.get_mut(&fresh) {
                slot.replaces = None;
            }
            continue;
        };
        if old_slot.retiring {
            continue;
        }
        let ready = turn.secure(fresh, &fresh_slot);
        let id = Subject::Instance(turn.id(old));
        if ready && (turn.spent(old, &old_slot) || turn.budget.take()) {
            leave(turn, old);
        } else if ready {
            let reason = turn.budget.refusal();
            turn.wait(id, "budget", reason, None);
        } else {
            let reason = format!(
                "{} on node {} takes its place and is not ready yet",
                turn.id(fresh),
                fresh_slot.node
            );
            turn.wait(id, "move", reason, None);
        }
    }
}

fn leave(turn: &mut Turn<'_>, number: u64) {
    turn.retire(number);
    let Some(slot) = turn.memory.slots.get(&number) else { return };
    let node = slot.node.clone();
    let id = turn.id(number);
    let mut event = turn.event(Severity::Info, "instance-retired", format!("{id} leaves node {node}"));
    event.node = Some(node);
    event.instance = Some(id);
    turn.events.push(event);
}
