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
    let all = nodes.iter().filter(|view| view.node.is_some()).count();
    let mut silent: Vec<(UnixMs, &'a NodeName)> = nodes
        .iter()
        .filter(|view| view.silent && view.node.is_some() && !view.draining())
        .map(|view| (view.last_heard, view.name))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::fleet;
    use crate::input::{ALL_CONFIRMED, Input};

    /// `silent`: nodes by number with the second they were last heard, of `all`; `expect`: those that are held at 100 s.
    fn check(all: u32, silent: &[(u32, u64)], draining: &[u32], expect: &[u32]) {
        let mut fleet = fleet(all, 1);
        fleet.tick();
        let name = |number: &u32| NodeName::new(format!("n{number}")).unwrap();
        for number in draining {
            fleet.node(&format!("n{number}"), |node| node.draining = true);
        }
        let mut observed = fleet.observed();
        for node in observed.nodes.values_mut() {
            node.last_heard = UnixMs(100_000);
        }
        for (number, second) in silent {
            observed.nodes.get_mut(&name(number)).unwrap().last_heard = UnixMs(second * 1000);
        }
        let progress = crate::progress::Progress::new();
        let input = Input {
            desired: &fleet.desired,
            observed: &observed,
            progress: &progress,
            unconfirmed: &ALL_CONFIRMED,
            now: UnixMs(100_000),
        };
        let nodes = Nodes::index(&input);
        let expect: BTreeSet<NodeName> = expect.iter().map(name).collect();
        let held: BTreeSet<NodeName> = held(&nodes).into_iter().cloned().collect();
        assert_eq!(held, expect, "{silent:?} of {all}");
    }

    #[test]
    fn holds_what_fell_silent_together_and_nothing_else() {
        check(3, &[(1, 50)], &[], &[]);
        check(3, &[(1, 50), (2, 60)], &[], &[1, 2]);
        check(3, &[(1, 50), (2, 61)], &[], &[]);
        check(10, &[(1, 50), (2, 51), (3, 52)], &[], &[]);
        check(10, &[(1, 50), (2, 51), (3, 52), (4, 53)], &[], &[1, 2, 3, 4]);
        check(10, &[(1, 50), (2, 51), (3, 52), (4, 53)], &[4], &[]);
        check(10, &[(1, 20), (5, 50), (6, 51), (7, 52), (8, 60)], &[], &[5, 6, 7, 8]);
    }
}
