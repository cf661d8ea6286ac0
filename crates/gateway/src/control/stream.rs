//! One session: Hello, Welcome, then both sides talk until one of them falls silent.

use super::held::{CONNECTED, Control, Phase};
use super::shelf::Kept;
use crate::table::{Table, TableError};
use baton_model::id::TableRevision;
use baton_model::observed::{GatewayState, TableRefused};
use baton_model::route::{RouteTable, UpstreamId};
use baton_proto::identity::{Identity, renew_when_due};
use baton_proto::v1::{
    self, gateway_message::Message as Say, gateway_order::Message as Hear,
    gateway_service_client::GatewayServiceClient,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

/// Messages that wait to be sent.
const OUTBOX_MAX: usize = 16;
/// A coordinator that has not said Welcome by then is none.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// While something is in flight to runs that left, it is looked this often whether they are done: a stop waits for it.
const BUSY_EVERY: Duration = Duration::from_millis(20);
/// How many are in flight to each of them is told at most this often; that one is done, at once.
const COUNTS_EVERY: Duration = Duration::from_secs(1);
/// What was counted is reported this often.
const EVIDENCE_EVERY: Duration = Duration::from_secs(1);
/// The last report and the goodbye have this long to be taken, and as long a session that was about to begin for them.
const GOODBYE_WITHIN: Duration = Duration::from_secs(3);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It did not begin: what was called refused, or said nothing.
    Refused(String),
    /// The coordinator closed it.
    Closed,
    /// The connection broke.
    Broken(String),
    /// Nothing was heard for too long.
    Silent(Duration),
    /// A newer session of this gateway exists.
    Replaced,
    /// The next one begins at once: with a fresh certificate, or as a process that leaves.
    Anew,
    /// The gateway stops.
    Stopped,
}

impl Ended {
    /// Whether the coordinator had taken us in.
    pub(super) const fn was_welcome(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Closed
            | Self::Broken(_)
            | Self::Silent(_)
            | Self::Replaced
            | Self::Anew
            | Self::Stopped => true,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "the coordinator does not take this gateway in: {why}"),
            Self::Closed => f.write_str("the coordinator closed the session"),
            Self::Broken(why) => write!(f, "the session broke: {why}"),
            Self::Silent(length) => write!(f, "nothing was heard for {} ms", length.as_millis()),
            Self::Replaced => f.write_str("a newer session of this gateway took the place of this one"),
            Self::Anew => f.write_str("the session begins anew"),
            Self::Stopped => f.write_str("the gateway stops"),
        }
    }
}

/// Serves one session over `channel` to its end.
pub(super) async fn serve(
    control: &mut Control,
    address: &str,
    channel: Channel,
    identity: Identity,
    identity_dir: PathBuf,
    stop: &CancellationToken,
) -> Ended {
    let phase = *control.phase.borrow_and_update();
    let (out, outbox) = mpsc::channel(OUTBOX_MAX);
    let mut talk = Talk::new(control, phase, out);
    talk.said = talk.state(control);
    let hello = v1::GatewayHello {
        facts: Some(control.facts.clone().into()),
        state: Some(talk.said.clone().into()),
        leaving: phase == Phase::Leaving,
    };
    if talk.out.try_send(message(Say::Hello(hello))).is_err() {
        return Ended::Refused("the outbox is full".to_owned());
    }
    let began = async {
        let mut client = GatewayServiceClient::new(channel.clone());
        let mut heard = client.session(ReceiverStream::new(outbox)).await?.into_inner();
        let first = heard.message().await?;
        Ok::<_, tonic::Status>((heard, first))
    };
    let too_late = async {
        // What was counted last is still to be told: a process that leaves may have ended all that it had in flight before
        // its session has begun.
        stop.cancelled().await;
        tokio::time::sleep(GOODBYE_WITHIN).await;
    };
    let began = tokio::select! {
        began = tokio::time::timeout(WELCOME_WITHIN, began) => began,
        () = too_late => return Ended::Stopped,
    };
    let (heard, first) = match began {
        Ok(Ok(began)) => began,
        Ok(Err(status)) => return Ended::Refused(status.message().to_owned()),
        Err(_) => return Ended::Refused(format!("it said nothing for {} s", WELCOME_WITHIN.as_secs())),
    };
    match first.and_then(|first| first.message) {
        Some(Hear::Welcome(welcome)) => talk.welcomed(&welcome),
        Some(Hear::Replaced(_)) => return Ended::Replaced,
        Some(_) | None => return Ended::Refused("it did not begin with Welcome".to_owned()),
    }
    control.say(address, CONNECTED);
    let renewal = async {
        if phase == Phase::Leaving {
            // The process that took over renews it.
            return std::future::pending().await;
        }
        let failed = |error: &_| tracing::warn!(%error, "the gateway's certificate could not be renewed yet");
        renew_when_due(channel, identity, identity_dir, failed).await;
    };
    tokio::select! {
        ended = talk.until_end(heard, control, stop) => ended,
        () = renewal => Ended::Anew,
    }
}

