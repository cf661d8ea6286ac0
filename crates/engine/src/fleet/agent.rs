//! An agent as the coordinator sees it: it keeps its latest plan, takes [`START_MS`] for every start, and reports. The
//! real one is simulated in crate `baton-tests`; this one is small enough to read beside a test.

use crate::cycle::PlanRecord;
use crate::outcome::Assignment;
use baton_model::desired::Desired;
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber, ServiceName};
use baton_model::observed::{
    InstanceObserved, InstanceState, LogDrops, NodeFacts, NodeObserved, SwapObserved, SwapPhase,
};
use baton_model::time::{Millis, UnixMs};
use std::collections::{BTreeMap, BTreeSet};

/// How long every start takes.
pub const START_MS: Millis = Millis(1500);

/// One agent.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    /// It says nothing and hears nothing.
    pub silent: bool,
    /// Releases that never become ready here.
    pub bad: BTreeSet<(ServiceName, ReleaseNumber)>,
    /// A release whose instances run here and answer nothing any more.
    pub sick: Option<ReleaseNumber>,
    /// Its plan.
    pub plan: PlanRecord,
    /// Its instances.
    pub instances: BTreeMap<InstanceId, Running>,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct Running {
    /// What serves.
    pub release: ReleaseNumber,
    /// Since when it is ready.
    pub ready_since: Option<UnixMs>,
    run: RunNumber,
    started_at: UnixMs,
    failed: bool,
    swap: Option<(Assignment, UnixMs, SwapPhase)>,
}

impl Agent {
    /// Takes a plan, unless it has a newer one.
    pub fn take(&mut self, plan: PlanRecord, now: UnixMs, desired: &Desired) {
        if plan.generation > self.plan.generation {
            self.plan = plan;
        }
        self.work(now, desired);
    }

    /// Does what its plan says, as far as it can be done by now.
    pub fn work(&mut self, now: UnixMs, desired: &Desired) {
        let plan = &self.plan.assignments;
        self.instances.retain(|id, _| plan.contains_key(id));
        for (id, wanted) in plan {
            let bad = self.bad.contains(&(id.service.clone(), wanted.release));
            let instance = self.instances.entry(id.clone()).or_insert_with(|| Running {
                release: wanted.release,
                ready_since: None,
                run: RunNumber(1),
                started_at: now,
                failed: false,
                swap: None,
            });
            let fixed = [instance.release, wanted.release].iter().any(|number| {
                let release =
                    desired.services.get(&id.service).and_then(|service| service.releases.get(number));
                release.is_some_and(|r| r.spec.ports.values().any(|port| port.kind.is_exclusive()))
            });
            if instance.release == wanted.release {
                instance.start(bad, now);
            } else {
                instance.change(*wanted, bad, fixed, now);
            }
        }
    }

    /// What it reports.
    #[must_use]
    pub fn observe(&self, now: UnixMs) -> NodeObserved {
        let instances =
            self.instances.iter().map(|(id, instance)| (id.clone(), instance.observe(self.sick))).collect();
        NodeObserved {
            last_heard: now,
            generation: self.plan.generation,
            instances,
            facts: NodeFacts::default(),
        }
    }

    /// Instances of a service that are really ready here.
    #[must_use]
    pub fn ready(&self, service: &ServiceName) -> usize {
        self.instances.iter().filter(|(id, i)| id.service == *service && i.ready_since.is_some()).count()
    }
}

impl Running {
    /// Its process dies; it is started again.
    pub fn crash(&mut self, now: UnixMs) {
        self.ready_since = None;
        self.started_at = now;
    }

    fn start(&mut self, bad: bool, now: UnixMs) {
        self.swap = None;
        self.failed = bad && now.since(self.started_at) >= START_MS;
        if bad {
            self.ready_since = None;
        } else if self.ready_since.is_none() && now.since(self.started_at) >= START_MS {
            self.ready_since = Some(now);
        }
    }

    fn change(&mut self, wanted: Assignment, bad: bool, fixed: bool, now: UnixMs) {
        let same = |swap: &Assignment| (swap.release, swap.attempt) == (wanted.release, wanted.attempt);
        if self.swap.as_ref().is_none_or(|(swap, _, _)| !same(swap)) {
            self.swap = Some((wanted, now, SwapPhase::Confirming));
            if fixed {
                self.crash(now);
                self.run = self.run.next();
            }
        }
        let Some((_, since, phase)) = &mut self.swap else { return };
        if *phase == SwapPhase::Failed {
            self.ready_since.get_or_insert(now);
        } else if now.since(*since) >= START_MS && bad {
            *phase = SwapPhase::Failed;
        } else if now.since(*since) >= START_MS {
            *self = Self {
                release: wanted.release,
                ready_since: Some(now),
                run: if fixed { self.run } else { self.run.next() },
                started_at: now,
                failed: false,
                swap: None,
            };
        }
    }

    fn observe(&self, sick: Option<ReleaseNumber>) -> InstanceObserved {
        let ready_since = self.ready_since.filter(|_| sick != Some(self.release));
        let state = match ready_since {
            Some(_) => InstanceState::Ready,
            None if self.failed => InstanceState::Failed,
            None => InstanceState::Starting,
        };
        let swap = self.swap.map(|(swap, _, phase)| SwapObserved {
            to: swap.release,
            attempt: swap.attempt,
            phase,
            reason: if phase == SwapPhase::Failed { "its check failed".to_owned() } else { String::new() },
        });
        InstanceObserved {
            release: self.release,
            state,
            ready_since,
            run: self.run,
            pid: None,
            ports: BTreeMap::from([("main".to_owned(), 8080)]),
            restarts: 0,
            crash_loop: self.failed,
            last_exit: None,
            reason: String::new(),
            swap,
            status: String::new(),
            reload: None,
            log_drops: LogDrops::default(),
        }
    }
}
