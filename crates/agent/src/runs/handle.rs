//! A live run, as the agent holds it.

use super::sockets::Listener;
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::observed::Exit;
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::io;

/// A live run. Cheap to clone; dropping it changes nothing for the run.
#[derive(Clone, Debug)]
pub struct RunHandle {}

/// What the shim last said of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunState {
    /// The shim's process.
    pub shim_pid: u32,
    /// The workload's process, while it runs.
    pub pid: Option<u32>,
    /// Restarts so far.
    pub restarts: u32,
    /// Crashes in a row have reached the policy's limit.
    pub crash_loop: bool,
    /// How the workload last ended, if it did.
    pub last_exit: Option<Exit>,
    /// The run was stopped and is empty; `killed` is whether that needed SIGKILL.
    pub stopped: Option<Stopped>,
    /// Bytes of log that could not be written (disk full) since the run began.
    pub log_bytes_dropped: u64,
}

/// How a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Not by the stop signal alone.
    pub killed: bool,
}

/// A request to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The shim has gone; [`super::RunEventKind::ShimLost`] follows or has come, unless it was told to quit.
    #[error("the shim of {instance} run {run} is gone")]
    Gone {
        /// The instance.
        instance: InstanceId,
        /// The run.
        run: RunNumber,
    },
    /// The shim did not answer in time.
    #[error("the shim of {instance} run {run} did not answer within {within_ms} ms; it may be held up by a full disk or a stopped machine")]
    Silent {
        /// The instance.
        instance: InstanceId,
        /// The run.
        run: RunNumber,
        /// How long was waited.
        within_ms: u64,
    },
    /// Quit was asked while processes of the run are left.
    #[error("{instance} run {run} still has processes; stop it first")]
    Busy {
        /// The instance.
        instance: InstanceId,
        /// The run.
        run: RunNumber,
    },
    /// The connection failed.
    #[error("speaking with a shim")]
    Io(#[from] io::Error),
}

impl RunHandle {
    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        unimplemented!()
    }
    /// The run.
    #[must_use]
    pub fn run(&self) -> RunNumber {
        unimplemented!()
    }
    /// The release it runs.
    #[must_use]
    pub fn release(&self) -> ReleaseNumber {
        unimplemented!()
    }
    /// Its ports, as in the spec.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<String, u16> {
        unimplemented!()
    }
    /// Its listening sockets, in the order of the spec (after adoption: fetched from the shim).
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        unimplemented!()
    }
    /// What the shim last said; no question is asked.
    #[must_use]
    pub fn state(&self) -> RunState {
        unimplemented!()
    }
    /// Signals the workload, waits at most `timeout`, kills what is left, confirms that nothing is. Returns when the
    /// shim has taken the order; the end is told as `Stopped`, also when it was stopped already. The shim goes on
    /// with it without the agent. A second stop may only shorten the first one's timeout.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn stop(&self, _signal: StopSignal, _timeout: Millis) -> Result<(), RunError> {
        unimplemented!()
    }
    /// The same sequence, then starts the workload again, under the restart policy's delays: told as `Exited`
    /// (with `restart_in`) and `Started`. Ignored when the run is being stopped.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn restart(&self, _signal: StopSignal, _timeout: Millis) -> Result<(), RunError> {
        unimplemented!()
    }
    /// Stop without a warning.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn kill(&self) -> Result<(), RunError> {
        self.stop(StopSignal::Sigkill, Millis::ZERO).await
    }
    /// Ends the shim of a stopped run and closes its sockets there; then [`super::Runs::forget`] may be called.
    ///
    /// # Errors
    /// [`RunError::Busy`] when it is not stopped.
    pub async fn quit(&self) -> Result<(), RunError> {
        unimplemented!()
    }
    /// Says that the end with this number is journalled: it is not told again after the next adoption.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn acknowledge(&self, _seq: u64) -> Result<(), RunError> {
        unimplemented!()
    }
    /// The processes of the run now, without the shim: for metrics and for drains.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        unimplemented!()
    }
}
