//! One zone at a time: stages are compiled zone by zone, and still two zones could meet. An instance whose node was lost
//! takes its place in a stage with it to another zone, and a newer request begins while the last one's instances change.
//! A rollback does not wait for zones: it must bring the service back as soon as it may.

use crate::nodes::zone_label;
use crate::turn::Turn;
use std::collections::BTreeSet;

/// The zones in which instances are changing now; empty, and allowing everything, where zones do not matter.
#[derive(Debug)]
pub(super) struct OneZone<'a> {
    label: Option<&'a str>,
    busy: BTreeSet<Option<&'a str>>,
}

impl<'a> OneZone<'a> {
    /// Where the service's rollout touches one zone at a time, the zones it touches now.
    pub(super) fn of(turn: &Turn<'a>) -> Self {
        let forward = turn.rollout().is_some_and(|rollout| !rollout.back());
        let spec = turn.spec().filter(|spec| forward && spec.rollout.zone_at_a_time);
        let Some(label) = spec.map(|spec| zone_label(&spec.placement)) else {
            return Self { label: None, busy: BTreeSet::new() };
        };
        let zone = |number| turn.node(number).and_then(|view| view.zone(label));
        let busy = turn.changing().into_iter().map(zone).collect();
        Self { label: Some(label), busy }
    }

    /// Whether a slot may change now: nothing in another zone does.
    pub(super) fn allow(&self, turn: &Turn<'a>, number: u64) -> bool {
        let Some(label) = self.label else { return true };
        let zone = turn.node(number).and_then(|view| view.zone(label));
        self.busy.iter().all(|busy| *busy == zone)
    }

    /// A slot changes from now on.
    pub(super) fn enter(&mut self, turn: &Turn<'a>, number: u64) {
        let Some(label) = self.label else { return };
        self.busy.insert(turn.node(number).and_then(|view| view.zone(label)));
    }

    /// The zones in which instances change, for people.
    pub(super) fn busy(&self) -> Option<String> {
        let names: Vec<&str> = self.busy.iter().map(|zone| zone.unwrap_or("no zone")).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }
}
