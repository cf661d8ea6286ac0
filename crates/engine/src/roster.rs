//! Who runs what, gathered service by service in the order of their names, and at the end handed out node by node.

use crate::nodes::Nodes;
use crate::outcome::{Assignment, Assignments};
use crate::progress::Told;
use crate::turn::Turn;
use baton_model::id::{InstanceId, NodeName};
use std::collections::BTreeMap;

/// The assignments of every node while a decision is made.
#[derive(Debug)]
pub(crate) struct Roster {
    /// By the place of the node: instances are many, and a look-up by name for each would cost more than deciding.
    known: Vec<Vec<(InstanceId, Assignment)>>,
    /// Of nodes that are neither wanted nor heard, by name.
    unknown: BTreeMap<NodeName, Vec<(InstanceId, Assignment)>>,
}

impl Roster {
    /// Nothing for anybody yet.
    pub(crate) fn new(nodes: &Nodes<'_>) -> Self {
        Self { known: vec![Vec::new(); nodes.len()], unknown: BTreeMap::new() }
    }

    /// Enters what one service has decided.
    pub(crate) fn enter(&mut self, turn: &Turn<'_>) {
        let leaves_first = |number: u64| turn.memory.route.holds(turn.name, number);
        let planned = turn.slots_seen().filter(|(number, slot, _)| !slot.retiring || leaves_first(*number));
        for (number, slot, sight) in planned {
            let (reload, released) = (turn.service.reload, slot.released);
            let told = slot.told.unwrap_or(Told { release: slot.release, attempt: slot.attempt });
            let Told { release, attempt } = told;
            let assignment = Assignment { release, attempt, reload, released };
            let entries = match sight.node {
                Some(view) => &mut self.known[view.place],
                None => self.unknown.entry(slot.node.clone()).or_default(),
            };
            entries.push((turn.id(number), assignment));
        }
    }

    /// The complete assignments of every node that has any.
    pub(crate) fn hand_out(self, nodes: &Nodes<'_>) -> BTreeMap<NodeName, Assignments> {
        let names = nodes.iter().map(|view| view.name.clone());
        let known = names.zip(self.known).filter(|(_, entries)| !entries.is_empty());
        known.chain(self.unknown).map(|(name, entries)| (name, entries.into_iter().collect())).collect()
    }
}
