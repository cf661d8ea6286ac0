//! Nodes that fall silent and come back, as far as this service has instances there.

use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::NodeName;
use std::collections::BTreeSet;

/// Tells of each change once. An instance whose node is back gets its time to become healthy anew, since it could
/// not be told anything meanwhile.
pub(super) fn note(turn: &mut Turn<'_>) {
    let all_known = turn.memory.silent.is_empty() && turn.nodes.none_silent();
    if all_known && turn.slots_seen().all(|(_, _, sight)| sight.node.is_some()) {
        return;
    }
    let nodes: BTreeSet<&NodeName> = turn.memory.slots.values().map(|slot| &slot.node).collect();
    let silent = nodes.into_iter().filter(|node| turn.nodes.get(node).is_none_or(|view| view.silent));
    let silent: BTreeSet<NodeName> = silent.cloned().collect();
    if silent == turn.memory.silent {
        return;
    }
    let before = std::mem::replace(&mut turn.memory.silent, silent.clone());
    for node in silent.difference(&before) {
        tell(turn, Severity::Warning, "node-silent", node, "is silent: its instances count as not ready");
    }
    for node in before.difference(&silent) {
        if !turn.memory.slots.values().any(|slot| slot.node == *node) {
            continue;
        }
        tell(turn, Severity::Info, "node-back", node, "is heard again");
        let (now, stable) = (turn.now, turn.memory.stable);
        let in_rollout = turn.rollout().is_some();
        for slot in turn.memory.slots.values_mut().filter(|slot| in_rollout && slot.node == *node) {
            if stable != Some(slot.release) {
                slot.assigned_at = now;
            }
        }
    }
}

fn tell(turn: &mut Turn<'_>, severity: Severity, kind: &'static str, node: &NodeName, what: &str) {
    let mut event = turn.event(severity, kind, format!("{}: node {node} {what}", turn.name));
    event.node = Some(node.clone());
    turn.events.push(event);
}
