//! What is missing and wished for, and what becomes of a wish that placement grants.

use super::{Turn, Wish};
use crate::progress::Slot;
use baton_model::event::Severity;
use baton_model::id::{NodeName, ReleaseNumber, RunNumber};
use baton_model::spec::{Count, ServiceSpec};
use std::collections::BTreeSet;

impl Turn<'_> {
    /// Wishes for the instances that `spec` asks for and that are not there yet, of the set that serves or of the one
    /// beside it. One per node wishes for each node that may take one by name, and for no other: a node that is silent gets
    /// its own when it is back.
    pub(crate) fn missing(&self, spec: &ServiceSpec, release: ReleaseNumber, beside: bool) -> Vec<Wish> {
        let wish = Wish { beside, ..Wish::further(release) };
        let set = || self.live().filter(|(_, slot)| slot.beside == beside);
        match spec.placement.count {
            Count::Replicas(replicas) => {
                let live = u32::try_from(self.staying(beside)).unwrap_or(u32::MAX);
                (live..replicas).map(|_| wish.clone()).collect()
            }
            Count::PerNode => {
                let holders: BTreeSet<&NodeName> = set().map(|(_, slot)| &slot.node).collect();
                let nodes = self.nodes.iter().filter(|view| view.eligible(&spec.placement));
                let empty = nodes.filter(|view| !holders.contains(view.name));
                empty.map(|view| Wish { only: Some(view.place), ..wish.clone() }).collect()
            }
        }
    }

    /// How many slots of a set are to stay: of one whose place another takes, only the other counts.
    pub(crate) fn staying(&self, beside: bool) -> usize {
        let replaced = self.replaced();
        let set = self.live().filter(|(_, slot)| slot.beside == beside);
        set.filter(|(number, _)| !replaced.contains(number)).count()
    }

    /// Slots whose place another live slot takes.
    pub(crate) fn replaced(&self) -> BTreeSet<u64> {
        let live = self.live().filter_map(|(_, slot)| slot.replaces);
        live.filter(|old| self.memory.slots.get(old).is_some_and(|slot| !slot.retiring)).collect()
    }

    /// Grants a wish: a fresh slot on the node at `place`, which takes the place of the one it replaces in every stage.
    pub(crate) fn grant(&mut self, wish: &Wish, place: usize) {
        let view = self.nodes.at(place);
        let node = view.name;
        let replaced = wish.replaces.and_then(|old| self.memory.slots.get(&old));
        let beside = replaced.map_or(wish.beside, |old| old.beside);
        self.memory.last_slot += 1;
        let number = self.memory.last_slot;
        let slot = Slot {
            node: node.clone(),
            release: wish.release,
            attempt: 1,
            assigned_at: self.now,
            retiring: false,
            replaces: wish.replaces.filter(|_| !wish.lost),
            beside,
            released: RunNumber(0),
            told: None,
        };
        self.memory.slots.insert(number, slot);
        // A fresh number is above all others, so the order holds.
        self.sights.push((number, self.sightings.one(self.name, number, view)));
        if let Some(stage) = wish.stage.and_then(|index| self.stage_mut(index)) {
            stage.cohort.insert(number);
        }
        if let Some(old) = wish.replaces {
            self.replace_in_stages(old, number);
        }
        match wish.replaces {
            Some(old) if wish.lost => self.retire(old),
            Some(_) | None => {}
        }
        self.note_placed(wish, number, node);
    }

    fn replace_in_stages(&mut self, old: u64, fresh: u64) {
        let Some(rollout) = self.memory.rollout.as_mut().filter(|r| !r.outcome.is_final()) else { return };
        for stage in &mut rollout.stages {
            if stage.cohort.remove(&old) {
                stage.cohort.insert(fresh);
                stage.failed.remove(&old);
                stage.healthy.remove(&old);
                stage.again.remove(&old);
            }
        }
    }

    fn note_placed(&mut self, wish: &Wish, number: u64, node: &NodeName) {
        let version = self.version(wish.release);
        let id = self.id(number);
        let mut event = match wish.replaces.and_then(|old| Some((old, self.memory.slots.get(&old)?))) {
            Some((old, slot)) => {
                let why = if wish.lost { "is lost" } else { "is to be empty" };
                let text = format!(
                    "{id} ({version}) is placed on {node} and takes the place of {}: node {} {why}",
                    self.id(old),
                    slot.node
                );
                let mut event = self.event(Severity::Warning, "instance-moved", text);
                event.fields.insert("replaces".to_owned(), self.id(old).to_string());
                event.fields.insert("from-node".to_owned(), slot.node.to_string());
                event
            }
            None => {
                self.event(Severity::Info, "instance-placed", format!("{id} ({version}) is placed on {node}"))
            }
        };
        event.node = Some(node.clone());
        event.instance = Some(id);
        self.events.push(event);
    }
}
