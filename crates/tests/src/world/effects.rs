//! What the simulated agent does about each effect of an instance: the part that production does with real processes.

use super::World;
use super::mutation::Mutation;
use super::node::ports_of;
use super::queue::Happening;
use super::workload::{Behaviour, Change, Run};
use baton_engine::instance::{Effect, Event, Trouble};
use baton_model::id::{InstanceId, NodeName, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;
use baton_model::route::UpstreamId;
use baton_model::time::Millis;

impl World {
    /// Carries one effect out.
    pub(crate) fn carry_out(&mut self, node: &NodeName, life: u64, id: &InstanceId, effect: Effect) {
        match effect {
            Effect::Stage(plan) => self.fetch(node, life, id, plan),
            Effect::Start { run, plan, beside } => self.start_run(node, id, run, plan, beside),
            Effect::Check { run, .. } => {
                if let Some(agent) = self.nodes.get_mut(node).and_then(|host| host.agent.as_mut()) {
                    agent.checks.insert((id.clone(), run), None);
                }
                self.check_soon(node, id, run);
            }
            Effect::Steer { run, from } => {
                self.trace.line(self.now, &format!("{node} {id} steers to run {run}"));
                self.set_serving(node, id, run, true);
                if let Some(from) = from {
                    self.set_serving(node, id, from, false);
                }
                self.agent_hears_soon(node, id, Event::Steered(run), 5);
            }
            Effect::Drain { run, within } => self.drain(node, id, run, within),
            Effect::Stop { run, timeout, .. } => self.stop_run(node, id, run, timeout),
            Effect::Restart { run, .. } => self.workload_exits(node, id, run, Exit::Signal(15)),
            // No byte of a running release changes in this world: what is suspect is found good.
            Effect::Mend { run, .. } => {
                self.agent_hears_soon(node, id, Event::Mended { run, fetched: false }, 5)
            }
            Effect::Refresh { run, plan, .. } => self.refresh(node, id, run, plan),
            // No service of this world reloads or has hooks.
            Effect::Reload { .. } | Effect::TellReady { .. } => {}
            Effect::Forget(_) | Effect::Note { .. } => {}
        }
    }

    fn fetch(&mut self, node: &NodeName, life: u64, id: &InstanceId, plan: Box<InstancePlan>) {
        let behaviour = self.behaviour(id, &plan);
        let Some(host) = self.nodes.get_mut(node) else { return };
        let there = host.disk.artifacts.contains_key(&plan.artifact.digest);
        let wait = if there { 5 } else { behaviour.fetch_ms(&mut host.random) };
        let (node, id) = (node.clone(), id.clone());
        self.queue.push(self.now + wait, Happening::FetchEnds { node, life, id, plan });
    }

    /// A fetch ends: the bytes are looked at, whether they came now or lay there before.
    pub(crate) fn fetch_ends(&mut self, node: &NodeName, life: u64, id: &InstanceId, plan: &InstancePlan) {
        if !self.has_agent(node, life) {
            return;
        }
        let (reachable, behaviour) = (self.can_fetch(node), self.behaviour(id, plan));
        let verifies = self.options.mutation != Some(Mutation::VerifySkipped);
        let spoiled = self.faults_on && self.random.network.percent(4);
        let release = plan.release;
        let failed =
            |reason: &str, trouble| Event::StageFailed { release, reason: reason.to_owned(), trouble };
        let Some(host) = self.nodes.get_mut(node) else { return };
        let digest = plan.artifact.digest;
        if verifies && host.disk.artifacts.get(&digest) == Some(&false) {
            host.disk.artifacts.remove(&digest);
        }
        let there = host.disk.artifacts.contains_key(&digest);
        let event = if behaviour == Behaviour::Unusable {
            failed("not a tar archive", Trouble::Final)
        } else if there {
            Event::Staged(release)
        } else if !reachable {
            failed("the coordinator cannot be reached", Trouble::Passing)
        } else if spoiled && verifies {
            failed("the digest differs", Trouble::Passing)
        } else {
            host.disk.artifacts.insert(digest, !spoiled);
            Event::Staged(release)
        };
        self.agent_steps(node, life, id, event);
    }

    fn start_run(
        &mut self,
        node: &NodeName,
        id: &InstanceId,
        number: RunNumber,
        plan: Box<InstancePlan>,
        beside: Option<RunNumber>,
    ) {
        let verifies = self.options.mutation != Some(Mutation::VerifySkipped);
        let fails = self.faults_on && self.random.faults.percent(1);
        let behaviour = self.behaviour(id, &plan);
        let Some(host) = self.nodes.get_mut(node) else { return };
        let key = (id.clone(), number);
        if let Some(run) = host.runs.get(&key) {
            // Said again after a restart: it is there already.
            let started = run.pid.map(|pid| Event::Started { run: number, pid, ports: ports_of(number) });
            started.into_iter().for_each(|event| self.agent_hears_soon(node, id, event, 1));
            return;
        }
        let intact = host.disk.artifacts.get(&plan.artifact.digest).copied();
        if fails || (verifies && intact != Some(true)) {
            let reason =
                if fails { "address in use" } else { "the bytes on disk are not those of the release" };
            let event = Event::StartFailed { run: number, reason: reason.to_owned() };
            return self.agent_hears_soon(node, id, event, 5);
        }
        let run = Run {
            number,
            release: plan.release,
            plan,
            behaviour,
            pid: None,
            execution: 0,
            executed_at: 0,
            restarts: 0,
            crashes: 0,
            last_exit: None,
            down: false,
            ready: false,
            serving: beside.is_none(),
            stopping: false,
            drain: None,
            replaced_at: None,
        };
        host.runs.insert(key, run);
        self.ledger.begins(&UpstreamId { instance: id.clone(), run: number });
        self.execute(node, id, number);
    }

    /// The files of a release are written for a run that goes on: it behaves as that release from now on. Now and then
    /// they cannot be written, and none is.
    fn refresh(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber, plan: Box<InstancePlan>) {
        let behaviour = self.behaviour(id, &plan);
        let now = self.now;
        let Some(host) = self.nodes.get_mut(node) else { return };
        if self.faults_on && host.random.percent(5) {
            let event = Event::RefreshFailed { run: number, reason: "no space".to_owned() };
            return self.agent_hears_soon(node, id, event, 5);
        }
        let Some(run) = host.runs.get_mut(&(id.clone(), number)) else { return };
        run.release = plan.release;
        run.plan = plan;
        run.behaviour = behaviour;
        self.trace.line(now, &format!("{node} {id} run {number} has the files of release {}", run.release));
        if run.pid.is_some() {
            // What the release before would have done by itself is void.
            self.executions += 1;
            run.execution = self.executions;
            let (execution, was_ready) = (run.execution, run.ready);
            let sudden = (behaviour == Behaviour::NeverReady).then_some((50, Change::Unready));
            let script = behaviour.script(false).into_iter().chain(sudden);
            for (after, change) in script.filter(|(_, change)| !(was_ready && *change == Change::Ready)) {
                let (node, id) = (node.clone(), id.clone());
                let change = Happening::WorkloadChanges { node, id, run: number, execution, change };
                self.queue.push(now + after, change);
            }
        }
        self.agent_hears_soon(node, id, Event::Refreshed(number), 5);
    }

    fn behaviour(&self, id: &InstanceId, plan: &InstancePlan) -> Behaviour {
        let key = (id.service.clone(), plan.release);
        self.behaviours.get(&key).copied().unwrap_or(Behaviour::Good { start_ms: 100 })
    }

    fn set_serving(&mut self, node: &NodeName, id: &InstanceId, run: RunNumber, serving: bool) {
        let now = self.now;
        if let Some(run) = self.nodes.get_mut(node).and_then(|host| host.runs.get_mut(&(id.clone(), run))) {
            run.serving = serving;
            run.replaced_at = (!serving).then_some(now);
        }
    }

    fn drain(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber, within: Millis) {
        let (now, skipped) = (self.now, self.options.mutation == Some(Mutation::DrainSkipped));
        let Some(host) = self.nodes.get_mut(node) else { return };
        let longest = within.0 + within.0 / 2;
        let ends = now + host.random.between(0, longest);
        let until = now + within.0;
        let mut wait = ends.min(until) - now;
        if let Some(run) = host.runs.get_mut(&(id.clone(), number)) {
            let (ends, until) = *run.drain.get_or_insert((ends, until));
            wait = ends.min(until).saturating_sub(now);
        }
        if skipped {
            wait = 0;
        }
        let cut = u32::from(ends > until);
        let (node, id, life) = (node.clone(), id.clone(), host.life);
        let event = Event::Drained { run: number, cut };
        self.queue.push(now + wait, Happening::AgentHears { node, life, id, event });
    }

    fn stop_run(&mut self, node: &NodeName, id: &InstanceId, number: RunNumber, timeout: Millis) {
        let now = self.now;
        self.judge_stop(node, id, number);
        let Some(host) = self.nodes.get_mut(node) else { return };
        if let Some(agent) = &mut host.agent {
            agent.checks.remove(&(id.clone(), number));
        }
        let Some(run) = host.runs.get_mut(&(id.clone(), number)) else {
            return self.agent_hears_soon(node, id, Event::Stopped { run: number, killed: false }, 2);
        };
        if run.stopping {
            return;
        }
        run.stopping = true;
        run.ready = false;
        run.serving = false;
        let stubborn = host.random.percent(10);
        let wait = if stubborn { timeout.0 } else { host.random.between(1, timeout.0.min(500)) };
        let (node, id, boot) = (node.clone(), id.clone(), host.boot);
        self.trace.line(now, &format!("{node} {id} run {number} is stopped"));
        self.queue.push(now + wait, Happening::StopEnds { node, boot, id, run: number });
    }

    /// The next check of a run is made within its interval.
    pub(crate) fn check_soon(&mut self, node: &NodeName, id: &InstanceId, run: RunNumber) {
        let Some(host) = self.nodes.get_mut(node).filter(|host| host.agent.is_some()) else { return };
        let (life, wait) = (host.life, host.random.between(1, 700));
        let (node, id) = (node.clone(), id.clone());
        self.queue.push(self.now + wait, Happening::CheckAnswers { node, life, id, run });
    }

    /// A check tells the machine what changed.
    pub(crate) fn check_answers(&mut self, node: &NodeName, life: u64, id: &InstanceId, number: RunNumber) {
        if !self.has_agent(node, life) {
            return;
        }
        let Some(host) = self.nodes.get_mut(node) else { return };
        let key = (id.clone(), number);
        let Some(ready) = host.runs.get(&key).map(|run| run.ready) else { return };
        let Some(told) = host.agent.as_mut().and_then(|agent| agent.checks.get_mut(&key)) else { return };
        if *told != Some(ready) {
            *told = Some(ready);
            let detail = if ready { "200" } else { "503" };
            self.agent_steps(node, life, id, Event::Health { run: number, ready, detail: detail.to_owned() });
        }
    }
}
