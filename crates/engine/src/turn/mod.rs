//! One service's turn in a decision: what the rooms share. It holds the memory that is being rewritten, what is seen
//! of the service's instances, and what the rooms say: wishes for places ([`grant`]), reasons to wait, events, the time to
//! wake ([`say`]).

mod grant;
mod route;
mod say;
mod wish;

use crate::budget::{Budget, Counted};
use crate::instance::needs_no_process;
use crate::memory::Memory;
use crate::nodes::{NodeView, Nodes};
use crate::outcome::EventDraft;
use crate::progress::{RolloutProgress, ServiceProgress, Slot, StageProgress};
use crate::sight::{Sight, Sightings};
use baton_model::desired::{Release, Service};
use baton_model::id::{InstanceId, NodeName, ReleaseNumber, ServiceName};
use baton_model::observed::InstanceObserved;
use baton_model::report::{RolloutReport, Waiting};
use baton_model::spec::{Count, ServiceSpec};
use baton_model::time::{Millis, UnixMs};
pub(crate) use wish::Wish;

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
    pub(crate) sightings: &'a Sightings<'a>,
    pub(crate) budget: Budget,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) events: Vec<EventDraft>,
    pub(crate) wake_at: Option<UnixMs>,
}

impl<'a> Turn<'a> {
    /// Opens the turn of a service.
    pub(crate) fn open(
        sightings: &'a Sightings<'a>,
        service: &'a Service,
        stored: Option<&'a ServiceProgress>,
    ) -> Self {
        let memory = Memory::of(stored);
        let name = &service.name;
        let sights = sightings.of(name, &memory.slots);
        let mut turn = Self {
            name,
            service,
            nodes: &sightings.nodes,
            now: sightings.input.now,
            memory,
            ended: Vec::new(),
            sights,
            sightings,
            budget: Budget::default(),
            wishes: Vec::new(),
            waiting: Vec::new(),
            events: Vec::new(),
            wake_at: None,
        };
        turn.begin_round();
        turn
    }

