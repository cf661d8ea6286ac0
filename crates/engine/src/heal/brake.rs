//! The mass-failure brake.

use crate::nodes::Nodes;
use baton_model::id::NodeName;
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeSet;

/// Nodes that fall silent within this time of one another are one event.
pub(crate) const WINDOW: Millis = Millis::secs(10);
/// More than this share of all nodes in one event is a mass failure. One node alone never is, so that a fleet of three
/// heals the loss of one.
pub(crate) const SHARE_PERCENT: usize = 30;
/// At least this many nodes make a mass failure.
pub(crate) const NODES_MIN: usize = 2;

/// The silent nodes that are part of a mass failure. A node that an operator drains or removes is not held: somebody
/// has looked at it.
pub(crate) fn held<'a>(nodes: &Nodes<'a>) -> BTreeSet<&'a NodeName> {
    let all = nodes.iter().filter(|(_, view)| view.node.is_some()).count();
    let mut silent: Vec<(UnixMs, &'a NodeName)> = nodes
        .iter()
        .filter(|(_, view)| view.silent && view.node.is_some() && !view.draining())
        .map(|(name, view)| (view.last_heard, name))
        .collect();
    silent.sort_unstable();
    let mut held = BTreeSet::new();
    let (mut first, mut marked) = (0, 0);
    for last in 0..silent.len() {
        while silent[last].0.since(silent[first].0) > WINDOW {
            first += 1;
        }
        let together = last - first + 1;
        if together >= NODES_MIN && together * 100 > all * SHARE_PERCENT {
            held.extend(silent[first.max(marked)..=last].iter().map(|(_, name)| *name));
            marked = last + 1;
        }
    }
    held
}
