//! One service's turn in a decision: what the rooms share. It holds the memory that is being rewritten, what is seen
//! of the service's instances, and what the rooms say: wishes for places, reasons to wait, events, the time to wake.

use crate::budget::Budget;
use crate::input::Input;
use crate::memory::Memory;
use crate::nodes::{NodeView, Nodes};
use crate::outcome::EventDraft;
use crate::progress::{RolloutProgress, ServiceProgress, Slot, StageProgress};
use crate::sight::{Sight, Sightings};
use baton_model::desired::{Release, Service};
use baton_model::event::Severity;
use baton_model::id::{InstanceId, NodeName, ReleaseNumber, ServiceName};
use baton_model::observed::InstanceObserved;
use baton_model::report::{RolloutReport, Subject, Waiting};
use baton_model::spec::{Count, ServiceSpec};
use baton_model::time::{Millis, UnixMs};
use std::collections::{BTreeMap, BTreeSet};

/// A wish for a fresh slot, granted by placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What the fresh slot runs.
    pub(crate) release: ReleaseNumber,
    /// The slot whose place it takes.
    pub(crate) replaces: Option<u64>,
    /// The replaced slot retires at once, since its node is lost.
    pub(crate) lost: bool,
    /// Only this node will do.
    pub(crate) only: Option<NodeName>,
    /// The stage, by index, whose cohort it joins.
    pub(crate) stage: Option<usize>,
}

impl Wish {
    /// A further instance of `release`, anywhere it fits.
    pub(crate) fn further(release: ReleaseNumber) -> Self {
        Self { release, replaces: None, lost: false, only: None, stage: None }
    }
}

/// One service in one decision.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) name: &'a ServiceName,
    pub(crate) service: &'a Service,
    pub(crate) nodes: &'a Nodes<'a>,
    pub(crate) now: UnixMs,
    /// The memory as it will be; its history is left out while rooms work and grows through `ended`.
    pub(crate) memory: Memory<'a>,
    /// Rollouts that ended in this decision.
    pub(crate) ended: Vec<RolloutReport>,
    /// What is seen of each slot, in the order of the slots, looked up once: neither a slot's node nor what that reports changes in a decision.
    sights: Vec<(u64, Sight<'a>)>,
    sightings: &'a Sightings<'a>,
    /// Slots whose node has not confirmed what they should run: what is seen of them may be older.
    unconfirmed: BTreeSet<u64>,
    pub(crate) budget: Budget,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) events: Vec<EventDraft>,
    pub(crate) wake_at: Option<UnixMs>,
}

impl<'a> Turn<'a> {
    /// Opens the turn of a service.
    pub(crate) fn open(
        input: &Input<'a>,
        service: &'a Service,
        sightings: &'a Sightings<'a>,
        stored: Option<&'a ServiceProgress>,
    ) -> Self {
        let memory = Memory::of(stored);
        let name = &service.name;
        let sights = sightings.of(name, &memory.slots);
        let first = InstanceId { service: name.clone(), slot: 0 };
        let last = InstanceId { service: name.clone(), slot: u64::MAX };
        let mut turn = Self {
            name,
            service,
            nodes: sightings.nodes,
            now: input.now,
            memory,
            ended: Vec::new(),
            sights,
            sightings,
            unconfirmed: input.unconfirmed.range(first..=last).map(|id| id.slot).collect(),
            budget: Budget::default(),
            wishes: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            wake_at: None,
        };
        turn.begin_round();
        turn
    }

    /// Forgets what the round before said, keeps what it did, and counts the budget anew from there.
    pub(crate) fn begin_round(&mut self) {
        self.wishes.clear();
        self.waiting.clear();
        self.wake_at = None;
        self.budget = Budget::count(self);
    }

