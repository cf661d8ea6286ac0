//! The nodes of one decision, indexed once: what is wanted of each, what is heard from it, and for how long it has
//! been silent. Silence, not a closed session, is what marks a node as suspect.

use crate::input::Input;
use baton_model::desired::Node;
use baton_model::id::NodeName;
use baton_model::observed::NodeObserved;
use baton_model::spec::Placement;
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeSet;

/// A node that was not heard for this long is silent: three of its heartbeats are missing.
pub const SILENT_AFTER: Millis = Millis::secs(3);

/// The label whose values are zones: the one that the placement spreads over, or `zone`.
pub(crate) fn zone_label(placement: &Placement) -> &str {
    placement.spread.as_deref().unwrap_or("zone")
}

/// One node as a decision sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeView<'a> {
    pub(crate) name: &'a NodeName,
    /// Its place in the order of names.
    pub(crate) place: usize,
    /// `None` when the node was removed by an operator and still reports.
    pub(crate) node: Option<&'a Node>,
    /// `None` when it has not been heard since the coordinator started.
    pub(crate) observed: Option<&'a NodeObserved>,
    /// When it was last heard; when the coordinator began to listen, if never.
    pub(crate) last_heard: UnixMs,
    /// It has been silent for [`SILENT_AFTER`].
    pub(crate) silent: bool,
}

impl<'a> NodeView<'a> {
    /// It speaks to us now.
    pub(crate) fn heard(&self) -> bool {
        self.observed.is_some() && !self.silent
    }

    /// Its labels are those that `placement` asks for.
    pub(crate) fn fits(&self, placement: &Placement) -> bool {
        let Some(node) = self.node else { return false };
        placement.require.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }

    /// Its zone where `label` tells zones apart: the label's value, or its own name where each node is one.
    pub(crate) fn zone(&self, label: &str) -> Option<&'a str> {
        let node = self.node?;
        if label == "node" { Some(node.name.as_str()) } else { node.labels.get(label).map(String::as_str) }
    }

    /// An operator wants it empty.
    pub(crate) fn draining(&self) -> bool {
        self.node.is_some_and(|node| node.draining)
    }

    /// Something new may be placed here.
    pub(crate) fn eligible(&self, placement: &Placement) -> bool {
        self.heard() && self.node.is_some_and(|n| !n.cordoned && !n.draining) && self.fits(placement)
    }
}

/// All nodes, by name.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    /// In the order of their names, so that one is found by bisection and has a place to count by.
    views: Vec<NodeView<'a>>,
    /// Silent nodes whose instances stay where they are; see `heal::brake`.
    pub(crate) held: BTreeSet<&'a NodeName>,
    silent: usize,
    /// An operator wants one empty.
    pub(crate) draining: bool,
    now: UnixMs,
}

impl<'a> Nodes<'a> {
    /// Indexes what the input says of nodes.
    pub(crate) fn index(input: &Input<'a>) -> Self {
        let observed = input.observed;
        let view = |(place, name): (usize, &'a NodeName)| {
            let (node, heard) = (input.desired.nodes.get(name), observed.nodes.get(name));
            let last_heard = heard.map_or(observed.listening_since, |h| h.last_heard);
            NodeView {
                name,
                place,
                node,
                observed: heard,
                last_heard,
                silent: input.now.since(last_heard) >= SILENT_AFTER,
            }
        };
        let names: BTreeSet<&'a NodeName> = input.desired.nodes.keys().chain(observed.nodes.keys()).collect();
        let views: Vec<NodeView<'a>> = names.into_iter().enumerate().map(view).collect();
        let silent = views.iter().filter(|view| view.silent || view.node.is_none()).count();
        let draining = views.iter().any(NodeView::draining);
        Self { views, held: BTreeSet::new(), silent, draining, now: input.now }
    }

    /// The node of this name; `None` when it is neither wanted nor heard.
    pub(crate) fn get(&self, name: &NodeName) -> Option<&NodeView<'a>> {
        let place = self.views.binary_search_by(|view| view.name.cmp(name)).ok()?;
        self.views.get(place)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.views.len()
    }

    /// The node at a place that a view has named.
    pub(crate) fn at(&self, place: usize) -> &NodeView<'a> {
        &self.views[place]
    }

    /// All of them, in the order of their names, which is that of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NodeView<'a>> {
        self.views.iter()
    }

    /// The node was removed, or has been silent for longer than its instances may wait for it.
    pub(crate) fn lost(&self, view: Option<&NodeView<'_>>, lost_after: Millis) -> bool {
        match view {
            None => true,
            Some(view) => {
                view.node.is_none() || (view.silent && self.now.since(view.last_heard) >= lost_after)
            }
        }
    }

    /// Instances that one per node makes: on the nodes that fit and can be reached, and on those that may take nothing
    /// new but hold one already.
    pub(crate) fn wanted_per_node(&self, placement: &Placement, holds: impl Fn(&NodeName) -> bool) -> u32 {
        let promised = self.per_node(placement, holds);
        let wanted = promised.filter(|view| !self.lost(Some(view), placement.lost_after));
        u32::try_from(wanted.count()).unwrap_or(u32::MAX)
    }

    /// The same, those that cannot be reached included.
    pub(crate) fn promised_per_node(&self, placement: &Placement, holds: impl Fn(&NodeName) -> bool) -> u32 {
        u32::try_from(self.per_node(placement, holds).count()).unwrap_or(u32::MAX)
    }

    fn per_node(
        &self,
        placement: &Placement,
        holds: impl Fn(&NodeName) -> bool,
    ) -> impl Iterator<Item = &NodeView<'a>> {
        self.views.iter().filter(move |view| {
            let cordoned = view.node.is_some_and(|node| node.cordoned);
            view.fits(placement) && !view.draining() && (!cordoned || holds(view.name))
        })
    }

    /// No node is silent, and none was removed.
    pub(crate) fn none_silent(&self) -> bool {
        self.silent == 0
    }

    /// When the next node that is heard now would become silent, if nothing came from it.
    pub(crate) fn next_silence(&self) -> Option<UnixMs> {
        self.views.iter().filter(|v| !v.silent).map(|v| v.last_heard.plus(SILENT_AFTER)).min()
    }
}
