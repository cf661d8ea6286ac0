//! A fleet for tests: nodes, services and agents in memory, driven by the real [`Cycle`]. Build one, change two
//! things, let time pass, and look. Time is a number; nothing here waits.
//!
//! Every outcome is audited (the cycle does it), every decision is decided again and must be quiet, and after every
//! tick the instances that are really ready are counted against the floor.

mod agent;
mod build;
mod gateway;

use crate::audit::quiet;
use crate::cycle::{Action, Cycle, PlanRecord, Snapshot, Versioned, Write, Written};
use crate::decide::decide;
use crate::input::{ALL_CONFIRMED, Input};
use crate::outcome::EventDraft;
use crate::progress::{Progress, ServiceProgress};
pub use agent::{Agent, START_MS};
use baton_model::desired::Desired;
use baton_model::evidence::ReleaseEvidence;
use baton_model::evidence::series::EvidenceSeries;
use baton_model::evidence::trial::TrialObserved;
use baton_model::id::{GatewayName, InstanceId, NodeName, ReleaseNumber, Revision, ServiceName};
use baton_model::metrics::Usage;
use baton_model::observed::{GatewayObserved, NodeObserved, Observed};
use baton_model::report::{Report, ServiceReport};
use baton_model::rollout::RolloutOutcome;
use baton_model::route::Route;
use baton_model::time::{Millis, UnixMs};
pub use build::{fleet, release, service_name, spec};
pub use gateway::{Gateway, route_spec};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One step of the fleet's time.
pub const TICK: Millis = Millis(500);
/// Runs of the cycle in one tick; more means that it never comes to rest.
const RUNS_MAX: u32 = 50;

/// The fleet.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// What operators want.
    pub desired: Desired,
    /// The agents, by node.
    pub agents: BTreeMap<NodeName, Agent>,
    /// What is remembered.
    pub progress: BTreeMap<ServiceName, Versioned<ServiceProgress>>,
    /// The stored plans.
    pub plans: BTreeMap<NodeName, Versioned<PlanRecord>>,
    /// What happened, with its time.
    pub events: Vec<(UnixMs, EventDraft)>,
    /// The last report.
    pub report: Report,
    /// Since when the coordinator listens.
    pub listening_since: UnixMs,
    /// The time.
    pub now: UnixMs,
    /// What gateways count of `web` in each tick, by release.
    pub answers: BTreeMap<ReleaseNumber, ReleaseEvidence>,
    /// What they have counted.
    pub evidence: BTreeMap<ServiceName, EvidenceSeries>,
    /// What gateways counted of comparisons.
    pub trials: BTreeMap<ServiceName, TrialObserved>,
    /// What each instance uses of its node from now on, by the release that it runs: thousandths of a processor, and bytes.
    pub uses: BTreeMap<ReleaseNumber, (u64, u64)>,
    usage: BTreeMap<InstanceId, Arc<VecDeque<Usage>>>,
    /// The floor is not counted: a fault or an operator has taken instances away.
    pub faulty: bool,
    /// The gateways.
    pub gateways: BTreeMap<GatewayName, Gateway>,
    heard: BTreeMap<NodeName, NodeObserved>,
    heard_gateways: BTreeMap<GatewayName, GatewayObserved>,
    cycle: Cycle,
}

impl Fleet {
    /// Lets time pass, tick by tick.
    pub fn run(&mut self, length: Millis) -> &mut Self {
        let end = self.now.plus(length);
        while self.now < end {
            self.tick();
        }
        self
    }

    /// Lets time pass until the service's rollout has this outcome.
    ///
    /// # Panics
    /// When it does not come within `limit`.
    pub fn until(&mut self, outcome: RolloutOutcome, limit: Millis) -> &mut Self {
        let end = self.now.plus(limit);
        loop {
            self.tick();
            if self.outcome() == Some(outcome) {
                return self;
            }
            assert!(self.now < end, "no {outcome:?} within {limit}: {:#?}\n{}", self.web(), self.journal());
        }
    }

    /// One tick: agents work and report, the coordinator decides and sends until nothing changes.
    pub fn tick(&mut self) {
        self.now = self.now.plus(TICK);
        for agent in self.agents.values_mut() {
            agent.work(self.now, &self.desired);
        }
        if !self.answers.is_empty() {
            let (from, to) = (UnixMs(self.now.0 - TICK.0), self.now);
            self.evidence.entry(service_name("web")).or_default().push(from, to, self.answers.clone());
        }
        self.measure();
        self.listen();
        self.settle();
        self.hold_floor();
    }

    /// As agents that are heard do, and the coordinator keeps it.
    fn measure(&mut self) {
        for agent in self.agents.values().filter(|agent| !agent.silent) {
            for (id, instance) in &agent.instances {
                let Some((milli_cores, memory_bytes)) = self.uses.get(&instance.release).copied() else {
                    continue;
                };
                let sample = Usage { at: self.now, release: instance.release, milli_cores, memory_bytes };
                Arc::make_mut(self.usage.entry(id.clone()).or_default()).push_back(sample);
            }
        }
    }

    fn listen(&mut self) {
        for (name, agent) in self.agents.iter().filter(|(_, agent)| !agent.silent) {
            self.heard.insert(name.clone(), agent.observe(self.now));
        }
        for (name, gateway) in self.gateways.iter().filter(|(_, gateway)| !gateway.silent) {
            self.heard_gateways.insert(name.clone(), gateway.observe(self.now));
        }
    }

    /// Forgets what was heard, as a coordinator that starts anew does.
    pub fn restart_coordinator(&mut self) -> &mut Self {
        self.heard.clear();
        self.heard_gateways.clear();
        self.listening_since = self.now;
        self.cycle = Cycle::default();
        self
    }

