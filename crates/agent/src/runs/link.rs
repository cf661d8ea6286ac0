//! The task of a live run: passes orders to the shim and its events to the agent, and comes again when the
//! connection breaks while the shim lives.

use super::channel::Channel;
use super::event::{RunEvent, RunEventKind};
use super::handle::{Notified, Order, RunState, Shared, Stopped};
use super::lost;
use super::process::Held;
use super::record::Stored;
use crate::shim::protocol::{Ended, HookFailed, Identity, LogDropped, Message, ReloadEnd, Request, State};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};

/// Between attempts to reach a shim that lives: it is held up, or out of descriptors.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// The first answer on a connection.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Everything the task of a run has.
pub(super) struct Link {
    pub(super) directory: PathBuf,
    pub(super) stored: Stored,
    pub(super) shim: Identity,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<RunEvent>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// The shim, where this agent started it: to be reaped.
    pub(super) child: Option<Child>,
    /// The last end that was told.
    pub(super) told_seq: u64,
    /// The workload whose start was told.
    pub(super) told_pid: u32,
    /// Ends that nobody has acknowledged are told anew on each connection. The workload that already runs, and the end
    /// after which it was started: its start is told once more, after that end.
    pub(super) runs_since: Option<(u64, u32)>,
}

/// The workload that runs now, where ends before its start are still to be told after `told_seq`.
pub(super) fn runs_since(state: &State, told_seq: u64) -> Option<(u64, u32)> {
    (state.last_seq > told_seq && state.workload.pid != 0).then_some((state.last_seq, state.workload.pid))
}

/// Why a connection ended.
enum Broken {
    /// The shim closed it, or is gone.
    Closed,
    /// Another agent took over; it is its run now.
    Replaced,
    /// The agent wants no more events: it ends.
    Unwanted,
}

/// Says the cookie and takes the answer.
pub(super) async fn hello(channel: &Channel, stored: &Stored) -> io::Result<State> {
    let greet = async {
        channel.send(&Request::Hello { cookie: stored.cookie }, 1, &[]).await?;
        channel.receive().await
    };
    let answer = tokio::time::timeout(HELLO_WITHIN, greet).await.map_err(|_| io::ErrorKind::TimedOut)??;
    match answer.map(|incoming| incoming.message) {
        Some(Message::State(state)) => Ok(state),
        Some(Message::Refused(refusal)) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("it refused: {refusal:?}")))
        }
        Some(other) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("it answered {other:?}"))),
        None => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

