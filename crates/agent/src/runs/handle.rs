//! A live run, as the agent holds it.

use super::record::{RunRecord, Stored};
use super::sockets::Listener;
use crate::shim::protocol::{self, Message, Phase, Refusal, Request, State};
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::observed::{Exit, LogDrops};
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// A shim answers at once, unless its disk stands still while it writes logs.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

/// A live run. Cheap to clone; dropping it changes nothing for the run.
#[derive(Clone, Debug)]
pub struct RunHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Arc<[Listener]>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// What the handles and the task of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) record: RunRecord,
    state: watch::Sender<RunState>,
}

/// A request on its way to the run's task.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Message>,
}

impl Shared {
    pub(super) fn new(stored: &Stored, state: &State) -> Self {
        Self { record: stored.record.clone(), state: watch::Sender::new(RunState::from(state)) }
    }

    pub(super) fn state(&self) -> RunState {
        self.state.borrow().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut RunState)) {
        self.state.send_modify(change);
    }
}

impl From<&State> for RunState {
    fn from(state: &State) -> Self {
        Self {
            shim_pid: state.shim.pid,
            pid: Some(state.workload.pid).filter(|pid| *pid > 0),
            restarts: u32::try_from(state.restarts).unwrap_or(u32::MAX),
            crash_loop: state.crash_loop,
            last_exit: state.last_exit,
            stopped: (state.phase == Phase::Stopped).then_some(Stopped { killed: state.killed }),
            log_drops: state.log_drops,
            notified: Notified::from(&state.notified),
        }
    }
}

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
    /// Output that could not be kept since the run began.
    pub log_drops: LogDrops,
    /// What the workload that runs says of itself.
    pub notified: Notified,
}

/// What a workload says of itself, as in sd_notify(3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notified {
    /// It has said `READY=1`.
    pub ready: bool,
    /// It has said `RELOADING=1`, and not `READY=1` since.
    pub reloading: bool,
    /// It has said `STOPPING=1`.
    pub stopping: bool,
    /// Its last `STATUS=`, cut to a bound.
    pub status: String,
}

impl From<&protocol::Notified> for Notified {
    fn from(notified: &protocol::Notified) -> Self {
        let protocol::Notified { ready, reloading, stopping, status } = notified;
        // A status that was cut may end in the middle of a letter.
        let status = String::from_utf8_lossy(status.bytes()).trim_end_matches('\u{fffd}').to_owned();
        Self { ready: *ready, reloading: *reloading, stopping: *stopping, status }
    }
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
    #[error(
        "the shim of {instance} run {run} did not answer within {within_ms} ms; it may be held up by a full disk or a stopped machine"
    )]
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
        &self.shared.record.instance
    }
    /// The run.
    #[must_use]
    pub fn run(&self) -> RunNumber {
        self.shared.record.run
    }
    /// The release it runs.
    #[must_use]
    pub fn release(&self) -> ReleaseNumber {
        self.shared.record.release
    }
    /// Its ports, as in the spec.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<String, u16> {
        &self.shared.record.ports
    }
    /// Its listening sockets, in the order of the spec (after adoption: fetched from the shim).
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }
    /// What the shim last said; no question is asked.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.shared.state()
    }

    /// The same, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<RunState> {
        self.shared.state.subscribe()
    }

    /// Asks the shim how it is, then gives that: for what it tells with no event (dropped log bytes).
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn refresh(&self) -> Result<RunState, RunError> {
        self.ask(Request::State).await?;
        Ok(self.state())
    }

    /// Signals the workload, waits at most `timeout`, kills what is left, confirms that nothing is. Returns when the
    /// shim has taken the order; the end is told as `Stopped`, also when it was stopped already. The shim goes on
    /// with it without the agent. A second stop may only shorten the first one's timeout.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn stop(&self, signal: StopSignal, timeout: Millis) -> Result<(), RunError> {
        self.ask(Request::Stop { signal: signal_number(signal), timeout_ms: timeout.0 }).await
    }

    /// The same sequence, then starts the workload again, under the restart policy's delays: told as `Exited`
    /// (with `restart_in`) and `Started`. Ignored when the run is being stopped.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn restart(&self, signal: StopSignal, timeout: Millis) -> Result<(), RunError> {
        self.ask(Request::Restart { signal: signal_number(signal), timeout_ms: timeout.0 }).await
    }

    /// Sends a signal to the workload's main process; nothing where it does not run.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn signal(&self, signal: StopSignal) -> Result<(), RunError> {
        self.ask(Request::Signal { signal: signal_number(signal) }).await
    }

    /// Says that the workload with this process id is ready: its `after_ready` hook is run, once.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn ready(&self, pid: u32) -> Result<(), RunError> {
        self.ask(Request::Ready { pid }).await
    }

    /// Makes the workload reload; told as `Reloaded`. A reload of this number that was carried out is told again.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn reload(&self, number: u64) -> Result<(), RunError> {
        self.ask(Request::Reload { number }).await
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
        match self.ask(Request::Quit).await {
            Err(RunError::Gone { .. }) => Ok(()),
            result => result,
        }
    }

    /// Says that the end with this number is journalled: it is not told again after the next adoption.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn acknowledge(&self, seq: u64) -> Result<(), RunError> {
        self.ask(Request::Acknowledge { seq }).await
    }

    /// The processes of the run that live now, without the shim: for drains. One that has ended and is not reaped yet
    /// holds nothing, and is not among them. The kernel's lists are of one moment each, not all of the same: while
    /// processes come and go, one may be missed.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let below = super::process::descendants(self.state().shim_pid)?;
        Ok(below
            .into_iter()
            .filter(|pid| super::process::stat(*pid).is_some_and(|s| !s.has_ended()))
            .collect())
    }

    async fn ask(&self, request: Request) -> Result<(), RunError> {
        let (instance, run) = (self.instance().clone(), self.run());
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order { request, reply }).await.is_err() {
            return Err(RunError::Gone { instance, run });
        }
        match tokio::time::timeout(REPLY_WITHIN, answer).await {
            Err(_elapsed) => {
                Err(RunError::Silent { instance, run, within_ms: REPLY_WITHIN.as_millis() as u64 })
            }
            Ok(Err(_dropped)) => Err(RunError::Gone { instance, run }),
            Ok(Ok(Message::Refused(Refusal::Busy))) => Err(RunError::Busy { instance, run }),
            Ok(Ok(Message::Done | Message::State(_))) => Ok(()),
            Ok(Ok(other)) => Err(RunError::Io(io::Error::other(format!("an unexpected answer: {other:?}")))),
        }
    }
}

/// The signal's number on this machine.
pub(crate) fn signal_number(signal: StopSignal) -> i32 {
    match signal {
        StopSignal::Sigterm => libc::SIGTERM,
        StopSignal::Sigint => libc::SIGINT,
        StopSignal::Sigquit => libc::SIGQUIT,
        StopSignal::Sighup => libc::SIGHUP,
        StopSignal::Sigusr1 => libc::SIGUSR1,
        StopSignal::Sigusr2 => libc::SIGUSR2,
        StopSignal::Sigkill => libc::SIGKILL,
    }
}
