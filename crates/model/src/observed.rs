//! What is: reported by agents, kept by the coordinator's sessions, never stored.

pub use crate::evidence::series::EvidenceSeries;
pub use crate::evidence::trial::TrialObserved;

use crate::confinement::Ability;
use crate::id::{
    Digest, GatewayName, Generation, InstanceId, NodeName, ReleaseNumber, RouteRevision, RunNumber,
    ServiceName, TableRevision,
};
use crate::metrics::Usage;
use crate::route::UpstreamId;
use crate::time::UnixMs;
use crate::upgrade::UpgradeFailure;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything the coordinator knows of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The nodes that have been heard since the coordinator started.
    pub nodes: BTreeMap<NodeName, NodeObserved>,
    /// When this coordinator began to listen; a node never heard is silent since then.
    pub listening_since: UnixMs,
    /// The gateways that have been heard since the coordinator started.
    #[serde(default)]
    pub gateways: BTreeMap<GatewayName, GatewayObserved>,
    /// What the gateways together counted lately, of the services that are being watched.
    #[serde(skip)]
    pub evidence: BTreeMap<ServiceName, EvidenceSeries>,
    /// What they counted of comparisons of two releases.
    #[serde(skip)]
    pub trials: BTreeMap<ServiceName, TrialObserved>,
    /// What their instances used lately, oldest first, of the services that have a bound to it.
    #[serde(skip)]
    pub usage: BTreeMap<InstanceId, Arc<VecDeque<Usage>>>,
}

/// What is known of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayObserved {
    /// When it was last heard, on the coordinator's clock.
    pub last_heard: UnixMs,
    /// The revision of each route that it serves by; a route that is not named here it does not have.
    pub routes: BTreeMap<ServiceName, RouteRevision>,
    /// Requests and connections still in flight to runs that its routes no longer name.
    pub busy: BTreeMap<UpstreamId, u64>,
    /// Services whose route it has and cannot serve, each with why.
    #[serde(default)]
    pub unserved: BTreeMap<ServiceName, String>,
}

/// What a gateway says of itself: by what it serves, and what is still in flight beside it. Both are of one moment: who
/// reads that a route no longer names a run reads in the same breath what that run still has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayState {
    /// The table that it serves by and has on disk; 0: none.
    pub table: TableRevision,
    /// The revision of each route in it.
    pub routes: BTreeMap<ServiceName, RouteRevision>,
    /// Requests and connections in flight to runs that the routes no longer name.
    pub busy: BTreeMap<UpstreamId, u64>,
    /// The latest table that it did not take, until it takes one.
    pub refused: Option<TableRefused>,
    /// Services whose route is in force and cannot be served, each with why: the port of a TCP route is taken, say.
    #[serde(default)]
    pub unserved: BTreeMap<ServiceName, String>,
}

/// A table that a gateway did not take; it goes on by the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRefused {
    /// Which.
    pub revision: TableRevision,
    /// Why not.
    pub reason: String,
}

/// What a gateway is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFacts {
    /// Version of Baton that it runs.
    pub version: String,
    /// Where it listens for HTTP.
    pub http: Vec<SocketAddr>,
    /// Where it listens for HTTPS.
    pub https: Vec<SocketAddr>,
}

/// What is known of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeObserved {
    /// When it was last heard, on the coordinator's clock.
    pub last_heard: UnixMs,
    /// The generation of the plan it has persisted.
    pub generation: Generation,
    /// Its instances, whole.
    pub instances: BTreeMap<InstanceId, InstanceObserved>,
    /// Facts that change seldom.
    pub facts: NodeFacts,
}

/// Facts of a node that change seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The agent's version: its own, or what the operator called it who upgraded it.
    pub agent_version: String,
    /// The kernel's boot id; a new one means that everything before is gone.
    pub boot_id: String,
    /// Kernel release and machine, as in uname(2).
    pub kernel: String,
    /// Machine architecture, as in uname(2).
    pub arch: String,
    /// How processes are contained here: `cgroup2`, `cgroup2-hybrid` or `process-group`.
    pub containment: String,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// What it can honour of limits and sandboxes; `None` from an agent that does not tell yet.
    #[serde(default)]
    pub ability: Option<Ability>,
    /// SHA-256 of the program that the agent runs; `None` from an agent that cannot upgrade itself.
    #[serde(default)]
    pub program: Option<Digest>,
    /// The latest upgrade that it did not take, where it took none since.
    #[serde(default)]
    pub upgrade_failure: Option<UpgradeFailure>,
}

/// What is known of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceObserved {
    /// The release that serves, or that is being brought up where none serves yet.
    pub release: ReleaseNumber,
    /// Its state.
    pub state: InstanceState,
    /// Since when it is ready without a break, on the coordinator's clock.
    pub ready_since: Option<UnixMs>,
    /// Its run on the node.
    pub run: RunNumber,
    /// The workload's process id, while it runs.
    pub pid: Option<u32>,
    /// Ports the agent picked or holds, by name.
    pub ports: BTreeMap<String, u16>,
    /// Restarts of this run so far.
    pub restarts: u32,
    /// Crashes in a row have reached the policy's limit; it is retried slowly.
    pub crash_loop: bool,
    /// How the workload last ended, if it did.
    pub last_exit: Option<Exit>,
    /// Why it is in this state, for people.
    pub reason: String,
    /// A change of release under way, or one that failed.
    pub swap: Option<SwapObserved>,
    /// What the workload last said of itself (`STATUS=` of sd_notify(3)); empty where it said nothing.
    #[serde(default)]
    pub status: String,
    /// The latest reload that was asked for, where one was.
    #[serde(default)]
    pub reload: Option<ReloadObserved>,
    /// Output of this run that is in no log.
    #[serde(default)]
    pub log_drops: LogDrops,
}

