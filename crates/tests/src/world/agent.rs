//! A node's agent: it drives the real [`Instance`] machines, persists before it acts, and tells the coordinator. It
//! can die between any two of these.

use super::World;
use super::mutation::Mutation;
use super::network::{Body, Envelope, Report};
use super::node::ports_of;
use super::queue::Happening;
use baton_engine::instance::{AdoptedRun, Event, Instance};
use baton_model::id::{Generation, InstanceId, NodeName, RunNumber};
use baton_model::plan::NodePlan;
use std::collections::{BTreeMap, BTreeSet};

/// A coordinator that was silent for this long is given up.
const SILENCE_MS: u64 = 3000;
const BEAT_MS: u64 = 1000;

/// One agent process and what it holds in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agent {
    /// Its connection, and the coordinator process at the other end.
    pub(crate) connection: Option<(u64, u64)>,
    heard_at: u64,
    reported: Option<(Generation, Report)>,
    report_due: bool,
    /// Runs whose checks it makes, and the readiness it last told the machine.
    pub(crate) checks: BTreeMap<(InstanceId, RunNumber), Option<bool>>,
}

impl World {
    /// It starts: what was persisted meets what is alive.
    pub(crate) fn agent_starts(&mut self, node: &NodeName) {
        let now = self.now;
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.up && host.agent.is_none()) else {
            return;
        };
        host.life += 1;
        host.agent = Some(Agent::default());
        let life = host.life;
        let booted = ![0, host.boot].contains(&std::mem::replace(&mut host.disk.boot, host.boot));
        self.trace.line(now, &format!("{node} agent starts"));
        let known: BTreeSet<InstanceId> =
            host.disk.instances.keys().cloned().chain(host.runs.keys().map(|(id, _)| id.clone())).collect();
        for id in known {
            let alive = self.alive_runs(node, &id);
            self.agent_steps(node, life, &id, Event::Resumed { alive, booted });
            self.tell_again_what_is_down(node, &id);
        }
        self.agent_follows_plan(node, life);
        let at = now + self.random.network.between(1, 300);
        self.queue.push(at, Happening::AgentConnects { node: node.clone(), life });
        self.queue.push(now + BEAT_MS, Happening::AgentBeats { node: node.clone(), life });
    }

    fn alive_runs(&self, node: &NodeName, id: &InstanceId) -> BTreeMap<RunNumber, AdoptedRun> {
        let Some(host) = self.nodes.get(node) else { return BTreeMap::new() };
        let runs = host.runs.iter().filter(|((of, _), _)| of == id);
        let adopted = runs.map(|((_, number), run)| {
            let found = AdoptedRun {
                release: run.release,
                pid: run.pid,
                ports: ports_of(*number),
                restarts: run.restarts,
                last_exit: run.last_exit,
                crash_loop: run.crash_loop(),
            };
            (*number, found)
        });
        adopted.collect()
    }

    /// A shim whose workload is down says so to the agent that adopts it.
    fn tell_again_what_is_down(&mut self, node: &NodeName, id: &InstanceId) {
        let Some(host) = self.nodes.get(node) else { return };
        let down: Vec<Event> = host
            .runs
            .iter()
            .filter(|((of, _), run)| of == id && run.down)
            .filter_map(|((_, number), run)| {
                let (run_number, exit) = (*number, run.last_exit?);
                Some(Event::Exited {
                    run: run_number,
                    exit,
                    restarts: run.restarts,
                    restart_in: None,
                    crash_loop: run.crash_loop(),
                    last_words: String::new(),
                    damage: None,
                })
            })
            .collect();
        for event in down {
            self.agent_hears_soon(node, id, event, 1);
        }
    }

    pub(crate) fn agent_dies(&mut self, node: &NodeName) {
        let now = self.now;
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.agent.is_some()) else { return };
        host.agent = None;
        host.life += 1;
        self.trace.line(now, &format!("{node} agent dies"));
        let back = now + host.random.between(100, 12_000);
        self.queue.push(back, Happening::AgentStarts { node: node.clone() });
    }

    pub(crate) fn has_agent(&self, node: &NodeName, life: u64) -> bool {
        self.nodes.get(node).is_some_and(|host| host.agent.is_some() && host.life == life)
    }

    /// Takes one event to one instance: steps, persists, acts.
    pub(crate) fn agent_steps(&mut self, node: &NodeName, life: u64, id: &InstanceId, event: Event) {
        if !self.has_agent(node, life) {
            return;
        }
        let (now, late) = (self.now, self.options.mutation == Some(Mutation::PersistedLate));
        let Some(host) = self.nodes.get_mut(node) else { return };
        let mut instance = host.disk.instances.get(id).cloned().unwrap_or_else(|| Instance::new(id.clone()));
        let before = instance.clone();
        let effects = instance.step(event, host.boot_ms(now));
        let wake = instance.wake_at().map(|at| host.world_time(at, now));
        let changed = instance != before;
        if !late {
            if changed && self.agent_stumbles(node) {
                return;
            }
            self.persist(node, &instance);
        }
        for effect in effects {
            self.carry_out(node, life, id, effect);
            if self.agent_stumbles(node) {
                return;
            }
        }
        if late {
            self.persist(node, &instance);
        }
        if let Some(at) = wake {
            self.queue.push(at, Happening::AgentTimer { node: node.clone(), life, id: id.clone() });
        }
        self.report_soon(node, life);
    }

    fn persist(&mut self, node: &NodeName, instance: &Instance) {
        let Some(host) = self.nodes.get_mut(node) else { return };
        if instance.is_gone() {
            host.disk.instances.remove(&instance.id);
        } else {
            host.disk.instances.insert(instance.id.clone(), instance.clone());
        }
    }

    /// The agent may die between any two of its steps.
    fn agent_stumbles(&mut self, node: &NodeName) -> bool {
        let dies = self.faults_on && self.random.faults.permille(2);
        if dies {
            self.agent_dies(node);
        }
        dies
    }

    /// Something reaches the agent after at most `within_ms`, if it lives then.
    pub(crate) fn agent_hears_soon(
        &mut self,
        node: &NodeName,
        id: &InstanceId,
        event: Event,
        within_ms: u64,
    ) {
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.agent.is_some()) else { return };
        let (life, wait) = (host.life, host.random.between(0, within_ms));
        let (node, id) = (node.clone(), id.clone());
        self.queue.push(self.now + wait, Happening::AgentHears { node, life, id, event });
    }

    /// Every instance is told what the persisted plan says of it.
    fn agent_follows_plan(&mut self, node: &NodeName, life: u64) {
        let Some(host) = self.nodes.get(node) else { return };
        let Some(plan) = host.disk.plan.clone() else { return };
        let known: BTreeSet<InstanceId> =
            host.disk.instances.keys().chain(plan.instances.keys()).cloned().collect();
        for id in known {
            let wanted = plan.instances.get(&id).map(|plan| Box::new(plan.clone()));
            self.agent_steps(node, life, &id, Event::Plan(wanted));
        }
        self.report_soon(node, life);
    }

    /// A message from the coordinator.
    pub(crate) fn agent_is_told(&mut self, envelope: Envelope) {
        let (now, Envelope { node, connection, body, .. }) = (self.now, envelope);
        let Some(host) = self.nodes.get_mut(&node) else { return };
        let life = host.life;
        let Some(agent) = &mut host.agent else { return };
        match body {
            Body::BeatBack => {
                if agent.connection.is_some_and(|(current, _)| current == connection) {
                    agent.heard_at = now;
                }
            }
            Body::Plan(plan) => self.agent_takes_plan(&node, life, *plan),
            Body::Hello { .. } | Body::Observed { .. } | Body::Beat => {}
        }
    }

    /// Persists a plan that is newer than its own, and follows it.
    fn agent_takes_plan(&mut self, node: &NodeName, life: u64, mut plan: NodePlan) {
        let mutation = self.options.mutation;
        if let Some(mutation) = mutation {
            mutation.distort_plan(&mut plan);
        }
        let Some(host) = self.nodes.get_mut(node) else { return };
        let has = host.disk.plan.as_ref().map_or(Generation(0), |plan| plan.generation);
        if plan.generation <= has && mutation != Some(Mutation::GenerationIgnored) {
            return;
        }
        if mutation == Some(Mutation::PersistedLate) {
            // It tells the coordinator first, and may die before it has persisted.
            let (generation, report) = (plan.generation, self.observe(node));
            self.agent_sends(node, Body::Observed { generation, report });
        }
        if self.agent_stumbles(node) {
            return;
        }
        self.judge_plan(node, &plan);
        if let Some(host) = self.nodes.get_mut(node) {
            host.disk.plan = Some(plan);
        }
        self.agent_follows_plan(node, life);
    }

    pub(crate) fn agent_connects(&mut self, node: &NodeName, life: u64) {
        if !self.has_agent(node, life) {
            return;
        }
        let now = self.now;
        let process = self.coordinator.as_ref().map(|coordinator| coordinator.process);
        self.connections += 1;
        let connection = self.connections;
        let Some(host) = self.nodes.get_mut(node) else { return };
        let Some(agent) = &mut host.agent else { return };
        let Some(process) = process else {
            agent.connection = None;
            let wait = host.random.between(100, 2000);
            let node = node.clone();
            return self.queue.push(now + wait, Happening::AgentConnects { node, life });
        };
        agent.connection = Some((connection, process));
        agent.heard_at = now;
        let generation = self.generation_of(node);
        let report = self.observe(node);
        if let Some(agent) = self.nodes.get_mut(node).and_then(|host| host.agent.as_mut()) {
            agent.reported = Some((generation, report.clone()));
        }
        self.agent_sends(node, Body::Hello { generation, report });
    }

    pub(crate) fn agent_beats(&mut self, node: &NodeName, life: u64) {
        if !self.has_agent(node, life) {
            return;
        }
        let now = self.now;
        self.queue.push(now + BEAT_MS, Happening::AgentBeats { node: node.clone(), life });
        let Some(agent) = self.nodes.get_mut(node).and_then(|host| host.agent.as_mut()) else { return };
        if agent.connection.is_none() {
            return;
        }
        if now - agent.heard_at > SILENCE_MS {
            agent.connection = None;
            let wait = self.random.network.between(10, 500);
            return self.queue.push(now + wait, Happening::AgentConnects { node: node.clone(), life });
        }
        self.agent_sends(node, Body::Beat);
    }

    fn report_soon(&mut self, node: &NodeName, life: u64) {
        let now = self.now;
        let Some(agent) = self.nodes.get_mut(node).and_then(|host| host.agent.as_mut()) else { return };
        if !agent.report_due {
            agent.report_due = true;
            self.queue.push(now + 10, Happening::AgentReports { node: node.clone(), life });
        }
    }

    /// Tells its whole state, where it is not what it told last.
    pub(crate) fn agent_reports(&mut self, node: &NodeName, life: u64) {
        if !self.has_agent(node, life) {
            return;
        }
        let (generation, report) = (self.generation_of(node), self.observe(node));
        let Some(agent) = self.nodes.get_mut(node).and_then(|host| host.agent.as_mut()) else { return };
        agent.report_due = false;
        let without_lengths = |told: &(Generation, Report)| {
            let seen: Vec<_> = told
                .1
                .iter()
                .map(|(id, (seen, ready))| (id.clone(), seen.clone(), ready.is_some()))
                .collect();
            (told.0, seen)
        };
        let told = (generation, report);
        if agent.connection.is_none()
            || agent.reported.as_ref().map(without_lengths) == Some(without_lengths(&told))
        {
            return;
        }
        agent.reported = Some(told.clone());
        self.agent_sends(node, Body::Observed { generation: told.0, report: told.1 });
    }

    pub(crate) fn generation_of(&self, node: &NodeName) -> Generation {
        let plan = self.nodes.get(node).and_then(|host| host.disk.plan.as_ref());
        plan.map_or(Generation(0), |plan| plan.generation)
    }

    fn observe(&self, node: &NodeName) -> Report {
        let Some(host) = self.nodes.get(node) else { return Report::new() };
        let now = host.boot_ms(self.now);
        host.disk
            .instances
            .iter()
            .filter_map(|(id, instance)| Some((id.clone(), instance.observe(now)?)))
            .collect()
    }

    fn agent_sends(&mut self, node: &NodeName, body: Body) {
        let agent = self.nodes.get(node).and_then(|host| host.agent.as_ref());
        if let Some((connection, process)) = agent.and_then(|agent| agent.connection) {
            match &body {
                Body::Hello { generation, .. } | Body::Observed { generation, .. } => {
                    self.ledger_said(node, *generation)
                }
                Body::Beat | Body::BeatBack | Body::Plan(_) => {}
            }
            self.send(Envelope { node: node.clone(), connection, process, body });
        }
    }
}
