//! What an instance remembers: persisted whole before any effect of a step is carried out.

use super::Instance;
use super::event::AdoptedRun;
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::lifecycle::RunKind;
use baton_model::observed::{Exit, ReloadObserved};
use baton_model::plan::InstancePlan;
use baton_model::spec::{RestartMode, StopPolicy, StopSignal};
use baton_model::time::{BootMs, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// First wait before a failed fetch or start is tried again; doubles with each failure.
const RETRY_BASE: Millis = Millis::secs(1);
/// Longest such wait: an operator who mends the cause sees the next try within half a minute.
pub(super) const RETRY_MAX: Millis = Millis::secs(30);

/// The release that serves, or that is being brought up where none serves yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Current {
    /// Nothing here.
    Absent,
    /// A first release is being fetched, or waits to be fetched again.
    Fetching { plan: Box<InstancePlan>, retry: Retry },
    /// Fetched and verified; waits for its start, or to be started again.
    Staged { plan: Box<InstancePlan>, retry: Retry },
    /// Under a shim. The run says whether it is starting, ready or down.
    Running(Run),
    /// Stopped to make way for a candidate that needs the same fixed port; started again if the swap ends without it.
    Parked { plan: Box<InstancePlan> },
    /// Cannot be fetched, and trying again would not help: waits for another release or attempt.
    Failed { plan: Box<InstancePlan>, reason: String },
    /// A job that has done its work; nothing of it runs any more.
    Done { plan: Box<InstancePlan>, run: RunNumber, restarts: u32, since: BootMs },
}

impl Current {
    /// What it runs, or should.
    pub(super) fn plan(&self) -> Option<&InstancePlan> {
        match self {
            Self::Absent => None,
            Self::Fetching { plan, .. }
            | Self::Staged { plan, .. }
            | Self::Parked { plan }
            | Self::Failed { plan, .. }
            | Self::Done { plan, .. } => Some(plan),
            Self::Running(run) => Some(&run.plan),
        }
    }

    /// Its run, where there is one.
    pub(super) fn run(&self) -> Option<&Run> {
        match self {
            Self::Running(run) => Some(run),
            Self::Absent
            | Self::Fetching { .. }
            | Self::Staged { .. }
            | Self::Parked { .. }
            | Self::Failed { .. }
            | Self::Done { .. } => None,
        }
    }
}

/// When something that failed is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retry {
    /// Failures in a row.
    pub(super) failures: u32,
    /// The next try; `None` while one is under way or allowed at once.
    pub(super) at: Option<BootMs>,
    /// Why the last try failed.
    pub(super) reason: String,
    /// That passes only when somebody acts.
    #[serde(default)]
    pub(super) lasting: bool,
}

impl Retry {
    /// One more failure: waits longer than after the one before.
    pub(super) fn failed(&mut self, reason: String, now: BootMs) {
        let wait = Millis(RETRY_BASE.0.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX.0));
        self.failures = self.failures.saturating_add(1);
        self.at = Some(now.plus(wait));
        self.reason = reason;
        self.lasting = false;
    }

    /// Somebody has acted: what waits is tried at once.
    pub(super) fn hurry(&mut self, now: BootMs) {
        self.at = self.at.map(|_| now);
        self.lasting = false;
    }

    /// Whether a wait was set and is over.
    pub(super) fn is_due(&self, now: BootMs) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

/// One shim and its workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) number: RunNumber,
    pub(super) plan: Box<InstancePlan>,
    /// The workload was executed at least once: a run that is not alive after a restart was lost, not unstarted.
    pub(super) started: bool,
    pub(super) pid: Option<u32>,
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) restarts: u32,
    pub(super) crash_loop: bool,
    pub(super) last_exit: Option<Exit>,
    /// The shim will not start it again.
    pub(super) down: bool,
    pub(super) ready_since: Option<BootMs>,
    /// The last check's answer, or the last end, for people.
    pub(super) reason: String,
    /// Starts that failed and shims that were lost since it was last ready.
    pub(super) failures: u32,
    /// The last line it wrote to stderr before it last ended.
    #[serde(default)]
    pub(super) last_words: String,
    /// Its files are being brought up to date with its peers; these signals tell it.
    #[serde(default)]
    pub(super) refresh: Option<Vec<StopSignal>>,
    /// When that is tried again, where it could not be done.
    #[serde(default)]
    pub(super) refresh_retry: Retry,
    /// It waits for its files to be mended.
    #[serde(default)]
    pub(super) damaged: bool,
    /// The latest reload that it was asked for, or was started after.
    #[serde(default)]
    pub(super) reload: Option<ReloadObserved>,
    /// The workload of which the shim was told that it is ready.
    #[serde(default)]
    pub(super) told_ready: Option<u32>,
}

