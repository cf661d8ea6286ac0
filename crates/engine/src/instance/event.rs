//! What an instance is told, and what it asks for.

use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::BTreeMap;

/// What happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node's plan for it: `None` means it should stop and be gone. Sent on every change and after a restart.
    Plan(Option<Box<InstancePlan>>),
    /// After an agent restart.
    Resumed {
        /// The runs that are alive under a proven shim, with the workload's state.
        alive: BTreeMap<RunNumber, AdoptedRun>,
        /// The host was booted since this instance was last written: whatever ran has ended with it.
        booted: bool,
    },
    /// The release is unpacked and verified on this node.
    Staged(ReleaseNumber),
    /// It could not be fetched, unpacked, verified or honoured.
    StageFailed {
        /// Which release.
        release: ReleaseNumber,
        /// Why, for people.
        reason: String,
        /// Whether trying again may help.
        trouble: Trouble,
    },
    /// The workload of a run was executed (also after each restart by the shim).
    Started {
        /// Which run.
        run: RunNumber,
        /// The workload's process.
        pid: u32,
        /// Its ports by name.
        ports: BTreeMap<String, u16>,
    },
    /// The run could not be started at all (no shim, no socket: an address in use, say).
    StartFailed {
        /// Which run.
        run: RunNumber,
        /// Why, for people.
        reason: String,
    },
    /// The workload ended.
    Exited {
        /// Which run.
        run: RunNumber,
        /// How it ended.
        exit: Exit,
        /// Restarts of the run so far.
        restarts: u32,
        /// The shim will start it again after this; `None`: it stays down.
        restart_in: Option<Millis>,
        /// Crashes in a row have reached the policy's limit.
        crash_loop: bool,
        /// The last line it wrote to stderr, cut; empty: none.
        last_words: String,
        /// It was not executed, since this of its files is not as it was when it was checked.
        damage: Option<String>,
    },
    /// The files of the run's release were checked anew, and are good now.
    Mended {
        /// Which run.
        run: RunNumber,
        /// Something had changed or was missing, and was fetched anew.
        fetched: bool,
    },
    /// The files of the run's release are damaged and could not be fetched anew.
    MendFailed {
        /// Which run.
        run: RunNumber,
        /// Why, for people.
        reason: String,
    },
    /// The readiness of a run changed (startup and readiness checks together; a run without them is ready when started).
    Health {
        /// Which run.
        run: RunNumber,
        /// Whether it is ready now.
        ready: bool,
        /// What the last check answered, for people.
        detail: String,
    },
    /// The liveness check failed.
    NotLive {
        /// Which run.
        run: RunNumber,
        /// What the check answered, for people.
        detail: String,
    },
    /// New connections now go to this run.
    Steered(RunNumber),
    /// New connections could not be turned to this run, however often it was tried; they go where they went before.
    SteerFailed {
        /// Which run.
        run: RunNumber,
        /// Why, for people.
        reason: String,
    },
    /// The run's connections are done, or the deadline passed with some of them open.
    Drained {
        /// Which run.
        run: RunNumber,
        /// Connections that were still open at the deadline.
        cut: u32,
    },
    /// The run's processes are gone and it was confirmed.
    Stopped {
        /// Which run.
        run: RunNumber,
        /// They did not go by the stop signal alone.
        killed: bool,
    },
    /// The shim of the run is gone without having been told to go; what was left of the workload was removed.
    ShimLost(RunNumber),
    /// Whether the services on this node that it comes after are ready; asked for by [`super::Instance::waits_for`].
    Dependencies {
        /// What is not ready, for people; `None`: all of it is.
        unready: Option<String>,
    },
    /// A reload that was asked for has ended.
    Reloaded {
        /// Which run.
        run: RunNumber,
        /// Which reload.
        reload: u64,
        /// Why it failed, if it did, for people.
        failure: Option<String>,
    },
    /// The files of the plan that [`Effect::Refresh`] named are written, and the process was told.
    Refreshed(RunNumber),
    /// They could not be written; none of them was changed.
    RefreshFailed {
        /// Which run.
        run: RunNumber,
        /// Why, for people.
        reason: String,
    },
    /// The peers of a run are elsewhere now, so that files of its present plan have another text.
    Rerendered {
        /// Which run.
        run: RunNumber,
        /// What tells its process of those files.
        signals: Vec<StopSignal>,
    },
    /// What the instance is given beside its plan (peers, secrets) has come: what waited for it may be tried now.
    Provisioned,
    /// A time set by an earlier step has come, or may have.
    Timer,
}

