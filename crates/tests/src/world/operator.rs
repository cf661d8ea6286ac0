//! Operators: they deploy, pause, resume, promote, abort, undo, retry, remove services, cordon, drain and remove nodes,
//! at random, and remember what they were told is done.

use super::World;
use super::invariants;
use super::mutation::Mutation;
use super::queue::Happening;
use baton_engine::progress::RolloutProgress;
use baton_model::desired::{Desired, Release, Service};
use baton_model::id::{NodeName, ReleaseNumber, RolloutId, ServiceName};
use baton_model::rollout::{RolloutControl, RolloutKind, RolloutRequest};

/// What an operator may do.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Deploy,
    Undo,
    Pause,
    Resume,
    Promote,
    PromoteTo,
    Abort,
    Retry,
    Cordon,
    Drain,
    Restore,
    RemoveService,
    RemoveNode,
}

/// Deploys are the most frequent; what undoes a hold is at least as frequent as what makes one.
const DEEDS: [Deed; 24] = [
    Deed::Deploy,
    Deed::Deploy,
    Deed::Deploy,
    Deed::Deploy,
    Deed::Deploy,
    Deed::Deploy,
    Deed::Undo,
    Deed::Pause,
    Deed::Resume,
    Deed::Resume,
    Deed::Promote,
    Deed::Promote,
    Deed::PromoteTo,
    Deed::Abort,
    Deed::Retry,
    Deed::Retry,
    Deed::Cordon,
    Deed::Drain,
    Deed::Drain,
    Deed::Restore,
    Deed::Restore,
    Deed::Restore,
    Deed::RemoveService,
    Deed::RemoveNode,
];

impl World {
    /// The first releases: good ones, most of the time.
    pub(crate) fn first_deploys(&mut self) {
        let names: Vec<ServiceName> = self.store.desired.services.keys().cloned().collect();
        for name in names {
            let good = self.random.operator.percent(85);
            self.deploy(&name, good);
        }
    }

    /// One deed, and the time of the next.
    pub(crate) fn operator_acts(&mut self) {
        if self.healed {
            return;
        }
        let next = self.now + self.random.operator.between(2000, 45_000);
        self.queue.push(next, Happening::OperatorActs);
        let names: Vec<ServiceName> = self.store.desired.services.keys().cloned().collect();
        let name = self.random.operator.pick(&names).clone();
        let nodes: Vec<NodeName> = self.nodes.keys().cloned().collect();
        let node = self.random.operator.pick(&nodes).clone();
        let deed = *self.random.operator.pick(&DEEDS);
        self.trace.line(self.now, &format!("operator: {deed:?} {name} {node}"));
        match deed {
            Deed::Deploy => self.deploy(&name, false),
            Deed::Undo => self.undo(&name),
            Deed::Pause => self.control(&name, |control| control.paused = true),
            Deed::Resume => self.control(&name, |control| control.paused = false),
            Deed::Promote => self.control(&name, |control| control.approved_through += 2),
            Deed::PromoteTo => self.promote_to(&name),
            Deed::Abort => self.control(&name, |control| control.abort = true),
            Deed::Retry => self.control(&name, |control| control.retry += 1),
            Deed::Cordon => self.change_node(&node, |node| node.cordoned = true),
            Deed::Drain => self.change_node(&node, |node| node.draining = true),
            Deed::Restore => self.restore_nodes(),
            Deed::RemoveService => self.remove_service(&name),
            Deed::RemoveNode => self.remove_node(&node),
        }
        self.wake_coordinator();
    }

    /// Every node may be used again; those that were removed join anew.
    pub(crate) fn restore_nodes(&mut self) {
        self.store.desired.nodes.append(&mut self.removed_nodes);
        for node in self.store.desired.nodes.values_mut() {
            node.cordoned = false;
            node.draining = false;
        }
    }

    /// A service is to stop everywhere and be forgotten; a later deploy makes it anew.
    fn remove_service(&mut self, name: &ServiceName) {
        self.ledger.removed.insert(name.clone());
        self.change_service(name, |service| service.removed = true);
    }

    /// A node that is drained and empty is removed, as the API allows it. Its agent does not know.
    fn remove_node(&mut self, name: &NodeName) {
        let empty = |name: &NodeName| {
            let mut slots = self.store.progress.values().flat_map(|record| record.value.slots.values());
            slots.all(|slot| slot.node != *name)
        };
        let node = self.store.desired.nodes.get(name).filter(|node| node.draining && empty(name)).cloned();
        if let Some(node) = node {
            self.removed_nodes.insert(name.clone(), node);
            self.write_desired(|desired| drop(desired.nodes.remove(name)));
        }
    }

