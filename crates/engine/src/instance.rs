//! The agent's brain: the states of one instance, and the swap of its release.
//!
//! The agent persists an [`Instance`] before it carries out the effects of a step. After its own restart it tells
//! the instance which runs are alive ([`Event::Resumed`]); the step then says again every effect that is still due,
//! so effects must be idempotent per run.

use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::observed::{Exit, InstanceObserved};
use baton_model::plan::InstancePlan;
use baton_model::spec::StopSignal;
use baton_model::time::{BootMs, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node's plan for it: `None` means it should stop and be gone. Sent on every change and after a restart.
    Plan(Option<Box<InstancePlan>>),
    /// After an agent restart: the runs that are alive under a proven shim, with the workload's state.
    Resumed(BTreeMap<RunNumber, AdoptedRun>),
    /// The release is unpacked and verified on this node.
    Staged(ReleaseNumber),
    /// It could not be fetched, unpacked, verified or honoured. `retry`: trying again may help (network, disk space).
    StageFailed { release: ReleaseNumber, reason: String, retry: bool },
    /// The workload of a run was executed (also after each restart by the shim).
    Started { run: RunNumber, pid: u32, ports: BTreeMap<String, u16> },
    /// The run could not be started at all (no shim, no socket: an address in use, say).
    StartFailed { run: RunNumber, reason: String },
    /// The workload ended. `restart_in`: the shim will start it again after this; `None`: it stays down.
    Exited { run: RunNumber, exit: Exit, restarts: u32, restart_in: Option<Millis>, crash_loop: bool },
    /// The readiness of a run changed (startup and readiness checks together; a run without checks is ready when started).
    Health { run: RunNumber, ready: bool, detail: String },
    /// The liveness check failed.
    NotLive { run: RunNumber, detail: String },
    /// New connections now go to this run.
    Steered(RunNumber),
    /// The run's connections are done, or the deadline passed with `cut` of them open.
    Drained { run: RunNumber, cut: u32 },
    /// The run's processes are gone and it was confirmed; `killed`: not by the stop signal alone.
    Stopped { run: RunNumber, killed: bool },
    /// The shim of the run is gone without having been told to go; what was left of the workload was removed.
    ShimLost(RunNumber),
    /// A time set by an earlier step has come, or may have.
    Timer,
}

/// A run that was found alive after an agent restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedRun {
    /// The release it runs.
    pub release: ReleaseNumber,
    /// The workload's process, where it runs now.
    pub pid: Option<u32>,
    /// Its ports.
    pub ports: BTreeMap<String, u16>,
    /// Restarts so far.
    pub restarts: u32,
    /// The last end of the workload, if any.
    pub last_exit: Option<Exit>,
    /// It is in a crash loop.
    pub crash_loop: bool,
}

/// What the agent must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, unpack and verify the release of this plan; answer [`Event::Staged`] or [`Event::StageFailed`].
    Stage(Box<InstancePlan>),
    /// Start a shim and its workload; verify the bytes again first. Sockets of kind `socket` are shared with
    /// `beside` where it is given, and new connections keep going there until [`Effect::Steer`].
    Start { run: RunNumber, plan: Box<InstancePlan>, beside: Option<RunNumber> },
    /// Begin the checks of a run; answers come as [`Event::Health`] and [`Event::NotLive`].
    Check { run: RunNumber, plan: Box<InstancePlan> },
    /// Send new connections to this run from now on; answer [`Event::Steered`].
    Steer { run: RunNumber, from: Option<RunNumber> },
    /// Wait for the run's open connections to end, at most this long; answer [`Event::Drained`].
    Drain { run: RunNumber, within: Millis },
    /// End the checks, signal, wait, kill, confirm empty; answer [`Event::Stopped`].
    Stop { run: RunNumber, signal: StopSignal, timeout: Millis },
    /// Restart the workload under its shim (liveness failed): signal, wait, kill, start.
    Restart { run: RunNumber, signal: StopSignal, timeout: Millis },
    /// Remove what a stopped run left on the node.
    Forget(RunNumber),
    /// Put this into the node's event journal.
    Note { warning: bool, kind: &'static str, message: String },
}

/// One instance on one node. Persisted whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
}

impl Instance {
    /// An instance of which nothing runs yet.
    #[must_use]
    pub fn new(id: InstanceId) -> Self {
        Self { id }
    }

    /// Takes one event in and says what must be done now.
    pub fn step(&mut self, _event: Event, _now: BootMs) -> Vec<Effect> {
        Vec::new()
    }

    /// When [`Event::Timer`] is due at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<BootMs> {
        None
    }

    /// Whether nothing is left of it and the agent may forget it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        true
    }

    /// What is reported to the coordinator; second, for how long it has been ready without a break.
    #[must_use]
    pub fn observe(&self, _now: BootMs) -> Option<(InstanceObserved, Option<Millis>)> {
        None
    }
}