/// The session after its Welcome.
struct Talk {
    out: mpsc::Sender<v1::GatewayMessage>,
    phase: Phase,
    kept: watch::Receiver<Kept>,
    heartbeat_every: Duration,
    silence: Duration,
    heartbeats: u64,
    last_heard: Instant,
    /// What was said of ourselves last, and when.
    said: GatewayState,
    said_at: Instant,
}

impl Talk {
    fn new(control: &Control, phase: Phase, out: mpsc::Sender<v1::GatewayMessage>) -> Self {
        let now = Instant::now();
        Self {
            out,
            phase,
            kept: control.shelf.kept(),
            heartbeat_every: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            heartbeats: 0,
            last_heard: now,
            said: GatewayState::default(),
            said_at: now,
        }
    }

    fn welcomed(&mut self, welcome: &v1::Welcome) {
        // Whatever the coordinator says, neither side's patience goes below what a busy machine needs.
        let floor = Duration::from_millis(10);
        self.heartbeat_every = Duration::from_millis(welcome.heartbeat_ms).max(floor);
        self.silence = Duration::from_millis(welcome.silence_ms).max(floor);
        self.last_heard = Instant::now();
    }

    async fn until_end(
        &mut self,
        mut heard: Streaming<v1::GatewayOrder>,
        control: &mut Control,
        stop: &CancellationToken,
    ) -> Ended {
        let ticks = |every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut beat, mut evidence, mut busy) =
            (ticks(self.heartbeat_every), ticks(EVIDENCE_EVERY), ticks(BUSY_EVERY));
        loop {
            let silent_at = self.last_heard + self.silence;
            let went_on = tokio::select! {
                () = stop.cancelled() => {
                    self.goodbye(heard, control).await;
                    return Ended::Stopped;
                }
                heard = heard.message() => match heard {
                    Ok(Some(heard)) => self.hear(heard, control).await,
                    Ok(None) => Err(Ended::Closed),
                    Err(status) => Err(Ended::Broken(status.message().to_owned())),
                },
                () = tokio::time::sleep_until(silent_at) => Err(Ended::Silent(self.silence)),
                Ok(()) = self.kept.changed() => self.say_state(control).await,
                Ok(()) = control.unserved.changed() => self.say_state(control).await,
                Ok(()) = control.phase.changed() => Err(Ended::Anew),
                _ = busy.tick(), if !self.said.busy.is_empty() || self.phase == Phase::Leaving => {
                    self.say_state(control).await
                }
                _ = beat.tick() => {
                    self.heartbeats += 1;
                    // Also tells what is refused, and what could not be told otherwise.
                    match self.say_state(control).await {
                        Ok(()) => self.say(Say::Heartbeat(v1::Heartbeat { sequence: self.heartbeats })).await,
                        Err(ended) => Err(ended),
                    }
                }
                _ = evidence.tick() => self.say_counted(control).await,
            };
            if let Err(ended) = went_on {
                return ended;
            }
        }
    }

    async fn hear(&mut self, heard: v1::GatewayOrder, control: &mut Control) -> Result<(), Ended> {
        self.last_heard = Instant::now();
        match heard.message {
            // That it came is all there is to an echo. A message of a later version is passed over.
            Some(Hear::Heartbeat(_) | Hear::Welcome(_)) | None => {}
            Some(Hear::Replaced(_)) => return Err(Ended::Replaced),
            Some(Hear::Table(table)) => take(table, control).await,
        }
        Ok(())
    }

    /// How this gateway stands. What is acknowledged is what is on disk; what is busy is told with it, of the same
    /// moment or a later one: a run that left the routes on disk left those in force before.
    fn state(&mut self, control: &Control) -> GatewayState {
        let unserved = control.unserved.borrow().clone();
        let Kept { table, routes } = self.kept.borrow_and_update().clone();
        let in_force = control.served.load();
        let busy = match self.phase {
            Phase::Serving => in_force.busy(),
            Phase::Leaving => in_flight(&in_force),
        };
        GatewayState { table, routes, busy, refused: control.refused.clone(), unserved }
    }

    /// Says how this gateway stands, where that has changed; numbers that only move are told from time to time.
    async fn say_state(&mut self, control: &Control) -> Result<(), Ended> {
        let state = self.state(control);
        let only_counts = state.busy.keys().eq(self.said.busy.keys())
            && GatewayState { busy: BTreeMap::new(), ..state.clone() }
                == GatewayState { busy: BTreeMap::new(), ..self.said.clone() };
        if state == self.said || only_counts && self.said_at.elapsed() < COUNTS_EVERY {
            return Ok(());
        }
        self.said = state.clone();
        self.said_at = Instant::now();
        self.say(Say::State(state.into())).await
    }

    /// Puts a message into the outbox. One that stays full means that the coordinator reads no more.
    async fn say(&self, say: Say) -> Result<(), Ended> {
        match tokio::time::timeout(self.silence, self.out.send(message(say))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Closed),
            Err(_) => Err(Ended::Silent(self.silence)),
        }
    }

    /// Says what was counted since it was said last.
    async fn say_counted(&self, control: &mut Control) -> Result<(), Ended> {
        let counted = control.reporter.next(&control.served.load(), std::time::Instant::now());
        self.say(Say::Evidence(counted.into())).await
    }

    /// Says what was counted to the end, and that nothing is in flight any more; then waits until the coordinator has read
    /// that, and so ended the session.
    async fn goodbye(&self, mut heard: Streaming<v1::GatewayOrder>, control: &mut Control) {
        let leave = async {
            if self.say_counted(control).await.is_ok() && self.say(Say::Goodbye(v1::Goodbye {})).await.is_ok()
            {
                while let Ok(Some(_)) = heard.message().await {}
            }
        };
        if tokio::time::timeout(GOODBYE_WITHIN, leave).await.is_err() {
            tracing::debug!("the coordinator was not told goodbye; it waits for the gateway's lease");
        }
    }
}