/// How a workload ended, as its shim told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) restarts: u32,
    pub(super) restart_in: Option<Millis>,
    pub(super) crash_loop: bool,
    pub(super) last_words: String,
    pub(super) damage: Option<String>,
}

impl Run {
    pub(super) fn new(number: RunNumber, plan: Box<InstancePlan>, failures: u32) -> Self {
        Self {
            number,
            plan,
            started: false,
            pid: None,
            ports: BTreeMap::new(),
            restarts: 0,
            crash_loop: false,
            last_exit: None,
            down: false,
            ready_since: None,
            reason: String::new(),
            failures,
            last_words: String::new(),
            damaged: false,
            refresh: None,
            refresh_retry: Retry::default(),
            reload: None,
            told_ready: None,
        }
    }

    /// Notes that the workload was executed.
    pub(super) fn started(&mut self, pid: u32, ports: BTreeMap<String, u16>, now: BootMs) {
        self.started = true;
        self.down = false;
        self.damaged = false;
        self.pid = Some(pid);
        self.ports = ports;
        self.ready_since = None;
        self.starts_loaded();
        if !has_readiness(&self.plan) {
            self.became_ready(now);
        }
    }

    /// Notes that its checks pass. Ignored while no workload runs: the answer is about one that is gone.
    pub(super) fn became_ready(&mut self, now: BootMs) {
        if self.pid.is_some() && self.ready_since.is_none() {
            self.ready_since = Some(now);
            self.failures = 0;
        }
    }

    /// Notes that the workload ended.
    pub(super) fn exited(&mut self, ended: &Ended) {
        let Ended { exit, restarts, restart_in, crash_loop, ref last_words, ref damage } = *ended;
        self.started = true;
        self.pid = None;
        self.ready_since = None;
        self.last_exit = Some(exit);
        self.restarts = restarts;
        self.crash_loop = crash_loop;
        self.down = restart_in.is_none();
        self.damaged = damage.is_some();
        self.last_words.clone_from(last_words);
        if let Some(damage) = damage {
            self.reason = format!("not started: {damage}; its files are being fetched anew");
            return;
        }
        self.reason = match restart_in {
            Some(wait) if crash_loop => format!("ended with {exit} again; started again in {wait}"),
            Some(wait) => format!("ended with {exit}; started again in {wait}"),
            None => format!("ended with {exit} and stays down: its restart policy says so"),
        };
        if !last_words.is_empty() {
            self.reason = format!("{}; its last words: {last_words}", self.reason);
        }
    }

    /// Takes over what a shim tells after the agent was away. Readiness is kept where the same workload still runs:
    /// an agent's restart is no reason to count it out.
    pub(super) fn adopt(&mut self, found: &AdoptedRun, now: BootMs) {
        let same_workload = self.pid.is_some() && self.pid == found.pid;
        if found.pid.is_some() && !same_workload {
            self.starts_loaded();
        }
        self.pid = found.pid;
        self.ports = found.ports.clone();
        self.restarts = found.restarts;
        // A shim knows of its own run only; one before it may have ended with the host.
        self.last_exit = found.last_exit.or(self.last_exit);
        self.crash_loop = found.crash_loop;
        if found.pid.is_some() {
            self.started = true;
            self.down = false;
        }
        if !same_workload {
            self.ready_since = None;
            if !has_readiness(&self.plan) {
                self.became_ready(now);
            }
        }
    }

    /// Whether it is in a crash loop. A run that has held for long enough has left it, as the shim itself counts.
    pub(super) fn is_in_crash_loop(&self, now: BootMs) -> bool {
        let enough = self.plan.spec.restart.reset_after;
        self.crash_loop && self.ready_since.is_none_or(|since| now.since(since) < enough)
    }

    /// When something is due of it at the latest.
    pub(super) fn wake_at(&self) -> Option<BootMs> {
        let held = self.ready_since.filter(|_| self.crash_loop);
        let over = held.map(|since| since.plus(self.plan.spec.restart.reset_after));
        over.into_iter().chain(self.refresh_retry.at).min()
    }

    /// What [`Run::is_in_crash_loop`] says no longer is forgotten, and so told.
    pub(super) fn forget_crash_loop(&mut self, now: BootMs) {
        self.crash_loop &= self.is_in_crash_loop(now);
    }

