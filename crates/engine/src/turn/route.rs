//! What the rooms ask about a service's route: is a run known to the gateways, must it leave them before it is stopped?

use super::Turn;
use crate::progress::{RouteProgress, Told};
use baton_model::id::{InstanceId, PortName, ReleaseNumber, RouteRevision, RunNumber, ServiceName};
use baton_model::route::{Upstream, UpstreamId};
use baton_model::spec::PortKind;
use std::collections::BTreeMap;

impl RouteProgress {
    /// Something is routed, or was and is not wholly out of the gateways.
    pub(crate) fn in_use(&self) -> bool {
        self.current.is_some() || !self.left.is_empty()
    }

    /// The run of a slot that the route names.
    pub(crate) fn of_slot(&self, service: &ServiceName, slot: u64) -> Option<(&UpstreamId, &Upstream)> {
        let first = first_of(service, slot);
        let (id, upstream) = self.current.as_ref()?.upstreams.range(first..).next()?;
        (id.instance.slot == slot && id.instance.service == *service).then_some((id, upstream))
    }

    /// Whether gateways may send requests to any run of this slot, or have some in flight.
    pub(crate) fn holds(&self, service: &ServiceName, slot: u64) -> bool {
        let left = || self.left.range(first_of(service, slot)..).next();
        let leaving = left().is_some_and(|(id, _)| id.instance.slot == slot);
        leaving || self.of_slot(service, slot).is_some()
    }
}

/// What comes before all runs of a slot.
fn first_of(service: &ServiceName, slot: u64) -> UpstreamId {
    UpstreamId { instance: InstanceId { service: service.clone(), slot }, run: RunNumber(0) }
}

impl Turn<'_> {
    /// Asks of every slot anew whether the gateways know what it runs: the route may have changed since the round before.
    pub(super) fn ask_gateways(&mut self) {
        let route = &self.memory.route;
        let Some(current) = &route.current else {
            self.sights.iter_mut().for_each(|(_, sight)| sight.ready = sight.serves);
            return;
        };
        let served = self.sightings.gateways.served(self.name);
        let routable: BTreeMap<ReleaseNumber, bool> = self
            .service
            .releases
            .iter()
            .map(|(number, release)| (*number, release.spec.ports.contains_key(&current.spec.port)))
            .collect();
        // All are in the order of the slots, and a route names one run of each at most; each that it names has entered.
        let mut entered = route.entered.iter().zip(current.upstreams.values()).peekable();
        for (number, sight) in &mut self.sights {
            while entered.next_if(|((id, _), _)| id.instance.slot < *number).is_some() {}
            let named = entered.peek().filter(|((id, _), _)| id.instance.slot == *number);
            let Some(seen) = sight.seen.filter(|_| sight.serves) else {
                sight.ready = false;
                continue;
            };
            // A change of files alone makes the same run another release.
            let known = named.is_some_and(|((id, revision), upstream)| {
                (id.run, upstream.release) == (seen.run, seen.release)
                    && served.is_none_or(|served| served >= **revision)
            });
            // A release without the port that is routed serves as if there were no gateway.
            sight.ready = known || routable.get(&seen.release) == Some(&false);
        }
    }

    /// The revision since which the route names what a slot runs.
    pub(crate) fn entered(&self, number: u64) -> Option<RouteRevision> {
        let (id, _) = self.memory.route.of_slot(self.name, number)?;
        self.memory.route.entered.get(id).copied()
    }

    /// The port by which gateways reach a run of this release: as its agent reports it, or as it is fixed.
    pub(crate) fn port(
        &self,
        release: ReleaseNumber,
        reported: &BTreeMap<String, u16>,
        name: &PortName,
    ) -> Option<u16> {
        let kind = &self.release(release)?.spec.ports.get(name)?.kind;
        match (reported.get(name.as_str()), kind) {
            (Some(port), _) => Some(*port),
            (None, PortKind::Socket { port } | PortKind::Fixed { port }) => Some(*port),
            (None, PortKind::Dynamic | PortKind::Udp { .. } | PortKind::Unix { .. }) => None,
        }
    }

    /// Before a slot is given a release for which its run is stopped, that run leaves the gateways; until then its node
    /// is told what it was told so far.
    pub(super) fn hold_back(&mut self, number: u64, release: ReleaseNumber) {
        let held = self.memory.route.holds(self.name, number);
        let Some(slot) = self.memory.slots.get(&number).filter(|_| held) else { return };
        let told = slot.told.unwrap_or(Told { release: slot.release, attempt: slot.attempt });
        let serving = self.seen(number).map_or(told.release, |seen| seen.release);
        let told = Some(told).filter(|_| self.stops(serving, release));
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.told = told;
        }
    }
}
