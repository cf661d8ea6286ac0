//! A host: its clock, its disk, the runs under their shims, and whether anything of it is up.

use super::World;
use super::agent::Agent;
use super::queue::Happening;
use super::random::Random;
use super::workload::{Change, Run};
use baton_engine::instance::{Event, Instance};
use baton_model::id::{Digest, InstanceId, NodeName, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::NodePlan;
use baton_model::time::{BootMs, Millis};
use std::collections::BTreeMap;

/// One host.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) random: Random,
    /// How fast its clock runs, in millionths more or less.
    rate_ppm: i64,
    booted_at: u64,
    /// Counts boots.
    pub(crate) boot: u64,
    pub(crate) up: bool,
    /// Counts agents: what was scheduled for an earlier one is void.
    pub(crate) life: u64,
    pub(crate) agent: Option<Agent>,
    pub(crate) frozen_until: u64,
    pub(crate) disk: Disk,
    pub(crate) runs: BTreeMap<(InstanceId, RunNumber), Run>,
    pub(crate) next_pid: u32,
}

/// What survives the agent and the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) plan: Option<NodePlan>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    /// Artifacts by digest, and whether their bytes are still what they should be.
    pub(crate) artifacts: BTreeMap<Digest, bool>,
    /// The boot in which its instances were last resumed; 0 before any was.
    pub(crate) boot: u64,
}

impl Node {
    pub(crate) fn new(seed: u64, name: &NodeName) -> Self {
        let mut random = Random::of(seed, name.as_str());
        let rate_ppm = i64::try_from(random.between(0, 1000)).unwrap_or(0) - 500;
        Self {
            random,
            rate_ppm,
            booted_at: 0,
            boot: 1,
            up: true,
            life: 0,
            agent: None,
            frozen_until: 0,
            disk: Disk::default(),
            runs: BTreeMap::new(),
            next_pid: 100,
        }
    }

    /// Its `CLOCK_BOOTTIME`: a little fast or slow, and anew at each boot.
    pub(crate) fn boot_ms(&self, now: u64) -> BootMs {
        let passed = i64::try_from(now.saturating_sub(self.booted_at)).unwrap_or(i64::MAX);
        let drift = passed / 1000 * self.rate_ppm / 1000;
        BootMs(u64::try_from(1000 + passed + drift).unwrap_or(0))
    }

    /// The world's time at which its clock will surely have reached `at`.
    pub(crate) fn world_time(&self, at: BootMs, now: u64) -> u64 {
        let wait = at.since(self.boot_ms(now)).0;
        now + wait + wait / 1000 + 1
    }
}

impl World {
    /// The shim executes the workload of a run, now.
    pub(crate) fn execute(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber) {
        self.executions += 1;
        let (execution, now) = (self.executions, self.now);
        let Some(host) = self.nodes.get_mut(node) else { return };
        let pid = host.next_pid;
        let Some(run) = host.runs.get_mut(&(id.clone(), number)) else { return };
        if run.stopping {
            return;
        }
        host.next_pid += 1;
        let digest = run.plan.artifact.digest;
        let intact = host.disk.artifacts.get(&digest).copied();
        let first = run.execution == 0;
        run.execution = execution;
        run.executed_at = now;
        run.pid = Some(pid);
        run.ready = false;
        let script = run.behaviour.script(first);
        for (after, change) in script {
            let (node, id) = (node.clone(), id.clone());
            self.queue
                .push(now + after, Happening::WorkloadChanges { node, id, run: number, execution, change });
        }
        self.trace.line(now, &format!("{node} {id} run {number} executes, pid {pid}"));
        // A restart by the shim executes what its first start verified and holds open.
        if first {
            self.judge_execution(node, id, intact);
        }
        let event = Event::Started { run: number, pid, ports: ports_of(number) };
        self.agent_hears_soon(node, id, event, 5);
    }

