//! What is seen of the instances, indexed once for a decision and its audit: agents report node by node, a decision asks service by
//! service. What every room asks of every slot is answered here, so that it is looked up once and not in each round.

use crate::gateways::Gateways;
use crate::input::Input;
use crate::nodes::{NodeView, Nodes};
use crate::progress::Slot;
use baton_model::id::{InstanceId, NodeName, ReleaseNumber, ServiceName};
use baton_model::observed::{InstanceObserved, InstanceState, SwapPhase};
use std::collections::BTreeMap;

/// A slot as a decision sees it: its node, and what that node last said of the instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    /// `None` when the node is neither wanted nor heard.
    pub(crate) node: Option<&'a NodeView<'a>>,
    /// What was last reported, whether or not the node is heard now; `None` when the node does not report it.
    pub(crate) seen: Option<&'a InstanceObserved>,
    /// The node is heard now.
    pub(crate) heard: bool,
    /// The node is heard now, and says that the instance is ready.
    pub(crate) serves: bool,
    /// It serves and, where it is routed, every live gateway knows: it is available.
    pub(crate) ready: bool,
    /// What is seen is not older than what the slot was last given.
    pub(crate) confirmed: bool,
    /// The release it serves, where nothing more is to be said: no change, under way or failed, and no crash loop.
    steady: Option<ReleaseNumber>,
}

impl<'a> Sight<'a> {
    fn of(node: Option<&'a NodeView<'a>>, seen: Option<&'a InstanceObserved>) -> Self {
        let heard = node.is_some_and(NodeView::heard);
        let serves = heard && seen.is_some_and(|seen| seen.state == InstanceState::Ready);
        let steady = seen.filter(|seen| seen.swap.is_none() && !seen.crash_loop).map(|seen| seen.release);
        Self { node, seen, heard, serves, ready: serves, confirmed: true, steady }
    }

    /// Ready, and nothing more is to be said of it.
    pub(crate) fn well(&self) -> bool {
        self.ready && self.steady.is_some()
    }

    /// Its node knows what it should run, and no change is under way: it runs that, or the change has failed and nothing
    /// more is tried.
    pub(crate) fn settled(&self, slot: &Slot) -> bool {
        self.confirmed
            && match self.steady {
                Some(release) => release == slot.release,
                None => self.seen.is_some_and(|seen| settled(seen, slot)),
            }
    }
}

fn settled(seen: &InstanceObserved, slot: &Slot) -> bool {
    match &seen.swap {
        None => seen.release == slot.release,
        Some(swap) => match swap.phase {
            SwapPhase::Failed => swap.to == slot.release && swap.attempt == slot.attempt,
            SwapPhase::DrainingOld => seen.release == slot.release,
            SwapPhase::Staging
            | SwapPhase::StoppingOld
            | SwapPhase::Confirming
            | SwapPhase::Refreshing
            | SwapPhase::Reverting => false,
        },
    }
}

/// Everything that is seen, by node and by service: made once, for a decision and the audit of its outcome.
#[derive(Debug)]
pub(crate) struct Sightings<'a> {
    /// What it was made from.
    pub(crate) input: Input<'a>,
    /// The nodes it was seen on.
    pub(crate) nodes: Nodes<'a>,
    /// Those who send requests to what is seen.
    pub(crate) gateways: Gateways<'a>,
    /// Of each service what is reported, in the order of the slots; a slot more than once where several nodes report it.
    services: BTreeMap<&'a ServiceName, Vec<Reported<'a>>>,
}

/// What one node reports of one slot.
#[derive(Clone, Copy, Debug)]
struct Reported<'a> {
    slot: u64,
    /// The place of the node.
    place: usize,
    seen: &'a InstanceObserved,
}

impl<'a> Sightings<'a> {
    /// Indexes what the nodes report.
    pub(crate) fn index(input: &Input<'a>) -> Self {
        let nodes = Nodes::index(input);
        let mut services: BTreeMap<&'a ServiceName, Vec<Reported<'a>>> = BTreeMap::new();
        for view in nodes.iter() {
            let instances = view.observed.iter().flat_map(|node| &node.instances);
            for (id, seen) in instances {
                let reported = Reported { slot: id.slot, place: view.place, seen };
                services.entry(&id.service).or_default().push(reported);
            }
        }
        for reported in services.values_mut() {
            reported.sort_unstable_by_key(|reported| (reported.slot, reported.place));
        }
        Self { input: *input, nodes, gateways: Gateways::index(input), services }
    }

    /// What is seen of one slot of a service on this node.
    pub(crate) fn one(&'a self, service: &ServiceName, number: u64, view: &'a NodeView<'a>) -> Sight<'a> {
        let reported = self.reported(service);
        let here = reported.binary_search_by_key(&(number, view.place), |of| (of.slot, of.place));
        Sight::of(Some(view), here.ok().map(|index| reported[index].seen))
    }

    /// What is seen of the slots of a service, each on its own node, in the order of the slots.
    pub(crate) fn of(&'a self, service: &ServiceName, slots: &BTreeMap<u64, Slot>) -> Vec<(u64, Sight<'a>)> {
        let mut left = self.reported(service);
        // Both are in the order of the slots, so that one walk over both finds them all.
        let sight = |(number, slot): (&u64, &Slot)| {
            while let [earlier, rest @ ..] = left
                && earlier.slot < *number
            {
                left = rest;
            }
            (*number, self.among(left, *number, &slot.node))
        };
        let mut sights: Vec<(u64, Sight<'a>)> = slots.iter().map(sight).collect();
        if !self.input.unconfirmed.is_empty() {
            let id = |slot| InstanceId { service: service.clone(), slot };
            for id in self.input.unconfirmed.range(id(0)..=id(u64::MAX)) {
                if let Ok(place) = sights.binary_search_by_key(&id.slot, |(slot, _)| *slot) {
                    sights[place].1.confirmed = false;
                }
            }
        }
        sights
    }

    fn reported(&self, service: &ServiceName) -> &[Reported<'a>] {
        self.services.get(service).map_or(&[][..], Vec::as_slice)
    }

    /// The sight of a slot on this node, from those that begin with the slot's own.
    fn among(&'a self, reported: &[Reported<'a>], number: u64, node: &NodeName) -> Sight<'a> {
        let same = reported.iter().take_while(|reported| reported.slot == number);
        let mut here = same.map(|reported| (self.nodes.at(reported.place), reported.seen));
        match here.find(|(view, _)| view.name == node) {
            Some((view, seen)) => Sight::of(Some(view), Some(seen)),
            None => Sight::of(self.nodes.get(node), None),
        }
    }
}