    /// The memory as it is stored.
    pub(crate) fn stored(&self) -> Option<&'a ServiceProgress> {
        self.sightings.input.progress.get(self.name)
    }

    /// Forgets what the round before said, keeps what it did, and counts the budget anew from there.
    pub(crate) fn begin_round(&mut self) {
        self.memory.mark();
        self.wishes.clear();
        self.waiting.clear();
        self.wake_at = None;
        self.ask_gateways();
        self.budget = self.count();
    }

    /// The budget, from what is remembered and seen.
    fn count(&self) -> Budget {
        let Some(spec) = self.spec() else { return Budget::default() };
        let mut counted = Counted::default();
        for (_, slot, sight) in self.live_seen().filter(|(_, slot, _)| !slot.beside) {
            counted.ready += u32::from(sight.ready);
            counted.secure += u32::from(self.secures(sight, slot));
            counted.reachable += u32::from(sight.heard);
        }
        Budget::of(self.wanted(spec), self.floor(spec), spec.rollout.max_unavailable, counted)
    }

    /// The least that our own actions keep ready. While two releases meet it is the lower of theirs; a first release
    /// promises nothing yet.
    fn floor(&self, spec: &ServiceSpec) -> u32 {
        // Of what is promised: where one per node is wanted, a node that is lost still counts, or each fault would lower
        // what we must leave standing.
        let floor = |spec: &ServiceSpec| spec.min_available.ceil_of(self.promised(spec));
        match self.rollout() {
            None if self.memory.stable.is_some() => floor(spec),
            None => 0,
            Some(rollout) => {
                let other = if rollout.back() { Some(rollout.to) } else { rollout.from };
                let other = rollout.from.and(other).and_then(|number| self.release(number));
                other.map_or(0, |release| floor(spec).min(floor(&release.spec)))
            }
        }
    }

    /// What is seen of a slot.
    pub(crate) fn sight(&self, number: u64) -> Option<&Sight<'a>> {
        self.place(number).ok().map(|place| &self.sights[place].1)
    }

    fn place(&self, number: u64) -> Result<usize, usize> {
        self.sights.binary_search_by_key(&number, |(slot, _)| *slot)
    }

    /// What was last reported of a slot's instance, whether or not its node is heard now.
    pub(crate) fn seen(&self, number: u64) -> Option<&'a InstanceObserved> {
        self.sight(number)?.seen
    }

    /// The node of a slot; `None` when it is neither wanted nor heard.
    pub(crate) fn node(&self, number: u64) -> Option<&'a NodeView<'a>> {
        self.sight(number)?.node
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

    /// All slots, with what is seen of each: one walk over both, where looking each up would cost more.
    pub(crate) fn slots_seen(&self) -> impl Iterator<Item = (u64, &Slot, &Sight<'a>)> {
        let mut sights = self.sights.iter();
        self.memory.slots.iter().filter_map(move |(number, slot)| {
            let (_, sight) = sights.find(|(seen, _)| seen == number)?;
            Some((*number, slot, sight))
        })
    }

    /// Slots that are not retiring, with what is seen of each.
    pub(crate) fn live_seen(&self) -> impl Iterator<Item = (u64, &Slot, &Sight<'a>)> {
        self.slots_seen().filter(|(_, slot, _)| !slot.retiring)
    }

    /// Slots of the set that serves, or is to serve.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.live().filter(|(_, slot)| !slot.beside)
    }

    /// Slots of the set that stands beside it.
    pub(crate) fn beside(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.live().filter(|(_, slot)| slot.beside)
    }

    /// Slots that are not retiring, of both sets.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.memory.slots.iter().filter(|(_, slot)| !slot.retiring).map(|(number, slot)| (*number, slot))
    }

    /// The instance was ready when its node was last heard, the node is heard now and, where the instance is routed, every
    /// live gateway has acknowledged it.
    pub(crate) fn available(&self, number: u64) -> bool {
        self.sight(number).is_some_and(|sight| sight.ready)
    }

    /// It is available, and nothing that we have asked for takes it out of service: there is no change under way,
    /// or one in which the old process serves until the new one is ready.
    pub(crate) fn secure(&self, number: u64, slot: &Slot) -> bool {
        self.sight(number).is_some_and(|sight| self.secures(sight, slot))
    }

    /// The same, of what is seen of the slot.
    pub(crate) fn secures(&self, sight: &Sight<'_>, slot: &Slot) -> bool {
        let overlap = || sight.seen.is_some_and(|seen| self.overlaps(seen.release, slot.release));
        sight.ready && (sight.settled(slot) || overlap())
    }

    /// It is out of service already, as surely as can be known, and costs nothing to change; what stands beside the set that
    /// serves is. What was ready when its node last spoke, and has not confirmed its latest plan, does not count as
    /// secure, and may well serve still; so may what some gateways know and others do not.
    pub(crate) fn spent(&self, number: u64, slot: &Slot) -> bool {
        slot.beside
            || self.sight(number).is_none_or(|sight| {
                let unknown = sight.serves && !(sight.ready && sight.confirmed);
                !unknown && !self.secures(sight, slot)
            })
    }

    /// The slots that are out of their rest because of us, as far as their nodes are heard: a change of release is under
    /// way there, or done and not yet healthy for the first time.
    pub(crate) fn changing(&self) -> Vec<u64> {
        let stage = self.rollout().and_then(|rollout| Some((rollout.goal()?, rollout)));
        let stage = stage.and_then(|(goal, rollout)| Some((goal, &rollout.stages[rollout.current()?])));
        let unproven = |number: u64, slot: &Slot| {
            stage.is_some_and(|(goal, stage)| {
                let counted = stage.healthy.contains(&number) || stage.failed.contains_key(&number);
                slot.release == goal
                    && stage.started_at.is_some()
                    && stage.cohort.contains(&number)
                    && !counted
            })
        };
        let there = self.live_seen().filter(|(_, _, sight)| sight.heard && sight.seen.is_some());
        let changing = there.filter(|(number, slot, sight)| !sight.settled(slot) || unproven(*number, slot));
        changing.map(|(number, _, _)| number).collect()
    }

    /// A change between these releases keeps the old process serving until the new one is ready. A fixed port makes
    /// that impossible, and so does a change of files alone, which the serving process itself takes in; a release that
    /// is no longer kept may have had either.
    pub(crate) fn overlaps(&self, from: ReleaseNumber, to: ReleaseNumber) -> bool {
        let (Some(old), Some(new)) = (self.release(from), self.release(to)) else { return false };
        !exclusive(old) && !exclusive(new) && !in_place(old, new)
    }

    /// A change between these releases stops the old process before the new one is started.
    pub(crate) fn stops(&self, from: ReleaseNumber, to: ReleaseNumber) -> bool {
        let (Some(old), Some(new)) = (self.release(from), self.release(to)) else { return from != to };
        from != to && (exclusive(old) || exclusive(new)) && !in_place(old, new)
    }

    /// Gives a slot a release, or another attempt at the one it has.
    pub(crate) fn assign(&mut self, number: u64, release: ReleaseNumber) {
        let now = self.now;
        self.hold_back(number, release);
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.release = release;
            slot.attempt += 1;
            slot.assigned_at = now;
        }
        if let Ok(place) = self.place(number) {
            self.sights[place].1.confirmed = false;
        }
    }

    /// Takes a slot out of its node's plan; where it is routed, once it has left the gateways.
    pub(crate) fn retire(&mut self, number: u64) {
        if let Some(slot) = self.memory.slots.get_mut(&number) {
            slot.retiring = true;
        }
    }

    /// The stage at `index` of the current rollout.
    pub(crate) fn stage_mut(&mut self, index: usize) -> Option<&mut StageProgress> {
        self.memory.rollout.as_mut()?.stages.get_mut(index)
    }

    /// How long a silent node's instances wait for it.
    pub(crate) fn lost_after(&self) -> Millis {
        self.spec().map_or(LOST_AFTER_UNKNOWN, |spec| spec.placement.lost_after)
    }
}

fn exclusive(release: &Release) -> bool {
    release.spec.ports.values().any(|port| port.kind.is_exclusive())
}

/// Nothing but files differs, and the process that serves takes them in.
fn in_place(old: &Release, new: &Release) -> bool {
    old.artifact == new.artifact && needs_no_process(&old.spec, &new.spec)
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