/// Puts a table in force and has it kept; it is acknowledged when it is on disk.
async fn take(table: v1::RouteTable, control: &mut Control) {
    let revision = TableRevision(table.revision);
    let taken = RouteTable::try_from(table).map_err(|error| {
        format!("it cannot be understood, is the coordinator newer than this gateway? {error}")
    });
    let taken = match taken {
        Ok(table) => install(control, &table).await.map(|()| table).map_err(|error| {
            error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        }),
        Err(reason) => Err(reason),
    };
    match taken {
        Ok(table) => {
            tracing::info!(revision = revision.0, routes = table.routes.len(), "serving by a new table");
            control.refused = None;
            control.shelf.put(Arc::new(table));
        }
        Err(reason) => {
            tracing::error!(
                revision = revision.0,
                reason,
                "a table is not taken; the one before stays in force"
            );
            control.refused = Some(TableRefused { revision, reason });
        }
    }
}

/// While the gateway drains, a table opens no ports any more; what it says of runs counts all the same.
async fn install(control: &Control, table: &RouteTable) -> Result<(), TableError> {
    match &*control.running.read().await {
        Some(gateway) => gateway.install(table).await.map(drop),
        None => control.served.install(table, std::time::Instant::now()).map(drop),
    }
}

/// Everything that is in flight, to runs that routes name and to those that left.
fn in_flight(table: &Table) -> BTreeMap<UpstreamId, u64> {
    let mut all = table.busy();
    for state in table.upstreams().filter(|state| state.in_flight() > 0) {
        all.insert(state.id().clone(), state.in_flight());
    }
    all
}

fn message(say: Say) -> v1::GatewayMessage {
    v1::GatewayMessage { message: Some(say) }
}
