//! The end of a service: everything leaves its node's plan at once, since an operator wants it gone; the memory is
//! dropped when no node reports anything of it any more. A node that is lost is not waited for: when it comes back,
//! its plan no longer names the instances, and its agent stops them.

use crate::turn::{LOST_AFTER_UNKNOWN, Turn};
use baton_model::report::Subject;

/// Retires a removed service.
pub(crate) fn run(turn: &mut Turn<'_>) {
    if turn.memory.rollout.is_some() || turn.live().next().is_some() {
        turn.memory.rollout = None;
        turn.memory.slots.values_mut().for_each(|slot| slot.retiring = true);
    }
    let mut gone = Vec::new();
    let mut wakes = Vec::new();
    for (number, slot, sight) in turn.slots_seen() {
        match sight.node {
            None => gone.push(number),
            Some(view) if view.heard() && sight.seen.is_none() => gone.push(number),
            Some(view) if view.heard() => {}
            Some(view) if turn.now < view.last_heard.plus(LOST_AFTER_UNKNOWN) => {
                wakes.push((number, slot.node.clone(), view.last_heard.plus(LOST_AFTER_UNKNOWN)));
            }
            Some(_) => gone.push(number),
        }
    }
    for number in gone {
        turn.memory.slots.remove(&number);
    }
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
