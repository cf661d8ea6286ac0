//! The network between agents and the coordinator. Within one connection messages keep their order, as TCP keeps it;
//! a lost one breaks the connection without telling either side. Across connections anything may overtake anything,
//! and a plan may come again, late.

use super::World;
use super::queue::Happening;
use super::random::Random;
use baton_model::id::{Generation, InstanceId, NodeName};
use baton_model::observed::InstanceObserved;
use baton_model::plan::NodePlan;
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// What an agent tells of its instances: each, and for how long it has been ready.
pub(crate) type Report = BTreeMap<InstanceId, (InstanceObserved, Option<Millis>)>;

/// One message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) node: NodeName,
    /// Counts connections over the whole world.
    pub(crate) connection: u64,
    /// The coordinator process at the other end.
    pub(crate) process: u64,
    pub(crate) body: Body,
}

impl Envelope {
    /// From the agent to the coordinator.
    pub(crate) fn goes_up(&self) -> bool {
        self.body.goes_up()
    }
}

/// The messages, as far as they matter here.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Agent to coordinator, first.
    Hello { generation: Generation, report: Report },
    /// Agent to coordinator: its whole state.
    Observed { generation: Generation, report: Report },
    /// Agent to coordinator.
    Beat,
    /// Coordinator to agent, the echo.
    BeatBack,
    /// Coordinator to agent.
    Plan(Box<NodePlan>),
}

impl Body {
    fn goes_up(&self) -> bool {
        match self {
            Self::Hello { .. } | Self::Observed { .. } | Self::Beat => true,
            Self::BeatBack | Self::Plan(_) => false,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Observed { .. } => "observed",
            Self::Beat => "beat",
            Self::BeatBack => "beat-back",
            Self::Plan(_) => "plan",
        }
    }
}

/// The link of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// Nothing passes from the node.
    pub(crate) up_cut: bool,
    /// Nothing passes to the node.
    pub(crate) down_cut: bool,
    /// Added to each delay.
    pub(crate) slow_ms: u64,
    /// Connections that lost a message.
    broken: BTreeSet<u64>,
    /// The last arrival per connection and direction: nothing overtakes it.
    last: BTreeMap<(u64, bool), u64>,
}

/// Connections remembered as broken per node; older ones are closed by both sides long since.
const BROKEN_MAX: usize = 64;

impl Link {
    /// When a message that is sent now arrives; `None`: never, as no later one of its connection.
    pub(crate) fn arrival(
        &mut self,
        random: &mut Random,
        connection: u64,
        up: bool,
        faulty: bool,
        now: u64,
    ) -> Option<u64> {
        let cut = if up { self.up_cut } else { self.down_cut };
        let lost = faulty && random.permille(3);
        if cut || lost {
            self.broken.insert(connection);
            if self.broken.len() > BROKEN_MAX {
                self.broken.pop_first();
            }
        }
        if self.broken.contains(&connection) {
            return None;
        }
        let usual = random.between(1, 40);
        let delay = usual + if faulty { self.slow_ms } else { 0 };
        let last = self.last.entry((connection, up)).or_default();
        let at = (now + delay).max(*last);
        *last = at;
        if self.last.len() > BROKEN_MAX {
            self.last.pop_first();
        }
        Some(at)
    }
}

impl World {
    /// Puts a message on its way, or loses it.
    pub(crate) fn send(&mut self, envelope: Envelope) {
        let (up, faulty) = (envelope.body.goes_up(), self.faults_on);
        let link = self.links.entry(envelope.node.clone()).or_default();
        let random = &mut self.random.network;
        let Some(at) = link.arrival(random, envelope.connection, up, faulty, self.now) else { return };
        let again = faulty && matches!(envelope.body, Body::Plan(_)) && self.random.network.percent(15);
        if again {
            let later = at + self.random.network.between(1, 20_000);
            self.queue.push(later, Happening::Delivered(envelope.clone()));
        }
        self.queue.push(at, Happening::Delivered(envelope));
    }

    /// A message arrives.
    pub(crate) fn delivered(&mut self, envelope: Envelope) {
        if !matches!(envelope.body, Body::Beat | Body::BeatBack) {
            let line = format!("net {} #{} {}", envelope.node, envelope.connection, envelope.body.word());
            self.trace.line(self.now, &line);
        }
        if envelope.body.goes_up() {
            self.coordinator_hears(envelope);
        } else {
            self.agent_is_told(envelope);
        }
    }

    /// Both directions work, and somebody is there.
    pub(crate) fn can_fetch(&self, node: &NodeName) -> bool {
        let cut = self.links.get(node).is_some_and(|link| link.up_cut || link.down_cut);
        self.coordinator.is_some() && !cut
    }
}
