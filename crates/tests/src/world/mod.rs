//! A discrete-event world: virtual time, a queue of what happens, and one stream of chance per entity. It runs the
//! real `decide` through the real `cycle`, and the real `instance` machine on every node; everything else, the store,
//! the network, hosts, processes, operators, is simulated here, with the faults of a bad week in ten minutes.
//!
//! First safety under faults: the invariants are asked at each step that could break them. Then the world heals, and
//! must come to rest. No async, no threads, no clock: a seed is one run, byte for byte.

mod agent;
mod convergence;
mod coordinator;
mod counting;
mod effects;
mod faults;
mod fleet;
mod gateway;
mod invariants;
mod ledger;
mod mutation;
mod network;
mod node;
mod operator;
mod queue;
mod random;
mod store;
mod strategies;
mod table;
mod trace;
mod workload;

pub use mutation::Mutation;

use baton_model::id::{GatewayName, NodeName, ReleaseNumber, ServiceName};
use baton_model::spec::ServiceSpec;
use coordinator::Coordinator;
use gateway::Gateway;
use ledger::Ledger;
use network::Link;
use node::Node;
use queue::{Happening, Queue};
use random::Random;
use std::collections::BTreeMap;
use std::fmt;
use store::Store;
use trace::Trace;
use workload::Behaviour;

/// Which run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Print what happens.
    pub trace: bool,
    /// A guard to break.
    pub mutation: Option<Mutation>,
}

/// Every eighth seed has bad releases and operators, and no other fault: there the strictest questions can be asked.
const CALM_EVERY: u64 = 8;

impl Options {
    /// No faults but those of releases that fail at their start.
    pub(crate) fn calm(&self) -> bool {
        self.seed.is_multiple_of(CALM_EVERY)
    }

    /// The longest time between two faults: some seeds are rough, some are mild.
    pub(crate) fn fault_interval_ms(&self) -> u64 {
        4000 + self.seed % 7 * 5000
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened: equal for equal runs.
    pub hash: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Decisions made.
    pub decisions: u64,
    /// The invariant that broke first, if one did.
    pub violation: Option<Violation>,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name in `ARCHITECTURE.md`.
    pub invariant: &'static str,
    /// What broke it.
    pub detail: String,
    /// When, in milliseconds of the world's time.
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s: {}", self.invariant, self.at_ms / 1000, self.at_ms % 1000, self.detail)
    }
}

/// Streams of chance that belong to no node.
#[derive(Clone, Debug)]
struct Streams {
    faults: Random,
    operator: Random,
    network: Random,
    store: Random,
    gateways: Random,
}

/// The world of one seed.
#[derive(Clone, Debug)]
struct World {
    options: Options,
    now: u64,
    queue: Queue,
    trace: Trace,
    random: Streams,
    store: Store,
    coordinator: Option<Coordinator>,
    /// Coordinator processes so far.
    processes: u64,
    /// Connections so far.
    connections: u64,
    /// Executions of workloads so far.
    executions: u64,
    decisions: u64,
    links: BTreeMap<NodeName, Link>,
    nodes: BTreeMap<NodeName, Node>,
    gateways: BTreeMap<GatewayName, Gateway>,
    /// What operators removed, to join anew.
    removed_nodes: BTreeMap<NodeName, baton_model::desired::Node>,
    specs: BTreeMap<ServiceName, ServiceSpec>,
    behaviours: BTreeMap<(ServiceName, ReleaseNumber), Behaviour>,
    faults_on: bool,
    healed: bool,
    healed_at: u64,
    rest_since: Option<u64>,
    at_rest: bool,
    ledger: Ledger,
    violation: Option<Violation>,
}

/// A run that has not come to its end after so many happenings goes round in circles.
const HAPPENINGS_MAX: u64 = 2_000_000;

/// Runs one seed to its end, or to the first invariant that does not hold.
#[must_use]
pub fn run(options: Options) -> Verdict {
    let mut world = World::new(options);
    world.begin();
    let mut happenings = 0;
    while let Some((at, happening)) = world.queue.pop() {
        world.now = at;
        happenings += 1;
        world.happen(happening);
        if world.violation.is_some() || world.at_rest {
            break;
        }
        if happenings == HAPPENINGS_MAX {
            world.violate("ends", "it goes round in circles".to_owned());
            break;
        }
    }
    if let Some(violation) = &world.violation {
        let line = format!("VIOLATION {violation}");
        world.trace.line(world.now, &line);
    }
    Verdict {
        seed: options.seed,
        hash: world.trace.hash(),
        happenings,
        decisions: world.decisions,
        violation: world.violation,
    }
}

impl World {
    fn new(options: Options) -> Self {
        let seed = options.seed;
        let stream = |entity| Random::of(seed, entity);
        Self {
            options,
            now: 0,
            queue: Queue::default(),
            trace: Trace::new(options.trace),
            random: Streams {
                faults: stream("faults"),
                operator: stream("operator"),
                network: stream("network"),
                store: stream("store"),
                gateways: stream("gateways"),
            },
            store: Store::default(),
            coordinator: None,
            processes: 0,
            connections: 0,
            executions: 0,
            decisions: 0,
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            gateways: BTreeMap::new(),
            removed_nodes: BTreeMap::new(),
            specs: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            faults_on: !options.calm(),
            healed: false,
            healed_at: 0,
            rest_since: None,
            at_rest: false,
            ledger: Ledger::default(),
            violation: None,
        }
    }

