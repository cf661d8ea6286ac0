//! The end of a service: everything leaves its node's plan at once, since an operator wants it gone; the memory is
//! dropped when no node reports anything of it any more. A node that is lost is not waited for: when it comes back,
//! its plan no longer names the instances, and its agent stops them.

use crate::turn::{LOST_AFTER_UNKNOWN, Turn};
use baton_model::report::Subject;

/// Retires a removed service.
pub(crate) fn run(turn: &mut Turn<'_>) {
    let now = turn.now;
    for slot in turn.memory.slots.values_mut() {
        slot.retiring = true;
    }
    turn.memory.rollout = None;
    let mut wakes = Vec::new();
    let mut slots = std::mem::take(&mut turn.memory.slots);
    slots.retain(|number, slot| {
        let Some(view) = turn.node(*number) else { return false };
        if view.heard() {
            return turn.seen(*number).is_some();
        }
        let until = view.last_heard.plus(LOST_AFTER_UNKNOWN);
        wakes.push((*number, slot.node.clone(), until));
        now < until
    });
    turn.memory.slots = slots;
    for (number, node, until) in wakes {
        let reason = format!("node {node} is silent; when it comes back it stops the instance");
        turn.wait(Subject::Instance(turn.id(number)), "node-silent", reason, Some(until));
    }
    let stopping: Vec<u64> =
        turn.memory.slots.keys().copied().filter(|number| turn.seen(*number).is_some()).collect();
    for number in stopping {
        turn.wait(Subject::Instance(turn.id(number)), "stop", "it is being stopped".to_owned(), None);
    }
}
