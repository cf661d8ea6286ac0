//! The nodes that may take instances of one kind of services, zone by zone, in the order of their load. Services that
//! ask for the same labels and spread alike share one field, so that a choice costs the logarithm of the number of
//! nodes, and not their number for each service.

use crate::nodes::{NodeView, Nodes};
use baton_model::spec::Placement;
use std::collections::{BTreeMap, BTreeSet, btree_set};

/// What services must have in common to share a field: the labels they ask for, and the label they spread over.
pub(super) type Terms<'a> = (&'a BTreeMap<String, String>, Option<&'a str>);

/// The terms of a service.
pub(super) fn terms(placement: &Placement) -> Terms<'_> {
    (&placement.require, placement.spread.as_deref().filter(|label| *label != "node"))
}

/// A node by its load, the instances of all services there, and then by its place.
pub(super) type Loaded = (u32, usize);

/// The field.
#[derive(Debug)]
pub(super) struct Field {
    /// The nodes that fit, by place.
    spots: Vec<Option<Spot>>,
    /// The nodes of each zone that may take something new.
    zones: Vec<BTreeSet<Loaded>>,
    /// The first of each zone.
    heads: BTreeSet<Loaded>,
    /// What was taken since it was made, as far as it has followed.
    followed: usize,
}

/// A node that fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    /// Without a label to spread over, all nodes are one zone.
    pub(super) zone: usize,
    /// `None` where nothing new may be placed.
    pub(super) load: Option<u32>,
}

impl Field {
    /// Orders the nodes that fit. `taken`: how much of what was taken is in `load` already.
    pub(super) fn of<'n>(nodes: &'n Nodes<'_>, placement: &Placement, load: &[u32], taken: usize) -> Self {
        let (_, label) = terms(placement);
        let mut names: BTreeMap<Option<&String>, usize> = BTreeMap::new();
        let mut spot = |view: &'n NodeView<'_>| {
            // Nodes without the label are a zone of their own.
            let name = view.node.zip(label).and_then(|(node, label)| node.labels.get(label));
            let next = names.len();
            let zone = *names.entry(name).or_insert(next);
            Spot { zone, load: view.eligible(placement).then(|| load[view.place]) }
        };
        let spots: Vec<Option<Spot>> =
            nodes.iter().map(|view| view.fits(placement).then(|| spot(view))).collect();
        let mut zones = vec![BTreeSet::new(); names.len()];
        for (place, spot) in spots.iter().enumerate() {
            if let Some(Spot { zone, load: Some(load) }) = spot {
                zones[*zone].insert((*load, place));
            }
        }
        let heads = zones.iter().filter_map(|zone| zone.first().copied()).collect();
        Self { spots, zones, heads, followed: taken }
    }

    /// Follows what was taken since, each time by the place of the node.
    pub(super) fn follow(&mut self, taken: &[usize]) {
        for place in &taken[self.followed..] {
            self.add(*place);
        }
        self.followed = taken.len();
    }

    fn add(&mut self, place: usize) {
        let Some(Spot { zone, load: Some(load) }) = &mut self.spots[place] else { return };
        let zone = &mut self.zones[*zone];
        if let Some(head) = zone.first() {
            self.heads.remove(head);
        }
        zone.remove(&(*load, place));
        *load += 1;
        zone.insert((*load, place));
        self.heads.extend(zone.first().copied());
    }

    /// The node at a place, where it fits.
    pub(super) fn spot(&self, place: usize) -> Option<Spot> {
        self.spots[place]
    }

    /// The nodes of a zone that may take something new, the least loaded first.
    pub(super) fn zone(&self, zone: usize) -> btree_set::Iter<'_, Loaded> {
        self.zones[zone].iter()
    }

    /// The least loaded node of each zone, the least loaded first.
    pub(super) fn heads(&self) -> btree_set::Iter<'_, Loaded> {
        self.heads.iter()
    }
}