    fn begin(&mut self) {
        self.populate();
        self.first_deploys();
        self.queue.push(10, Happening::CoordinatorStarts);
        let nodes: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for node in nodes {
            let at = 20 + self.random.network.between(0, 2000);
            self.queue.push(at, Happening::AgentStarts { node });
        }
        let gateways: Vec<GatewayName> = self.gateways.keys().cloned().collect();
        for gateway in gateways {
            let at = 20 + self.random.gateways.between(0, 5000);
            self.queue.push(at, Happening::GatewayStarts { gateway });
            let strikes = self.random.gateways.between(5000, 60_000);
            self.queue.push(strikes, Happening::GatewayFaultStrikes);
        }
        self.queue.push(self.random.operator.between(15_000, 60_000), Happening::OperatorActs);
        self.queue.push(self.random.faults.between(1000, 40_000), Happening::FaultStrikes);
        self.queue.push(self.random.faults.between(90_000, 300_000), Happening::Heals);
    }

    /// One thing happens, unless the process it concerns is frozen; then it happens when that thaws.
    fn happen(&mut self, happening: Happening) {
        if let Some(thaws_at) = self.frozen(&happening) {
            self.queue.push(thaws_at, happening);
            return;
        }
        match happening {
            Happening::CoordinatorStarts => self.coordinator_starts(),
            Happening::CoordinatorWakes { process } => self.coordinator_wakes(process),
            Happening::CoordinatorLoads { process } => self.coordinator_loads(process),
            Happening::WriteLands { process, write } => self.write_lands(process, write),
            Happening::WriteAnswered { process, written } => self.write_answered(process, written),
            Happening::Delivered(envelope) => self.delivered(envelope),
            Happening::AgentStarts { node } => self.agent_starts(&node),
            Happening::AgentConnects { node, life } => self.agent_connects(&node, life),
            Happening::AgentBeats { node, life } => self.agent_beats(&node, life),
            Happening::AgentReports { node, life } => self.agent_reports(&node, life),
            Happening::AgentTimer { node, life, id } => {
                self.agent_steps(&node, life, &id, baton_engine::instance::Event::Timer);
            }
            Happening::AgentHears { node, life, id, event } => self.agent_steps(&node, life, &id, event),
            Happening::FetchEnds { node, life, id, plan } => self.fetch_ends(&node, life, &id, &plan),
            Happening::CheckAnswers { node, life, id, run } => self.check_answers(&node, life, &id, run),
            Happening::WorkloadChanges { node, id, run, execution, change } => {
                self.workload_changes(&node, &id, run, execution, change);
            }
            Happening::StopEnds { node, boot, id, run } => self.stop_ends(&node, boot, &id, run),
            Happening::HostBoots { node } => self.host_boots(&node),
            Happening::LinkMends { node } => self.link_mends(&node),
            Happening::GatewayStarts { gateway } => self.gateway_starts(&gateway),
            Happening::GatewayConnects { gateway, life } => self.gateway_connects(&gateway, life),
            Happening::GatewayBeats { gateway, life } => self.gateway_beats(&gateway, life),
            Happening::GatewayWorks { gateway, life } => self.gateway_works(&gateway, life),
            Happening::GatewayAcknowledges { gateway, life } => self.gateway_acknowledges(&gateway, life),
            Happening::Posted(letter) => self.posted(letter),
            Happening::GatewayLinkMends { gateway } => self.gateway_link_mends(&gateway),
            Happening::GatewayFaultStrikes => self.gateway_fault_strikes(),
            Happening::FaultStrikes => self.fault_strikes(),
            Happening::OperatorActs => self.operator_acts(),
            Happening::Heals => self.heals(),
            Happening::Looks => self.looks(),
        }
        self.judge_moment();
    }

    fn frozen(&self, happening: &Happening) -> Option<u64> {
        let agent = |node: &NodeName| self.nodes.get(node).map_or(0, |host| host.frozen_until);
        let gateway = |name: &GatewayName| self.gateways.get(name).map_or(0, |gateway| gateway.frozen_until);
        let coordinator = || self.coordinator.as_ref().map_or(0, |coordinator| coordinator.frozen_until);
        let until = match happening {
            Happening::CoordinatorWakes { .. } | Happening::CoordinatorLoads { .. } => coordinator(),
            Happening::WriteAnswered { .. } => coordinator(),
            Happening::Delivered(envelope) if envelope.goes_up() => coordinator(),
            Happening::Delivered(envelope) => agent(&envelope.node),
            Happening::AgentConnects { node, .. } | Happening::AgentBeats { node, .. } => agent(node),
            Happening::AgentReports { node, .. } | Happening::AgentTimer { node, .. } => agent(node),
            Happening::AgentHears { node, .. } | Happening::FetchEnds { node, .. } => agent(node),
            Happening::CheckAnswers { node, .. } => agent(node),
            Happening::Posted(letter) if letter.goes_up() => coordinator(),
            Happening::Posted(letter) => gateway(&letter.gateway),
            Happening::GatewayConnects { gateway: name, .. }
            | Happening::GatewayBeats { gateway: name, .. }
            | Happening::GatewayWorks { gateway: name, .. }
            | Happening::GatewayAcknowledges { gateway: name, .. } => gateway(name),
            Happening::GatewayStarts { .. } | Happening::GatewayLinkMends { .. } => 0,
            Happening::GatewayFaultStrikes => 0,
            Happening::CoordinatorStarts | Happening::WriteLands { .. } | Happening::AgentStarts { .. } => 0,
            Happening::WorkloadChanges { .. } | Happening::StopEnds { .. } | Happening::HostBoots { .. } => 0,
            Happening::LinkMends { .. } | Happening::FaultStrikes | Happening::OperatorActs => 0,
            Happening::Heals | Happening::Looks => 0,
        };
        (until > self.now).then_some(until)
    }

    /// Notes the first invariant that does not hold.
    fn violate(&mut self, invariant: &'static str, detail: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, detail, at_ms: self.now });
        }
    }
}