    /// A workload changes, unless the execution this was meant for is over.
    pub(crate) fn workload_changes(
        &mut self,
        node: &NodeName,
        id: &InstanceId,
        number: RunNumber,
        execution: u64,
        change: Change,
    ) {
        let Some(host) = self.nodes.get_mut(node) else { return };
        let Some(run) = host.runs.get_mut(&(id.clone(), number)).filter(|run| run.execution == execution)
        else {
            return;
        };
        match change {
            Change::Executes if run.pid.is_none() => self.execute(node, id, number),
            Change::Executes => {}
            _ if run.pid.is_none() => {}
            Change::Ready | Change::Unready => {
                run.ready = change == Change::Ready;
                self.check_soon(node, id, number);
            }
            Change::NotLive => {
                let event = Event::NotLive { run: number, detail: "hangs".to_owned() };
                self.agent_hears_soon(node, id, event, 1000);
            }
            Change::Exits(exit) => self.workload_exits(node, id, number, exit),
        }
    }

    /// A workload ends: its shim restarts it as its policy says, and tells the agent if there is one.
    pub(crate) fn workload_exits(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber, exit: Exit) {
        let now = self.now;
        let Some(run) = self.nodes.get_mut(node).and_then(|host| host.runs.get_mut(&(id.clone(), number)))
        else {
            return;
        };
        if run.pid.is_none() {
            return;
        }
        let wait = run.exited(exit, now);
        // Its connections ended with it.
        run.drain = run.drain.map(|(ends, until)| (ends.min(now), until));
        if wait.is_some() {
            run.restarts += 1;
        }
        let (restarts, crash_loop, execution) = (run.restarts, run.crash_loop(), run.execution);
        self.trace.line(now, &format!("{node} {id} run {number} ends with {exit}"));
        if let Some(wait) = wait {
            let (node, id) = (node.clone(), id.clone());
            let change = Change::Executes;
            self.queue.push(
                now + wait + 1,
                Happening::WorkloadChanges { node, id, run: number, execution, change },
            );
        }
        let event = Event::Exited {
            run: number,
            exit,
            restarts,
            restart_in: wait.map(Millis),
            crash_loop,
            last_words: String::new(),
            damage: None,
        };
        self.agent_hears_soon(node, id, event, 0);
    }

    /// A stop sequence is over: nothing is left of the run.
    pub(crate) fn stop_ends(&mut self, node: &NodeName, boot: u64, id: &InstanceId, number: RunNumber) {
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.boot == boot) else { return };
        if host.runs.remove(&(id.clone(), number)).is_some() {
            self.trace.line(self.now, &format!("{node} {id} run {number} is gone"));
            let killed = self.now.is_multiple_of(7);
            self.agent_hears_soon(node, id, Event::Stopped { run: number, killed }, 2);
        }
    }

    /// A shim dies and takes its workload with it.
    pub(crate) fn shim_dies(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber) {
        let Some(host) = self.nodes.get_mut(node) else { return };
        if host.runs.remove(&(id.clone(), number)).is_some() {
            self.trace.line(self.now, &format!("{node} {id} run {number}: its shim dies"));
            self.agent_hears_soon(node, id, Event::ShimLost(number), 200);
        }
    }

    pub(crate) fn host_dies(&mut self, node: &NodeName, down_ms: u64) {
        let now = self.now;
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.up) else { return };
        self.trace.line(now, &format!("{node} goes down"));
        host.up = false;
        host.agent = None;
        host.life += 1;
        host.runs.clear();
        self.queue.push(now + down_ms, Happening::HostBoots { node: node.clone() });
    }

    pub(crate) fn host_boots(&mut self, node: &NodeName) {
        let now = self.now;
        let Some(host) = self.nodes.get_mut(node).filter(|host| !host.up) else { return };
        self.trace.line(now, &format!("{node} boots"));
        host.up = true;
        host.boot += 1;
        host.booted_at = now;
        host.next_pid = 100;
        self.queue.push(now + 500, Happening::AgentStarts { node: node.clone() });
    }
}

/// The ports of a run: one of its own, as a dynamic one is; gateways of this world know runs by their names.
pub(crate) fn ports_of(number: RunNumber) -> BTreeMap<String, u16> {
    let port = u16::try_from(10_000 + number.0 % 10_000).unwrap_or(10_000);
    BTreeMap::from([("main".to_owned(), port)])
}
