//! What is seen of the instances, indexed once per decision: agents report node by node, a decision asks service by
//! service. What every room asks of every slot is answered here, so that it is looked up once and not in each round.

use crate::input::Input;
use crate::nodes::{NodeView, Nodes};
use crate::progress::Slot;
use baton_model::id::{NodeName, ReleaseNumber, ServiceName};
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
    pub(crate) ready: bool,
    /// The release it serves, where nothing more is to be said: no change, under way or failed, and no crash loop.
    steady: Option<ReleaseNumber>,
}

impl<'a> Sight<'a> {
    fn of(node: Option<&'a NodeView<'a>>, seen: Option<&'a InstanceObserved>) -> Self {
        let heard = node.is_some_and(NodeView::heard);
        let ready = heard && seen.is_some_and(|seen| seen.state == InstanceState::Ready);
        let steady = seen.filter(|seen| seen.swap.is_none() && !seen.crash_loop).map(|seen| seen.release);
        Self { node, seen, heard, ready, steady }
    }

    /// Ready, and nothing more is to be said of it.
    pub(crate) fn well(&self) -> bool {
        self.ready && self.steady.is_some()
    }

    /// No change is under way: it runs what its slot says, or the change has failed and nothing more is tried.
    pub(crate) fn settled(&self, slot: &Slot) -> bool {
        match self.steady {
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
            SwapPhase::Staging | SwapPhase::StoppingOld | SwapPhase::Confirming | SwapPhase::Reverting => {
                false
            }
        },
    }
}

/// Everything that is seen, by service.
#[derive(Debug)]
pub(crate) struct Sightings<'a> {
    /// The nodes it was seen on.
    pub(crate) nodes: &'a Nodes<'a>,
    /// Of each service the slots that are reported, in order; more than once where several nodes report one.
    services: BTreeMap<&'a ServiceName, Vec<(u64, Sight<'a>)>>,
}

impl<'a> Sightings<'a> {
    /// Indexes what the nodes report.
    pub(crate) fn index(input: &Input<'a>, nodes: &'a Nodes<'a>) -> Self {
        let mut services: BTreeMap<&'a ServiceName, Vec<(u64, Sight<'a>)>> = BTreeMap::new();
        for (name, node) in &input.observed.nodes {
            let view = nodes.get(name);
            for (id, seen) in &node.instances {
                services.entry(&id.service).or_default().push((id.slot, Sight::of(view, Some(seen))));
            }
        }
        for sights in services.values_mut() {
            sights.sort_by_key(|(slot, _)| *slot);
        }
        Self { nodes, services }
    }

    /// What is seen of one slot of a service on the slot's node.
    pub(crate) fn one(&self, service: &ServiceName, number: u64, node: &NodeName) -> Sight<'a> {
        let sights = self.services.get(service).map_or(&[][..], Vec::as_slice);
        let first = sights.partition_point(|(slot, _)| *slot < number);
        self.among(&sights[first..], number, node)
    }

    /// What is seen of the slots of a service, each on its own node.
    pub(crate) fn of(&self, service: &ServiceName, slots: &BTreeMap<u64, Slot>) -> Vec<(u64, Sight<'a>)> {
        let mut left = self.services.get(service).map_or(&[][..], Vec::as_slice);
        // Both are in the order of the slots, so that one walk over both finds them all.
        let sight = |(number, slot): (&u64, &Slot)| {
            while let [(earlier, _), rest @ ..] = left
                && earlier < number
            {
                left = rest;
            }
            (*number, self.among(left, *number, &slot.node))
        };
        slots.iter().map(sight).collect()
    }

    /// The sight of a slot on this node, from those that begin with the slot's own.
    fn among(&self, sights: &[(u64, Sight<'a>)], number: u64, node: &NodeName) -> Sight<'a> {
        let same = sights.iter().take_while(|(slot, _)| *slot == number).map(|(_, sight)| sight);
        let here = same.copied().find(|sight| sight.node.is_some_and(|view| view.name == node));
        here.unwrap_or_else(|| Sight::of(self.nodes.get(node), None))
    }
}
