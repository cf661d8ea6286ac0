//! The even and stable choice of nodes for the fresh slots of one service: the zone with the fewest of its instances,
//! in it the node with the fewest of them, then the fewest of all services, then the first by name.
//!
//! Where the service has nothing yet, the order of the field holds and is only walked along; where it has something,
//! the order is kept here. So a service costs what it has and what it wishes for, and not the number of nodes.

use super::field::{Field, Loaded};
use std::collections::{BTreeMap, BTreeSet, btree_set};
use std::iter::Peekable;

/// A node that may be taken: how many of this service it has, and of all, then its place.
type Candidate = (u32, u32, usize);

/// The choice.
#[derive(Debug)]
pub(super) struct Choice<'f, C> {
    field: &'f Field,
    /// Nodes by place, and how many of the service each has.
    mine: &'f BTreeMap<usize, u32>,
    /// What stands against a node though it may take something new.
    closed: C,
    /// The least loaded node of each zone: those of zones that are not open yet are still to come.
    heads: Peekable<btree_set::Iter<'f, Loaded>>,
    /// The zones that have something of this service, or were the next in line.
    open: BTreeMap<usize, Zone<'f>>,
    /// Of these, those that have a node left: how many of this service, the best node, the zone.
    order: BTreeSet<(u32, Candidate, usize)>,
}

/// One zone.
#[derive(Debug)]
struct Zone<'f> {
    /// How many of this service it has.
    count: u32,
    /// Its nodes that have none of them.
    rest: Peekable<btree_set::Iter<'f, Loaded>>,
    /// Its nodes that have some.
    held: BTreeSet<Candidate>,
}

impl<'f, C: Fn(usize) -> bool> Choice<'f, C> {
    /// Begins with what the service has already.
    pub(super) fn open(field: &'f Field, mine: &'f BTreeMap<usize, u32>, closed: C) -> Self {
        let heads = field.heads().peekable();
        let mut choice = Self { field, mine, closed, heads, open: BTreeMap::new(), order: BTreeSet::new() };
        for (place, count) in mine {
            let Some(spot) = field.spot(*place) else { continue };
            let zone = choice.open.entry(spot.zone).or_insert_with(|| Zone::of(field, spot.zone));
            zone.count += count;
            if let Some(load) = spot.load.filter(|_| !(choice.closed)(*place)) {
                zone.held.insert((*count, load, *place));
            }
        }
        let zones: Vec<usize> = choice.open.keys().copied().collect();
        zones.into_iter().for_each(|zone| choice.line_up(zone));
        choice
    }

    /// Whether the node at this place may be taken.
    pub(super) fn allows(&self, place: usize) -> bool {
        self.field.spot(place).is_some_and(|spot| spot.load.is_some()) && !(self.closed)(place)
    }

    /// Takes the best node. `again`: it may be taken another time.
    pub(super) fn take(&mut self, again: bool) -> Option<usize> {
        self.open_zones();
        let (_, best, zone_number) = self.order.pop_first()?;
        let zone = self.open.get_mut(&zone_number)?;
        zone.count += 1;
        let (mine, load, place) = best;
        if !zone.held.remove(&best) {
            zone.rest.next();
        }
        if again {
            zone.held.insert((mine + 1, load + 1, place));
        }
        self.line_up(zone_number);
        Some(place)
    }

    /// Opens the zones that may be the best: one that has nothing of this service is no better than its first node.
    fn open_zones(&mut self) {
        while let Some((load, place)) = self.heads.peek() {
            let bound = (0, (0, *load, *place));
            if self.order.first().is_some_and(|(count, best, _)| (*count, *best) < bound) {
                return;
            }
            let zone = self.field.spot(*place).map(|spot| spot.zone);
            self.heads.next();
            if let Some(zone) = zone.filter(|zone| !self.open.contains_key(zone)) {
                self.open.insert(zone, Zone::of(self.field, zone));
                self.line_up(zone);
            }
        }
    }

    /// Puts a zone in line by its best node, if it has one left.
    fn line_up(&mut self, number: usize) {
        let Some(zone) = self.open.get_mut(&number) else { return };
        let (mine, closed) = (self.mine, &self.closed);
        while zone.rest.next_if(|(_, place)| mine.contains_key(place) || closed(*place)).is_some() {}
        let fresh = zone.rest.peek().map(|(load, place)| (0, *load, *place));
        if let Some(best) = fresh.or_else(|| zone.held.first().copied()) {
            self.order.insert((zone.count, best, number));
        }
    }
}

impl<'f> Zone<'f> {
    fn of(field: &'f Field, zone: usize) -> Self {
        Self { count: 0, rest: field.zone(zone).peekable(), held: BTreeSet::new() }
    }
}
