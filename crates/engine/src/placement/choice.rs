//! The even and stable choice of nodes for the fresh slots of one service.
//!
//! Zones are kept in order of how many of the service's instances they have, nodes in a zone likewise, so that each
//! choice costs the logarithm of the number of nodes and not their number.

use crate::turn::Turn;
use baton_model::id::NodeName;
use baton_model::spec::ServiceSpec;
use std::collections::{BTreeMap, BTreeSet};

/// What is preferred: fewest of this service, then fewest of all, then the name.
type Candidate = (u32, u32, NodeName);

/// The eligible nodes, in the order they are preferred.
#[derive(Debug)]
pub(super) struct Choice {
    order: BTreeSet<(u32, String)>,
    zones: BTreeMap<String, Zone>,
    zone_of: BTreeMap<NodeName, String>,
}

#[derive(Debug, Default)]
struct Zone {
    count: u32,
    nodes: BTreeSet<Candidate>,
}

impl Choice {
    /// Orders the nodes that may take an instance of `spec`.
    pub(super) fn open(
        turn: &Turn<'_>,
        spec: &ServiceSpec,
        load: &BTreeMap<NodeName, u32>,
        conflicts: impl Fn(&NodeName) -> bool,
    ) -> Self {
        let mut mine: BTreeMap<&NodeName, u32> = BTreeMap::new();
        let replaced = turn.replaced();
        for (_, slot) in turn.live().filter(|(number, _)| !replaced.contains(number)) {
            *mine.entry(&slot.node).or_default() += 1;
        }
        let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
        let mut zone_of = BTreeMap::new();
        for (name, view) in turn.nodes.iter().filter(|(_, view)| view.fits(&spec.placement)) {
            let label = spec.placement.spread.as_deref().filter(|label| *label != "node");
            let zone = match (label, view.node) {
                (Some(label), Some(node)) => node.labels.get(label).cloned().unwrap_or_default(),
                (_, _) => name.to_string(),
            };
            let count = mine.get(name).copied().unwrap_or(0);
            let entry = zones.entry(zone.clone()).or_default();
            entry.count += count;
            if view.eligible(&spec.placement) && !conflicts(name) {
                entry.nodes.insert((count, load.get(name).copied().unwrap_or(0), name.clone()));
                zone_of.insert(name.clone(), zone);
            }
        }
        zones.retain(|_, zone| !zone.nodes.is_empty());
        // Without a spread label each node is a zone of its own, and the fewest of all services decides among equals.
        let order = zones.iter().map(|(name, zone)| (zone.count, name.clone())).collect();
        Self { order, zones, zone_of }
    }

    /// Takes the best node, or the one asked for; `again`: it may be taken another time.
    pub(super) fn take(&mut self, only: Option<&NodeName>, again: bool) -> Option<NodeName> {
        let zone_name = match only {
            Some(node) => self.zone_of.get(node)?.clone(),
            None => self.best_zone()?,
        };
        let zone = self.zones.get_mut(&zone_name)?;
        let candidate = match only {
            Some(node) => zone.nodes.iter().find(|(_, _, name)| name == node)?.clone(),
            None => zone.nodes.first()?.clone(),
        };
        self.order.remove(&(zone.count, zone_name.clone()));
        zone.nodes.remove(&candidate);
        zone.count += 1;
        let (mine, all, node) = candidate;
        if again {
            zone.nodes.insert((mine + 1, all + 1, node.clone()));
        } else {
            self.zone_of.remove(&node);
        }
        if !zone.nodes.is_empty() {
            self.order.insert((zone.count, zone_name));
        }
        Some(node)
    }

    /// The zone with the fewest instances; among equals the one whose best node has the fewest of all services.
    fn best_zone(&self) -> Option<String> {
        let fewest = self.order.first()?.0;
        let equals = self.order.iter().take_while(|(count, _)| *count == fewest).take(EQUAL_ZONES_MAX);
        let best = equals.filter_map(|(_, name)| Some((self.zones.get(name)?.nodes.first()?, name))).min()?;
        Some(best.1.clone())
    }
}

/// Equal zones that are compared by load; beyond this the order of names decides, so that a choice stays cheap.
const EQUAL_ZONES_MAX: usize = 64;