    fn deploy(&mut self, name: &ServiceName, good: bool) {
        let Some(release) = self.new_release(name, good) else { return };
        let number = release.number;
        self.request(name, number, RolloutKind::Deploy, Some(release));
    }

    fn undo(&mut self, name: &ServiceName) {
        let stable = self.store.progress.get(name).and_then(|record| record.value.stable);
        let Some(service) = self.store.desired.services.get(name).filter(|service| !service.removed) else {
            return;
        };
        let asked = service.request.as_ref().map(|request| request.to);
        let before = service.releases.keys().copied().rfind(|number| Some(*number) != asked);
        if let Some(to) = stable.filter(|stable| Some(*stable) != asked).or(before) {
            self.request(name, to, RolloutKind::Undo, None);
        }
    }

    fn request(
        &mut self,
        name: &ServiceName,
        to: ReleaseNumber,
        kind: RolloutKind,
        release: Option<Release>,
    ) {
        let requested_at = self.unix_now();
        self.change_service(name, |service| {
            service.releases.extend(release.map(|release| (to, release)));
            let id = service.request.as_ref().map_or(RolloutId(1), |request| request.id.next());
            service.request =
                Some(RolloutRequest { id, to, kind, requested_at, requested_by: "sim".to_owned() });
            service.control = RolloutControl { rollout: id, ..RolloutControl::default() };
            service.removed = false;
        });
    }

    /// One of the stages that are still ahead is to be reached at once, as the API allows it.
    fn promote_to(&mut self, name: &ServiceName) {
        let request = self.store.desired.services.get(name).and_then(|service| service.request.as_ref());
        let rollout = self.store.progress.get(name).and_then(|record| record.value.rollout.as_ref());
        let current = |rollout: &&RolloutProgress| {
            let asked = request.is_some_and(|request| request.id == rollout.id);
            asked && !rollout.outcome.is_final() && rollout.turned_at.is_none()
        };
        let stages = rollout.filter(current).map(|rollout| rollout.stages.iter());
        let ahead = (1_u32..).zip(stages.into_iter().flatten()).filter(|(_, it)| it.started_at.is_none());
        let mut ahead: Vec<u32> = ahead.map(|(number, _)| number).collect();
        if let (true, Some(stages)) = (ahead.is_empty(), rollout.filter(current).map(|it| it.stages.len())) {
            // The last one has begun: it may be ended without its bake and analysis.
            ahead.extend(u32::try_from(stages + 1));
        }
        // Which one is not drawn, so that the seeds that once failed go on as they did.
        let place = usize::try_from(self.now).unwrap_or(0).checked_rem(ahead.len());
        if let Some(to) = place.map(|place| ahead[place]) {
            self.control(name, |control| control.promoted_through = to);
        }
    }

    fn control(&mut self, name: &ServiceName, change: impl FnOnce(&mut RolloutControl)) {
        self.change_service(name, |service| {
            if let Some(request) = service.request.as_ref().filter(|_| !service.removed) {
                if service.control.rollout != request.id {
                    service.control = RolloutControl { rollout: request.id, ..RolloutControl::default() };
                }
                change(&mut service.control);
            }
        });
    }

    fn change_service(&mut self, name: &ServiceName, change: impl FnOnce(&mut Service)) {
        self.write_desired(|desired| {
            if let Some(service) = desired.services.get_mut(name) {
                change(service);
            }
        });
    }

    fn change_node(&mut self, name: &NodeName, change: impl FnOnce(&mut baton_model::desired::Node)) {
        self.write_desired(|desired| {
            if let Some(node) = desired.nodes.get_mut(name) {
                change(node);
            }
        });
    }

    /// A write by the API: durable, then told. The store may refuse it; then the operator is told so.
    fn write_desired(&mut self, change: impl FnOnce(&mut Desired)) {
        let verdict = invariants::acked_is_durable(&self.ledger, &self.store);
        self.settle(verdict);
        let mut wanted = self.store.desired.clone();
        change(&mut wanted);
        let fails = self.faults_on && self.random.store.percent(5);
        if !fails {
            self.store.desired.clone_from(&wanted);
        }
        if !fails || self.options.mutation == Some(Mutation::ToldBeforeDurable) {
            self.ledger_told(&wanted);
        }
    }
}