impl Link {
    /// Lives as long as the shim, or until another agent takes over.
    /// `early` came before the task began.
    pub(super) async fn run(mut self, mut channel: Channel, early: Vec<Message>) {
        for message in &early {
            self.take(message).await;
        }
        loop {
            let mut quitting = false;
            match self.talk(&channel, &mut quitting).await {
                Broken::Replaced => {
                    tracing::warn!(run = %self.directory.display(), "another agent has taken this run over");
                    return;
                }
                Broken::Unwanted => return,
                Broken::Closed => {}
            }
            match self.reconnect(quitting).await {
                Some(again) => channel = again,
                None => break,
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// Passes messages until the connection breaks.
    async fn talk(&mut self, channel: &Channel, quitting: &mut bool) -> Broken {
        let mut waiting: BTreeMap<u32, oneshot::Sender<Message>> = BTreeMap::new();
        let mut id = 1_u32;
        let mut orders_open = true;
        loop {
            tokio::select! {
                incoming = channel.receive() => {
                    let Ok(Some(incoming)) = incoming else { return Broken::Closed };
                    if incoming.message == Message::Replaced {
                        return Broken::Replaced;
                    }
                    if !self.take(&incoming.message).await {
                        return Broken::Unwanted;
                    }
                    if let Some(reply) = waiting.remove(&incoming.id) {
                        let _ = reply.send(incoming.message);
                    }
                }
                order = self.orders.recv(), if orders_open => {
                    let Some(order) = order else {
                        orders_open = false;
                        continue;
                    };
                    id = id.wrapping_add(1).max(2);
                    *quitting = order.request == Request::Quit;
                    // Answers that nobody waits for any more (the caller gave up) do not pile up.
                    waiting.retain(|_, reply| !reply.is_closed());
                    waiting.insert(id, order.reply);
                    if channel.send(&order.request, id, &[]).await.is_err() {
                        return Broken::Closed;
                    }
                }
            }
        }
    }

    /// Takes one message in. False when nobody takes events any more.
    async fn take(&mut self, message: &Message) -> bool {
        match *message {
            Message::State(state) => {
                self.shared.update(|shared| *shared = RunState::from(&state));
                true
            }
            Message::Started { pid, restarts } => {
                self.shared.update(|state| {
                    state.pid = Some(pid);
                    state.notified = Notified::default();
                    state.restarts = u32::try_from(restarts).unwrap_or(u32::MAX);
                });
                self.tell_started(pid).await
            }
            Message::Exited(ended) => self.take_ended(&ended).await,
            Message::Stopped { killed } => {
                self.shared.update(|state| {
                    state.stopped = Some(Stopped { killed });
                    state.pid = None;
                });
                self.tell(RunEventKind::Stopped { killed }).await
            }
            Message::Notified(notified) => {
                self.shared.update(|state| state.notified = Notified::from(&notified));
                self.tell(RunEventKind::Notified).await
            }
            Message::HookFailed(HookFailed { point, end, ref note }) => {
                let last_line = String::from_utf8_lossy(note.bytes()).into_owned();
                self.tell(RunEventKind::HookFailed { point, end, last_line }).await
            }
            Message::Reloaded { number, end } => {
                self.tell(RunEventKind::Reloaded { number, failure: why_not_reloaded(end) }).await
            }
            Message::LogDropped(LogDropped { drops, file_began, journal_began }) => {
                self.shared.update(|state| state.log_drops = drops);
                self.tell(RunEventKind::LogDropped { file_began, journal_began }).await
            }
            Message::Done | Message::Listeners { .. } | Message::Refused(_) | Message::Replaced => true,
        }
    }

    async fn take_ended(&mut self, ended: &Ended) -> bool {
        if ended.seq <= self.told_seq {
            return true;
        }
        if !self.tell_ended(ended).await {
            return false;
        }
        let since = self.runs_since.take_if(|(seq, _)| *seq <= ended.seq);
        let Some((_, pid)) = since.filter(|(seq, _)| *seq == ended.seq) else { return true };
        self.shared.update(|state| state.pid = Some(pid));
        self.told_pid = 0;
        self.tell_started(pid).await
    }

    async fn tell_ended(&mut self, ended: &Ended) -> bool {
        self.told_seq = ended.seq;
        self.shared.update(|state| {
            state.last_exit = Some(ended.exit);
            state.crash_loop = ended.crash_loop;
            state.pid = None;
        });
        if ended.stopping {
            return true;
        }
        let note = String::from_utf8_lossy(ended.note.bytes()).into_owned();
        self.tell(RunEventKind::Exited {
            exit: ended.exit,
            restarts: u32::try_from(ended.restarts).unwrap_or(u32::MAX),
            restart_in: ended.restart_in_ms.map(Millis),
            crash_loop: ended.crash_loop,
            seq: ended.seq,
            last_stderr: if ended.damaged { String::new() } else { note.clone() },
            damage: ended.damaged.then_some(note),
        })
        .await
    }

    async fn tell_started(&mut self, pid: u32) -> bool {
        if self.told_pid == pid {
            return true;
        }
        self.told_pid = pid;
        let ports = self.stored.record.ports.clone();
        self.tell(RunEventKind::Started { pid, ports }).await
    }

    async fn tell(&self, kind: RunEventKind) -> bool {
        let event =
            RunEvent { instance: self.stored.record.instance.clone(), run: self.stored.record.run, kind };
        self.events.send(event).await.is_ok()
    }

    /// A new connection, or `None` when the shim is gone (and that was told, unless it was asked to go).
    async fn reconnect(&mut self, quitting: bool) -> Option<Channel> {
        loop {
            if Held::prove(self.shim).is_none() || self.child_has_ended() {
                if !quitting {
                    lost::clean(&self.directory, &self.stored).await;
                    self.tell(RunEventKind::ShimLost).await;
                }
                return None;
            }
            match self.try_connect().await {
                Ok(channel) => return Some(channel),
                Err(error) => {
                    tracing::debug!(%error, run = %self.directory.display(), "reaching a shim again");
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                }
            }
        }
    }

    /// A shim that has ended and was not reaped keeps its identity: only its parent can tell.
    fn child_has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Connects and tells what was missed. Ends that were missed follow from the shim by themselves.
    async fn try_connect(&mut self) -> io::Result<Channel> {
        let channel = connect(&self.directory, &self.stored, self.shim).await?;
        let state = channel.1;
        let missed_an_end = state.last_seq > self.told_seq;
        self.runs_since = runs_since(&state, self.told_seq);
        self.shared.update(|shared| *shared = RunState::from(&state));
        let channel = channel.0;
        while missed_an_end && self.told_seq < state.last_seq {
            match channel.receive().await? {
                Some(incoming) => {
                    self.take(&incoming.message).await;
                }
                None => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
        if state.workload.pid != 0 {
            self.shared.update(|shared| shared.pid = Some(state.workload.pid));
            self.tell_started(state.workload.pid).await;
        }
        Ok(channel)
    }
}

/// Why a reload failed, if it did, for people.
fn why_not_reloaded(end: ReloadEnd) -> Option<String> {
    match end {
        ReloadEnd::Done => None,
        ReloadEnd::Failed(end) => Some(format!("its reload command: {end}")),
        ReloadEnd::Deaf => Some("it did not send READY=1 within the reload's timeout".to_owned()),
        ReloadEnd::Ended => Some("its workload ended meanwhile".to_owned()),
    }
}

/// Connects to the shim with this identity and proves both sides to each other.
pub(super) async fn connect(
    directory: &Path,
    stored: &Stored,
    shim: Identity,
) -> io::Result<(Channel, State)> {
    let channel = Channel::connect(directory, shim.pid)?;
    let state = hello(&channel, stored).await?;
    if state.shim != shim || state.mark != stored.mark {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is the shim of another run"));
    }
    Ok((channel, state))
}