    /// What is seen of a slot.
    pub(crate) fn sight(&self, number: u64) -> Option<&Sight<'a>> {
        let place = self.sights.binary_search_by_key(&number, |(slot, _)| *slot).ok()?;
        self.sights.get(place).map(|(_, sight)| sight)
    }

    /// What was last reported of a slot's instance, whether or not its node is heard now.
    pub(crate) fn seen(&self, number: u64) -> Option<&'a InstanceObserved> {
        self.sight(number)?.seen
    }

    /// The node of a slot; `None` when it is neither wanted nor heard.
    pub(crate) fn node(&self, number: u64) -> Option<&'a NodeView<'a>> {
        self.sight(number)?.node
    }

    /// It is ready, and nothing more is to be said of it.
    pub(crate) fn well(&self, number: u64) -> bool {
        self.sight(number).is_some_and(Sight::well)
    }

    /// The node of a slot speaks to us now.
    pub(crate) fn heard(&self, number: u64) -> bool {
        self.sight(number).is_some_and(|sight| sight.heard)
    }

    /// The instance in a slot.
    pub(crate) fn id(&self, slot: u64) -> InstanceId {
        InstanceId { service: self.name.clone(), slot }
    }

    /// A release of this service.
    pub(crate) fn release(&self, number: ReleaseNumber) -> Option<&'a Release> {
        self.service.releases.get(&number)
    }

    /// What people call a release: its version, or its number when it is no longer kept.
    pub(crate) fn version(&self, number: ReleaseNumber) -> String {
        self.release(number).map_or_else(|| format!("release {number}"), |r| r.version.to_string())
    }

    /// The rollout that has not ended.
    pub(crate) fn rollout(&self) -> Option<&RolloutProgress> {
        self.memory.rollout.as_ref().filter(|r| !r.outcome.is_final())
    }

    /// The release instances are being brought to: the rollout's goal, or the stable one.
    pub(crate) fn goal(&self) -> Option<ReleaseNumber> {
        match self.rollout() {
            Some(rollout) => rollout.goal(),
            None => self.memory.stable,
        }
    }

    /// The specification that holds now: that of the goal, or of the last rollout where a first release failed.
    pub(crate) fn spec(&self) -> Option<&'a ServiceSpec> {
        let goal = self.goal().or_else(|| self.memory.rollout.as_ref().map(|r| r.to))?;
        self.release(goal).map(|r| &r.spec)
    }

    /// Instances that `spec` asks for.
    pub(crate) fn wanted(&self, spec: &ServiceSpec) -> u32 {
        match spec.placement.count {
            Count::Replicas(replicas) => replicas,
            Count::PerNode => self.nodes.wanted_per_node(&spec.placement, |node| self.holds(node)),
        }
    }

    /// Instances that `spec` asks for, whether or not their nodes can be reached now.
    pub(crate) fn promised(&self, spec: &ServiceSpec) -> u32 {
        match spec.placement.count {
            Count::Replicas(replicas) => replicas,
            Count::PerNode => self.nodes.promised_per_node(&spec.placement, |node| self.holds(node)),
        }
    }

    fn holds(&self, node: &NodeName) -> bool {
        self.memory.slots.values().any(|slot| !slot.retiring && slot.node == *node)
    }

    /// Slots that are not retiring.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.memory.slots.iter().filter(|(_, slot)| !slot.retiring).map(|(number, slot)| (*number, slot))
    }

    /// Wishes for the instances that `spec` asks for and that are not there yet. One per node wishes for each node that
    /// may take one by name, and for no other: a node that is silent gets its own when it is back.
    pub(crate) fn missing(&self, spec: &ServiceSpec, release: ReleaseNumber) -> Vec<Wish> {
        let wish = Wish::further(release);
        match spec.placement.count {
            Count::Replicas(replicas) => {
                let live = u32::try_from(self.live().count() - self.replaced().len()).unwrap_or(u32::MAX);
                (live..replicas).map(|_| wish.clone()).collect()
            }
            Count::PerNode => {
                let holders: BTreeSet<&NodeName> = self.live().map(|(_, slot)| &slot.node).collect();
                let nodes = self.nodes.iter().filter(|(_, view)| view.eligible(&spec.placement));
                let empty = nodes.filter(|(name, _)| !holders.contains(name));
                empty.map(|(name, _)| Wish { only: Some(name.clone()), ..wish.clone() }).collect()
            }
        }
    }

    /// Slots whose place another live slot takes.
    pub(crate) fn replaced(&self) -> BTreeSet<u64> {
        let live = self.live().filter_map(|(_, slot)| slot.replaces);
        live.filter(|old| self.memory.slots.get(old).is_some_and(|slot| !slot.retiring)).collect()
    }

    /// The instance was ready when its node was last heard, and the node is heard now.
    pub(crate) fn available(&self, number: u64) -> bool {
        self.sight(number).is_some_and(|sight| sight.ready)
    }

    /// It is available, and nothing that we have asked for takes it out of service: there is no change under way,
    /// or one in which the old process serves until the new one is ready.
    pub(crate) fn secure(&self, number: u64, slot: &Slot) -> bool {
        self.sight(number).is_some_and(|sight| self.secures(sight, number, slot))
    }

    /// The same, of what is seen of the slot.
    pub(crate) fn secures(&self, sight: &Sight<'_>, number: u64, slot: &Slot) -> bool {
        let calm = || self.confirmed(number) && sight.settled(slot);
        let overlap = || sight.seen.is_some_and(|seen| self.overlaps(seen.release, slot.release));
        sight.ready && (calm() || overlap())
    }

    /// Its node knows what it should run, and no change is under way: it runs that, or the change has failed and nothing
    /// more is tried.
    pub(crate) fn settled(&self, number: u64, slot: &Slot) -> bool {
        self.confirmed(number) && self.sight(number).is_some_and(|sight| sight.settled(slot))
    }

    /// What is seen of a slot is not older than what it was last given.
    pub(crate) fn confirmed(&self, number: u64) -> bool {
        !self.unconfirmed.contains(&number)
    }

    /// A change between these releases keeps the old process serving until the new one is ready. A fixed port makes
    /// that impossible; a release that is no longer kept may have had one.
    pub(crate) fn overlaps(&self, from: ReleaseNumber, to: ReleaseNumber) -> bool {
        [from, to].iter().all(|number| {
            let ports = self.release(*number).map(|release| &release.spec.ports);
            ports.is_some_and(|ports| !ports.values().any(|port| port.kind.is_exclusive()))
        })
    }

    /// Gives a slot a release, or another attempt at the one it has.
    pub(crate) fn assign(&mut self, number: u64, release: ReleaseNumber) {
        let now = self.now;
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.release = release;
            slot.attempt += 1;
            slot.assigned_at = now;
            self.unconfirmed.insert(number);
        }
    }

    /// Takes a slot out of its node's plan.
    pub(crate) fn retire(&mut self, number: u64) {
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.retiring = true;
        }
    }

    /// Grants a wish: a fresh slot on `node`, which takes the place of the one it replaces in every stage.
    pub(crate) fn grant(&mut self, wish: &Wish, node: &NodeName) {
        self.memory.last_slot += 1;
        let number = self.memory.last_slot;
        let slot = Slot {
            node: node.clone(),
            release: wish.release,
            attempt: 1,
            assigned_at: self.now,
            retiring: false,
            replaces: wish.replaces.filter(|_| !wish.lost),
        };
        self.memory.slots.insert(number, slot);
        // A fresh number is above all others, so the order holds.
        self.sights.push((number, self.sightings.one(self.name, number, node)));
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

    /// The stage at `index` of the current rollout.
    pub(crate) fn stage_mut(&mut self, index: usize) -> Option<&mut StageProgress> {
        self.memory.rollout.as_mut()?.stages.get_mut(index)
    }

    /// An event about this service, for the caller to complete and push.
    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: String) -> EventDraft {
        let service = Some(self.name.clone());
        EventDraft { severity, kind, message, service, node: None, instance: None, fields: BTreeMap::new() }
    }

    /// Records an event about the rollout or the service as a whole.
    pub(crate) fn tell(&mut self, severity: Severity, kind: &'static str, message: String) {
        let mut event = self.event(severity, kind, message);
        if let Some(rollout) = &self.memory.rollout {
            event.fields.insert("rollout".to_owned(), rollout.id.to_string());
        }
        self.events.push(event);
    }

    /// Says why something waits, and wakes when it ends by itself.
    pub(crate) fn wait(&mut self, subject: Subject, gate: &str, reason: String, until: Option<UnixMs>) {
        self.wake(until);
        self.waiting.push(Waiting { subject, gate: gate.to_owned(), reason, until });
    }

    /// Decides again at this time at the latest.
    pub(crate) fn wake(&mut self, at: Option<UnixMs>) {
        if let Some(at) = at.filter(|at| *at > self.now) {
            self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
        }
    }

    /// How long a silent node's instances wait for it.
    pub(crate) fn lost_after(&self) -> Millis {
        self.spec().map_or(LOST_AFTER_UNKNOWN, |spec| spec.placement.lost_after)
    }
}

/// The grace of a silent node where no release that would say so is left.
pub(crate) const LOST_AFTER_UNKNOWN: Millis = Millis::secs(60);

impl RolloutProgress {
    /// The release that its stages bring instances to; `None` for going back from a first release.
    pub(crate) fn goal(&self) -> Option<ReleaseNumber> {
        if self.back() { self.from } else { Some(self.to) }
    }

    /// Whether it goes back.
    pub(crate) fn back(&self) -> bool {
        self.turned_at.is_some()
    }

    /// The index of the stage that is under way or next.
    pub(crate) fn current(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.ended_at.is_none())
    }
}
