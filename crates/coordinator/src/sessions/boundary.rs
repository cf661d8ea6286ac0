//! What an agent may say: only about itself, and only so much.

use baton_engine::cycle::Snapshot;
use baton_model::event::Event;
use baton_model::id::{InstanceId, NodeName};
use baton_model::observed::InstanceObserved;
use std::collections::BTreeMap;

/// Instances one node may report.
pub(crate) const INSTANCES_MAX: usize = 4096;
/// Bytes of an event's message; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes of an event's kind, and of the names and values of its fields.
const FIELD_BYTES_MAX: usize = 512;
/// Fields of an event.
const FIELDS_MAX: usize = 32;

/// Takes away, and names, the instances that are placed on another node: a slot is never used on two nodes, so a node
/// that reports one speaks of something that is not its own.
pub(crate) fn take_foreign(
    node: &NodeName,
    reported: &mut BTreeMap<InstanceId, InstanceObserved>,
    snapshot: &Snapshot,
) -> Vec<InstanceId> {
    let foreign: Vec<InstanceId> = reported
        .keys()
        .filter(|id| {
            let slot =
                snapshot.progress.get(&id.service).and_then(|progress| progress.value.slots.get(&id.slot));
            slot.is_some_and(|slot| slot.node != *node)
        })
        .cloned()
        .collect();
    for id in &foreign {
        reported.remove(id);
    }
    foreign
}

/// Cuts an agent's event to what the journal keeps.
pub(crate) fn cut_event(event: &mut Event) {
    cut(&mut event.message, MESSAGE_BYTES_MAX);
    cut(&mut event.kind, FIELD_BYTES_MAX);
    let fields = std::mem::take(&mut event.fields);
    for (mut name, mut value) in fields.into_iter().take(FIELDS_MAX) {
        cut(&mut name, FIELD_BYTES_MAX);
        cut(&mut value, FIELD_BYTES_MAX);
        event.fields.insert(name, value);
    }
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}