    /// Whether the last end was one its policy is content with.
    pub(super) fn ended_well(&self) -> bool {
        self.down
            && self.last_exit == Some(Exit::Code(0))
            && self.plan.spec.restart.mode == RestartMode::OnFailure
    }
}

/// A change of release under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swap {
    pub(super) plan: Box<InstancePlan>,
    /// A fixed port on either side: the old process must be gone before the new one starts.
    pub(super) stop_first: bool,
    pub(super) phase: Phase,
}

/// How far a swap is, up to the moment its candidate serves. What follows is a [`Leaving`] run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// The new release is being fetched; a passing trouble is retried until the deadline.
    Staging { retry: Retry, deadline: BootMs },
    /// Stop first: the old run is leaving.
    StoppingOld,
    /// The candidate runs and must be ready by the deadline.
    Confirming { run: Run, deadline: BootMs },
    /// The candidate is ready; new connections are being turned to it. From here there is no way back but another swap.
    Steering { run: Run },
    /// Nothing differs but files: they are being written for the run that serves, which is told by these signals; once
    /// it is told, it is on trial. `unsure`: an earlier agent may have written them and not told.
    Refreshing {
        run: RunNumber,
        signals: Vec<StopSignal>,
        trial: Option<Trial>,
        #[serde(default)]
        unsure: bool,
    },
}

/// A run that was told of new files and has not proven itself with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// Its checks have had the time to fail by then.
    pub(super) settles_at: BootMs,
    /// One that is not ready by then does not stand.
    pub(super) deadline: BootMs,
}

/// A swap that failed: not tried again until the plan says another release or a higher attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FailedSwap {
    pub(super) release: ReleaseNumber,
    pub(super) attempt: u32,
    pub(super) reason: String,
}

/// A run on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) release: ReleaseNumber,
    pub(super) stop: StopPolicy,
    /// It binds a fixed port: nothing that needs the port may start before it is gone.
    pub(super) exclusive: bool,
    pub(super) why: Why,
    /// Until when its connections are waited for; `None` once it is being stopped.
    pub(super) drain_until: Option<BootMs>,
    /// Gateways may send requests to it: its drain begins when the plan says that they let go of it, or when that has
    /// not come by the end of its time.
    #[serde(default)]
    pub(super) routed: bool,
}

/// Why a run leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Why {
    /// The release named took its place.
    Replaced { to: ReleaseNumber, attempt: u32 },
    /// It was the candidate of a swap that ended without it.
    Reverted { to: ReleaseNumber, attempt: u32 },
    /// Stop first: it makes way for a candidate.
    MakingWay,
    /// The plan no longer names the instance, or it is started afresh.
    Removed,
    /// It was found alive and is not known.
    Stranger,
    /// Its job is done.
    Finished,
}

/// Whether a plan has any port that its workload binds itself and that cannot be bound twice.
pub(super) fn has_fixed_port(plan: &InstancePlan) -> bool {
    plan.spec.ports.values().any(|port| port.kind.is_exclusive())
}

/// Whether more than a start makes it ready.
fn has_readiness(plan: &InstancePlan) -> bool {
    let job = plan.spec.lifecycle.kind == RunKind::OneShot;
    let notifies = plan.spec.lifecycle.notify.ready_within.is_some();
    job || notifies || plan.spec.checks.startup.is_some() || plan.spec.checks.readiness.is_some()
}

impl Instance {
    /// The current run or the candidate, whichever has this number.
    pub(super) fn run_mut(&mut self, number: RunNumber) -> Option<&mut Run> {
        self.runs_mut().find(|run| run.number == number)
    }

    pub(super) fn runs_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        let current = match &mut self.current {
            Current::Running(run) => Some(run),
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => None,
            Current::Parked { .. } | Current::Failed { .. } | Current::Done { .. } => None,
        };
        let candidate = self.swap.as_mut().and_then(|swap| match &mut swap.phase {
            Phase::Confirming { run, .. } | Phase::Steering { run } => Some(run),
            Phase::Staging { .. } | Phase::StoppingOld | Phase::Refreshing { .. } => None,
        });
        current.into_iter().chain(candidate)
    }

    pub(super) fn candidate(&self) -> Option<&Run> {
        self.swap.as_ref().and_then(|swap| match &swap.phase {
            Phase::Confirming { run, .. } | Phase::Steering { run } => Some(run),
            Phase::Staging { .. } | Phase::StoppingOld | Phase::Refreshing { .. } => None,
        })
    }
}
