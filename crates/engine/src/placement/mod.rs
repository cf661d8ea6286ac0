//! Placement: which nodes. Eligible are nodes that are heard, neither cordoned nor draining, that have the labels asked
//! for and no conflicting port or path. Among them the choice is even over the spread label's values, then over nodes, then to
//! the node with the fewest instances of all services, then by name: the same question always gets the same answer.
//! It only ever adds; what fits where it is, is never moved.

mod choice;

use crate::nodes::Nodes;
use crate::progress::Progress;
use crate::turn::Turn;
use baton_model::desired::Desired;
use baton_model::id::NodeName;
use baton_model::report::Subject;
use baton_model::spec::{Claim, ServiceSpec};
use choice::Choice;
use std::collections::{BTreeMap, BTreeSet};

/// What all services together have put on each node. Counted once per decision, at the first wish.
#[derive(Debug, Default)]
pub(crate) struct Load {
    counted: bool,
    instances: BTreeMap<NodeName, u32>,
    claims: BTreeMap<NodeName, BTreeSet<Claim>>,
}

impl Load {
    fn count(&mut self, desired: &Desired, progress: &Progress, nodes: &Nodes<'_>) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        for (name, _) in nodes.iter() {
            self.instances.insert(name.clone(), 0);
        }
        for (name, memory) in progress {
            for slot in memory.slots.values() {
                *self.instances.entry(slot.node.clone()).or_default() += 1;
                let release =
                    desired.services.get(name).and_then(|service| service.releases.get(&slot.release));
                if let Some(release) = release {
                    self.hold(&slot.node, &release.spec);
                }
            }
        }
    }

    fn hold(&mut self, node: &NodeName, spec: &ServiceSpec) {
        self.claims.entry(node.clone()).or_default().extend(claims(spec));
    }

    fn conflicts(&self, node: &NodeName, claims: &BTreeSet<Claim>) -> bool {
        self.claims.get(node).is_some_and(|held| !held.is_disjoint(claims))
    }
}

/// Ports and paths that only one instance on a node can have.
fn claims(spec: &ServiceSpec) -> BTreeSet<Claim> {
    spec.ports.values().filter_map(|port| port.kind.claim()).collect()
}

/// Grants the wishes that can be granted, and says of the others why they cannot.
pub(crate) fn grant(turn: &mut Turn<'_>, load: &mut Load, desired: &Desired, progress: &Progress) {
    if turn.wishes.is_empty() {
        return;
    }
    load.count(desired, progress, turn.nodes);
    let wishes = std::mem::take(&mut turn.wishes);
    let Some(spec) = wishes.first().and_then(|wish| turn.release(wish.release)).map(|release| &release.spec)
    else {
        return;
    };
    let claims = claims(spec);
    let mut choice = Choice::open(turn, spec, &load.instances, |node| load.conflicts(node, &claims));
    let (mut refused, mut why) = (0, String::new());
    for wish in wishes {
        let Some(node) = choice.take(wish.only.as_ref(), claims.is_empty()) else {
            refused += 1;
            why = explain(turn, spec, &claims);
            continue;
        };
        *load.instances.entry(node.clone()).or_default() += 1;
        load.hold(&node, spec);
        turn.grant(&wish, &node);
    }
    if refused > 0 {
        let reason = format!("{refused} more instances have no node to go to: {why}");
        turn.wait(Subject::Service, "no-node", reason, None);
    }
}

/// What stands against each node, for people.
fn explain(turn: &Turn<'_>, spec: &ServiceSpec, claims: &BTreeSet<Claim>) -> String {
    let (mut silent, mut closed, mut unfit, mut full) = (0, 0, 0, 0);
    for (_, view) in turn.nodes.iter() {
        if !view.fits(&spec.placement) {
            unfit += 1;
        } else if !view.heard() {
            silent += 1;
        } else if !view.eligible(&spec.placement) {
            closed += 1;
        } else {
            full += 1;
        }
    }
    let mut parts = Vec::new();
    let mut part = |count: u32, text: &str| {
        if count > 0 {
            parts.push(format!("{count} {text}"));
        }
    };
    let labels: Vec<String> =
        spec.placement.require.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let taken: Vec<String> = claims.iter().map(ToString::to_string).collect();
    part(silent, "silent");
    part(closed, "cordoned or draining");
    part(unfit, &format!("without the label {}", labels.join(" and ")));
    if !claims.is_empty() {
        part(full, &format!("with {} taken", taken.join(" or ")));
    }
    let nodes = if parts.is_empty() {
        "there are no nodes".to_owned()
    } else {
        format!("nodes: {}", parts.join(", "))
    };
    format!("{nodes}; join a node, uncordon or label one, or ask for fewer replicas")
}

#[cfg(test)]
mod tests;
