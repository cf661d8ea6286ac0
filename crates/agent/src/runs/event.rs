//! What happens to a run, told by its shim.

use baton_engine::instance::Event;
use baton_model::id::{InstanceId, RunNumber};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::{Exit, HookEnd};
use baton_model::time::Millis;
use std::collections::BTreeMap;

/// One event of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// The instance.
    pub instance: InstanceId,
    /// The run.
    pub run: RunNumber,
    /// What happened.
    pub kind: RunEventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEventKind {
    /// The workload was executed.
    Started {
        /// Its process.
        pid: u32,
        /// Its ports, as in the spec.
        ports: BTreeMap<String, u16>,
    },
    /// The workload ended, and was not told to stop.
    Exited {
        /// How.
        exit: Exit,
        /// Restarts of this run so far, not counting the one that follows.
        restarts: u32,
        /// It is started again after this; `None`: it stays down.
        restart_in: Option<Millis>,
        /// Crashes in a row have reached the policy's limit.
        crash_loop: bool,
        /// Numbers the ends of this run from 1 without a gap; see `RunHandle::acknowledge`.
        seq: u64,
        /// The last line it wrote to stderr, cut to a bound; for exit code 127 it says which library is missing.
        last_stderr: String,
        /// It was not executed, since this of its files is not as it was when it was checked.
        damage: Option<String>,
    },
    /// The run was told to stop, and no process of it is left.
    Stopped {
        /// Not by the stop signal alone.
        killed: bool,
    },
    /// What the workload says of itself has changed: `RunHandle::state` has it.
    Notified,
    /// A hook that does not keep the workload from running has failed.
    HookFailed {
        /// Which.
        point: HookPoint,
        /// How.
        end: HookEnd,
        /// The last line it wrote.
        last_line: String,
    },
    /// A reload has ended.
    Reloaded {
        /// Which.
        number: u64,
        /// Why it failed, if it did, for people.
        failure: Option<String>,
    },
    /// Output could not be kept; `RunHandle::state` counts how much.
    LogDropped {
        /// Of the log files: that has just begun.
        file_began: bool,
        /// Of the system's journal: that has just begun.
        journal_began: bool,
    },
    /// The shim is gone without having been told to; what was left of the workload was removed.
    ShimLost,
}

impl RunEvent {
    /// As the engine takes it; `None` for what is for people alone.
    #[must_use]
    pub fn into_engine(self) -> Option<(InstanceId, Event)> {
        let run = self.run;
        let event = match self.kind {
            RunEventKind::Started { pid, ports } => Event::Started { run, pid, ports },
            RunEventKind::Exited { exit, restarts, restart_in, crash_loop, seq: _, last_stderr, damage } => {
                Event::Exited { run, exit, restarts, restart_in, crash_loop, last_words: last_stderr, damage }
            }
            RunEventKind::Stopped { killed } => Event::Stopped { run, killed },
            RunEventKind::ShimLost => Event::ShimLost(run),
            RunEventKind::Reloaded { number, failure } => Event::Reloaded { run, reload: number, failure },
            RunEventKind::Notified | RunEventKind::HookFailed { .. } | RunEventKind::LogDropped { .. } => {
                return None;
            }
        };
        Some((self.instance, event))
    }
}
