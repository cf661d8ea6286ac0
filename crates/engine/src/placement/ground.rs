//! What placement stands on: how much all services together have put on each node, and what is taken there.

use super::field::{Field, Terms, terms};
use crate::sight::Sightings;
use baton_model::id::ReleaseNumber;
use baton_model::spec::{Claim, Placement, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// The ground of one decision. It is counted at the first wish: most decisions place nothing.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    sightings: &'a Sightings<'a>,
    counted: bool,
    /// By the place of the node.
    nodes: Vec<Used>,
    /// The places that were taken in this decision, in turn: what the fields follow.
    taken: Vec<usize>,
    fields: BTreeMap<Terms<'a>, Field>,
}

/// What all services have on one node.
#[derive(Clone, Debug, Default)]
struct Used {
    instances: u32,
    claims: BTreeSet<Claim>,
}

/// Ports and paths that only one instance on a node can have.
pub(super) fn claims(spec: &ServiceSpec) -> BTreeSet<Claim> {
    spec.ports.values().filter_map(|port| port.kind.claim()).collect()
}

impl<'a> Ground<'a> {
    /// Nothing is counted yet.
    pub(crate) fn new(sightings: &'a Sightings<'a>) -> Self {
        Self { sightings, counted: false, nodes: Vec::new(), taken: Vec::new(), fields: BTreeMap::new() }
    }

    fn count(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let input = &self.sightings.input;
        self.nodes = vec![Used::default(); self.sightings.nodes.len()];
        for (name, memory) in input.progress {
            let releases = input.desired.services.get(name).map(|service| &service.releases);
            let mut asked: BTreeMap<ReleaseNumber, BTreeSet<Claim>> = BTreeMap::new();
            let sights = self.sightings.of(name, &memory.slots);
            for (slot, (_, sight)) in memory.slots.values().zip(sights) {
                let Some(view) = sight.node else { continue };
                let used = &mut self.nodes[view.place];
                used.instances += 1;
                let release = || releases?.get(&slot.release);
                let asked = asked
                    .entry(slot.release)
                    .or_insert_with(|| release().map(|release| claims(&release.spec)).unwrap_or_default());
                used.claims.extend(asked.iter().cloned());
            }
        }
    }

    /// The field for services with these terms, up to date, and what stands against a node: one of `claims` is taken.
    pub(super) fn field(
        &mut self,
        placement: &'a Placement,
        claims: &BTreeSet<Claim>,
    ) -> (&Field, impl Fn(usize) -> bool) {
        self.count();
        let (nodes, taken) = (&self.nodes, &self.taken);
        let field = self.fields.entry(terms(placement)).or_insert_with(|| {
            let load: Vec<u32> = nodes.iter().map(|used| used.instances).collect();
            Field::of(&self.sightings.nodes, placement, &load, taken.len())
        });
        field.follow(taken);
        (field, |place: usize| !claims.is_empty() && !nodes[place].claims.is_disjoint(claims))
    }

    /// An instance with these claims was placed.
    pub(super) fn take(&mut self, place: usize, claims: &BTreeSet<Claim>) {
        let used = &mut self.nodes[place];
        used.instances += 1;
        used.claims.extend(claims.iter().cloned());
        self.taken.push(place);
    }
}