/// What is to be expected of trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It may pass by itself (a network, a coordinator that is away).
    Passing,
    /// It passes when somebody acts (a full disk): told as a failure at once, and tried again where nothing serves.
    Lasting,
    /// The same would come of it (a program for other machines): not tried again.
    Final,
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

/// What the agent must do. Every effect may be said again after an agent restart and is idempotent per run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fetch, unpack and verify the release of this plan; answer [`Event::Staged`] or [`Event::StageFailed`].
    Stage(Box<InstancePlan>),
    /// Start a shim and its workload; verify the bytes again first. Sockets of kind `socket` are shared with
    /// `beside` where it is given, and new connections keep going there until [`Effect::Steer`].
    /// Answer [`Event::Started`] or [`Event::StartFailed`].
    Start {
        /// The new run.
        run: RunNumber,
        /// What it runs.
        plan: Box<InstancePlan>,
        /// The run that serves meanwhile.
        beside: Option<RunNumber>,
    },
    /// Begin the checks of a run, from the startup check on; answers come as [`Event::Health`] and [`Event::NotLive`].
    Check {
        /// Which run.
        run: RunNumber,
        /// Its checks are in here.
        plan: Box<InstancePlan>,
    },
    /// Send new connections to this run from now on; answer [`Event::Steered`].
    Steer {
        /// To this run.
        run: RunNumber,
        /// And no more to this one.
        from: Option<RunNumber>,
    },
    /// Wait for the run's open connections to end, at most this long; answer [`Event::Drained`].
    Drain {
        /// Which run.
        run: RunNumber,
        /// The longest wait from now.
        within: Millis,
    },
    /// End the checks, signal, wait, kill, confirm empty; answer [`Event::Stopped`].
    Stop {
        /// Which run.
        run: RunNumber,
        /// The signal that asks.
        signal: StopSignal,
        /// From the signal to the kill.
        timeout: Millis,
    },
    /// Restart the workload under its shim (liveness failed): signal, wait, kill, start.
    Restart {
        /// Which run.
        run: RunNumber,
        /// The signal that asks.
        signal: StopSignal,
        /// From the signal to the kill.
        timeout: Millis,
    },
    /// Check every byte of the release's files and fetch anew what is damaged; answer [`Event::Mended`] or
    /// [`Event::MendFailed`].
    Mend {
        /// The run that executes them.
        run: RunNumber,
        /// Its release.
        plan: Box<InstancePlan>,
    },
    /// Make the workload take in its configuration; answer [`Event::Reloaded`].
    Reload {
        /// Which run.
        run: RunNumber,
        /// Which reload: one that was carried out is not carried out again, only answered.
        number: u64,
    },
    /// Tell the shim that the workload which runs is ready, so that its `after_ready` hook is run.
    TellReady {
        /// Which run.
        run: RunNumber,
    },
    /// Write the files and secrets of this plan into the run's folders, all or none, then send its main process these
    /// signals; answer [`Event::Refreshed`] or [`Event::RefreshFailed`].
    Refresh {
        /// Which run.
        run: RunNumber,
        /// The files are in here.
        plan: Box<InstancePlan>,
        /// Each once.
        signals: Vec<StopSignal>,
    },
    /// Remove what a stopped run left on the node.
    Forget(RunNumber),
    /// Put this into the node's event journal.
    Note {
        /// It matters more than normal operation.
        warning: bool,
        /// A stable word.
        kind: &'static str,
        /// A sentence for people.
        message: String,
    },
}