    /// What the coordinator has heard.
    #[must_use]
    pub fn observed(&self) -> Observed {
        Observed {
            nodes: self.heard.clone(),
            listening_since: self.listening_since,
            gateways: self.heard_gateways.clone(),
            evidence: self.evidence.clone(),
            trials: self.trials.clone(),
            usage: self.usage.clone(),
        }
    }

    /// What is remembered, without revisions.
    #[must_use]
    pub fn memory(&self) -> Progress {
        self.progress.iter().map(|(name, record)| (name.clone(), record.value.clone())).collect()
    }

    fn settle(&mut self) {
        for _ in 0..RUNS_MAX {
            let before = (self.memory(), self.plans.clone());
            self.cycle();
            self.listen();
            if before == (self.memory(), self.plans.clone()) {
                return;
            }
        }
        panic!("the cycle does not come to rest: {}", self.journal());
    }

    fn cycle(&mut self) {
        let observed = self.observed();
        let mut action = self.cycle.begin();
        loop {
            action = match action {
                Action::Load => {
                    self.be_quiet(&observed);
                    let snapshot = Snapshot {
                        desired: self.desired.clone(),
                        progress: self.progress.clone(),
                        plans: self.plans.clone(),
                    };
                    self.cycle.loaded(snapshot, &observed, self.now)
                }
                Action::Write(write) => {
                    let written = self.store(write);
                    self.cycle.written(written)
                }
                Action::Send { plans, events, report, routes } => {
                    routes.into_iter().for_each(|routes| self.route(&routes));
                    self.receive(plans, events, report);
                    self.cycle.sent()
                }
                Action::Wait(_) => return,
            };
        }
    }

    /// A decision leaves nothing to decide at the same time.
    fn be_quiet(&self, observed: &Observed) {
        let progress = self.memory();
        let input = Input {
            desired: &self.desired,
            observed,
            progress: &progress,
            unconfirmed: &ALL_CONFIRMED,
            now: self.now,
        };
        assert_eq!(quiet(&input, &decide(&input)), [], "{}", self.journal());
    }

    fn receive(&mut self, plans: BTreeMap<NodeName, PlanRecord>, events: Vec<EventDraft>, report: Report) {
        for event in events {
            assert!(event.kind != "audit-refused", "{}\n{}", event.message, self.journal());
            self.events.push((self.now, event));
        }
        self.report = report;
        for (node, plan) in plans {
            if let Some(agent) = self.agents.get_mut(&node).filter(|agent| !agent.silent) {
                agent.take(plan, self.now, &self.desired);
            }
        }
    }

    fn route(&mut self, routes: &BTreeMap<ServiceName, Route>) {
        let heard = self.gateways.values_mut().filter(|gateway| !gateway.silent && !gateway.deaf);
        heard.for_each(|gateway| gateway.routes.clone_from(routes));
    }

    fn store(&mut self, write: Write) -> Written {
        match write {
            Write::Progress(name, revision, value) => {
                let has = self.progress.get(&name).map_or(Revision(0), |record| record.revision);
                assert_eq!(revision, has);
                match value {
                    Some(value) => self.progress.insert(name, Versioned { revision: revision.next(), value }),
                    None => self.progress.remove(&name),
                };
                Written::Stored(revision.next())
            }
            Write::Plan(node, revision, value) => {
                let stored = self.plans.get(&node);
                assert_eq!(revision, stored.map_or(Revision(0), |record| record.revision));
                assert!(stored.is_none_or(|record| record.value.generation < value.generation));
                self.plans.insert(node, Versioned { revision: revision.next(), value });
                Written::Stored(revision.next())
            }
        }
    }

    fn hold_floor(&self) {
        for (name, report) in self.report.services.iter().filter(|_| !self.faulty) {
            let ready: usize = self.agents.values().map(|agent| agent.ready(name)).sum();
            assert!(
                ready >= usize::try_from(report.floor).unwrap_or(usize::MAX),
                "{name}: {ready} ready, floor {}: {}",
                report.floor,
                self.journal()
            );
        }
    }

    /// The report of the service `web`.
    #[must_use]
    pub fn web(&self) -> Option<&ServiceReport> {
        self.report.services.get(&service_name("web"))
    }

    /// How the rollout of `web` stands.
    #[must_use]
    pub fn outcome(&self) -> Option<RolloutOutcome> {
        Some(self.web()?.rollout.as_ref()?.outcome)
    }

    /// What each ready instance of `web` really runs: `node=release`, in order.
    #[must_use]
    pub fn running(&self) -> String {
        let web = service_name("web");
        let of = |(node, agent): (&NodeName, &Agent)| {
            agent
                .instances
                .iter()
                .filter(|(id, _)| id.service == web)
                .map(|(_, i)| {
                    format!("{node}={}{}", i.release, if i.ready_since.is_some() { "" } else { "?" })
                })
                .collect::<Vec<_>>()
        };
        self.agents.iter().flat_map(of).collect::<Vec<_>>().join(" ")
    }

    /// The journal as lines, for golden output.
    #[must_use]
    pub fn journal(&self) -> String {
        self.events
            .iter()
            .map(|(at, event)| format!("{:>7} {} {}\n", at.0, event.kind, event.message))
            .collect()
    }

    /// How often this happened.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|(_, event)| event.kind == kind).count()
    }

    /// The gates that `web` waits at.
    #[must_use]
    pub fn gates(&self) -> Vec<&str> {
        let mut gates: Vec<&str> =
            self.web().map(|web| web.waiting.iter().map(|w| w.gate.as_str()).collect()).unwrap_or_default();
        gates.sort_unstable();
        gates.dedup();
        gates
    }
}