/// Output of a run's workload that was taken from it and could not be kept, counted since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDrops {
    /// Lines that could not be written to its log files: the disk was full, or refused. What was rotated away is not
    /// counted: that is the log's bound.
    pub lines: u64,
    /// Bytes of the files that those would have been, with the parts of lines that were not whole.
    pub bytes: u64,
    /// Lines that the system's journal did not take, where they were to go there too.
    pub journal_lines: u64,
}

impl LogDrops {
    /// Nothing was dropped.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A reload of an instance's workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadObserved {
    /// Which, as [`crate::plan::InstancePlan::reload`] counts them.
    pub number: u64,
    /// How far it is.
    pub phase: ReloadPhase,
    /// Why it failed; empty otherwise.
    pub reason: String,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadPhase {
    /// It was asked of the workload.
    Running,
    /// The workload has taken its configuration in, or was started anew since.
    Done,
    /// It did not; the reason says why. The workload goes on as it was.
    Failed,
}

impl fmt::Display for ReloadPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

/// The states of an instance. `engine::instance` holds the machine and its drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Nothing here.
    Absent,
    /// Its artifact is being fetched.
    Fetching,
    /// Unpacked and verified, not started.
    Staged,
    /// The workload runs, or is about to be restarted, and is not yet ready.
    Starting,
    /// Its checks pass.
    Ready,
    /// It finishes what it has.
    Draining,
    /// It ended as it was told to.
    Stopped,
    /// It cannot run; the reason says why. It is retried.
    Failed,
}

impl InstanceState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Fetching,
        Self::Staged,
        Self::Starting,
        Self::Ready,
        Self::Draining,
        Self::Stopped,
        Self::Failed,
    ];
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Absent => "absent",
            Self::Fetching => "fetching",
            Self::Staged => "staged",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// A change of release inside an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapObserved {
    /// The release that is being brought in.
    pub to: ReleaseNumber,
    /// The plan's attempt this belongs to.
    pub attempt: u32,
    /// How far it is.
    pub phase: SwapPhase,
    /// Why it failed, or what it waits for.
    pub reason: String,
}

/// The phases of a swap: stage, start, confirm, then keep (drain the old) or revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwapPhase {
    /// The new artifact is being fetched and verified.
    Staging,
    /// A fixed port: the old process is being stopped first.
    StoppingOld,
    /// The new workload was started and is not yet ready.
    Confirming,
    /// The new release differs in nothing but files: they are being written, and the running workload is told.
    Refreshing,
    /// The new one serves; the old one finishes what it has.
    DrainingOld,
    /// The new one did not become ready; it is being removed, the old one serves on.
    Reverting,
    /// It failed; the old release serves, and nothing is tried until the plan changes.
    Failed,
}

impl fmt::Display for SwapPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Staging => "staging",
            Self::StoppingOld => "stopping-old",
            Self::Confirming => "confirming",
            Self::Refreshing => "refreshing",
            Self::DrainingOld => "draining-old",
            Self::Reverting => "reverting",
            Self::Failed => "failed",
        })
    }
}

/// How a workload ended, told by its cause where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it, and it was not Baton that sent it for one of the causes below.
    Signal(i32),
    /// It could not be executed; the value is the errno of execve(2).
    Exec(i32),
    /// This signal ended it, and the kernel wrote a core dump or had it written.
    CoreDump(i32),
    /// The kernel killed it since its control group had reached its memory limit (`oom_kill` of `memory.events`).
    OutOfMemory,
    /// It missed its watchdog, and was ended.
    Watchdog,
    /// It asked to be ended as if it had missed its watchdog (`WATCHDOG=trigger`).
    WatchdogTriggered,
    /// Its startup or liveness check failed, and it was ended.
    NotLive,
    /// It did not say `READY=1` in time, and was ended.
    StartDeadline,
    /// It was told to stop, was not gone at the deadline of its stop, and was killed.
    StopDeadline,
    /// It was not started, since its `before_start` hook failed.
    BeforeStart(HookEnd),
    /// It ended with its host, which was booted anew since: a loss of power, a crash of the kernel, a reboot.
    HostDown,
}

/// How a command of ours around a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum HookEnd {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be executed; the value is the errno of execve(2).
    Exec(i32),
    /// It took longer than its timeout, and was killed with all it had started.
    Timeout,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(c) => write!(f, "exit code {c}"),
            Self::Signal(s) => write!(f, "signal {s}"),
            Self::Exec(e) => write!(f, "could not be executed (errno {e})"),
            Self::CoreDump(s) => write!(f, "signal {s} and a core dump"),
            Self::OutOfMemory => write!(f, "killed for memory: its limit was reached"),
            Self::Watchdog => write!(f, "watchdog: it sent no WATCHDOG=1 in time"),
            Self::WatchdogTriggered => write!(f, "watchdog: it asked to be ended (WATCHDOG=trigger)"),
            Self::NotLive => write!(f, "check failed: it was not alive"),
            Self::StartDeadline => write!(f, "start deadline: it did not send READY=1 in time"),
            Self::StopDeadline => write!(f, "stop deadline: it was not gone in time and was killed"),
            Self::BeforeStart(end) => write!(f, "before_start hook: {end}"),
            Self::HostDown => write!(f, "host down: the host was booted anew"),
        }
    }
}

impl fmt::Display for HookEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(c) => write!(f, "exit code {c}"),
            Self::Signal(s) => write!(f, "signal {s}"),
            Self::Exec(e) => write!(f, "could not be executed (errno {e})"),
            Self::Timeout => write!(f, "not done within its timeout, and killed"),
        }
    }
}
