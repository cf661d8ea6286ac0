//! One session: Hello, Welcome, then both sides talk until one of them falls silent.

use super::{Said, Session};
use crate::clock;
use crate::driver::{Instruction, Snapshot};
use crate::journal::{Draft, Entry};
use crate::logs;
use crate::upgrade::Ask;
use baton_model::observed::NodeFacts;
use baton_model::plan::NodePlan;
use baton_model::time::UnixMs;
use baton_proto::convert::WireError;
use baton_proto::convert::configuration::provision;
use baton_proto::convert::observed::instance_to_wire;
use baton_proto::identity::{Identity, renew_when_due};
use baton_proto::v1::{
    self, agent_message::Message as Say, agent_service_client::AgentServiceClient,
    coordinator_message::Message as Hear,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tonic::transport::Channel;

/// Messages that wait to be sent. Most are small; log lines come in batches of 32 KiB.
const OUTBOX_MAX: usize = 16;
/// A coordinator that has not said Welcome by then is none.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// Observations at most this often, so that a burst of changes is one message.
const OBSERVED_EVERY: Duration = Duration::from_millis(20);
/// Events read from the journal at a time.
const EVENTS_BATCH: usize = 32;
/// Log requests answered at a time.
const LOG_REQUESTS_MAX: usize = 32;

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
    /// A newer session of this node exists.
    Replaced,
    /// The certificate is fresh; the next session uses it.
    Renewed,
}

impl Ended {
    /// Whether the coordinator had taken us in.
    pub(super) fn was_welcome(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Closed | Self::Broken(_) | Self::Silent(_) | Self::Replaced | Self::Renewed => true,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "the coordinator does not take this node in: {why}"),
            Self::Closed => f.write_str("the coordinator closed the session"),
            Self::Broken(why) => write!(f, "the session broke: {why}"),
            Self::Silent(length) => write!(f, "nothing was heard for {} ms", length.as_millis()),
            Self::Replaced => f.write_str("a newer session of this node took the place of this one"),
            Self::Renewed => f.write_str("the certificate was renewed"),
        }
    }
}

/// Serves one session over `channel` to its end.
pub(super) async fn serve(
    session: &mut Session,
    address: &str,
    channel: Channel,
    identity: &Identity,
    said: &mut Said,
) -> Ended {
    let (out, outbox) = mpsc::channel(OUTBOX_MAX);
    let failure = session.upgrade.failure.borrow_and_update().clone();
    let hello = v1::Hello {
        facts: Some(NodeFacts { upgrade_failure: failure, ..session.facts.clone() }.into()),
        generation: session.outlook.observed.borrow().generation.0,
        address: session.node.address.to_string(),
    };
    if out.try_send(message(Say::Hello(hello))).is_err() {
        return Ended::Refused("the outbox is full".to_owned());
    }
    let began = async {
        let mut client = AgentServiceClient::new(channel.clone());
        let mut heard = client.session(ReceiverStream::new(outbox)).await?.into_inner();
        let first = heard.message().await?;
        Ok::<_, tonic::Status>((heard, first))
    };
    let (heard, first) = match tokio::time::timeout(WELCOME_WITHIN, began).await {
        Ok(Ok(began)) => began,
        Ok(Err(status)) => return Ended::Refused(status.message().to_owned()),
        Err(_) => return Ended::Refused(format!("it said nothing for {} s", WELCOME_WITHIN.as_secs())),
    };
    let welcome = match first.and_then(|first| first.message) {
        Some(Hear::Welcome(welcome)) => welcome,
        Some(Hear::Replaced(_)) => return Ended::Replaced,
        Some(_) | None => return Ended::Refused("it did not begin with Welcome".to_owned()),
    };
    session.connected(address, said);
    session.link.send_replace(Some(channel.clone()));
    let mut talk = Talk::new(session, out, &welcome);
    let renewal = renew_when_due(channel, identity.clone(), session.state.identity_dir(), |error| {
        tracing::warn!(error = crate::driver::told(error), "the node's certificate could not be renewed yet");
    });
    tokio::select! {
        ended = talk.until_end(heard, session) => ended,
        () = renewal => {
            tracing::info!("the node's certificate was renewed");
            Ended::Renewed
        }
    }
}

/// The session after its Welcome.
struct Talk {
    out: mpsc::Sender<v1::AgentMessage>,
    heartbeat_every: Duration,
    silence: Duration,
    heartbeats: u64,
    last_heard: Instant,
    observed_at: Option<Instant>,
    /// A change waits to be sent at this time.
    observe_due: Option<Instant>,
    /// The newest event said in this session.
    events_said: u64,
    logs: BTreeMap<u64, AbortOnDropHandle<()>>,
}

impl Talk {
    fn new(session: &mut Session, out: mpsc::Sender<v1::AgentMessage>, welcome: &v1::Welcome) -> Self {
        // Whatever the coordinator says, neither side's patience goes below what a busy machine needs.
        let floor = Duration::from_millis(10);
        session.outlook.observed.mark_changed();
        session.metrics.mark_changed();
        Self {
            out,
            heartbeat_every: Duration::from_millis(welcome.heartbeat_ms).max(floor),
            silence: Duration::from_millis(welcome.silence_ms).max(floor),
            heartbeats: 0,
            last_heard: Instant::now(),
            observed_at: None,
            observe_due: None,
            events_said: 0,
            logs: BTreeMap::new(),
        }
    }

    async fn until_end(
        &mut self,
        mut heard: Streaming<v1::CoordinatorMessage>,
        session: &mut Session,
    ) -> Ended {
        let mut beat = tokio::time::interval(self.heartbeat_every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = session.journal.subscribe();
        events.mark_changed();
        loop {
            let silent_at = self.last_heard + self.silence;
            let went_on = tokio::select! {
                heard = heard.message() => match heard {
                    Ok(Some(heard)) => self.hear(heard, session).await,
                    Ok(None) => Err(Ended::Closed),
                    Err(status) => Err(Ended::Broken(status.message().to_owned())),
                },
                () = tokio::time::sleep_until(silent_at) => Err(Ended::Silent(self.silence)),
                _ = beat.tick() => {
                    self.heartbeats += 1;
                    self.say(Say::Heartbeat(v1::Heartbeat { sequence: self.heartbeats })).await
                }
                Ok(()) = session.outlook.observed.changed(), if self.observe_due.is_none() => {
                    // Noted and sent later: what changes meanwhile goes with it.
                    self.observe_due = Some(self.observed_at.map_or_else(Instant::now, |at| at + OBSERVED_EVERY));
                    Ok(())
                }
                () = sleep_until(self.observe_due) => {
                    self.observe_due = None;
                    self.observed_at = Some(Instant::now());
                    let observed = observed(&session.outlook.observed.borrow_and_update());
                    self.say(Say::Observed(observed)).await
                }
                Ok(()) = session.metrics.changed() => {
                    let sample = session.metrics.borrow_and_update().clone();
                    match sample {
                        Some(sample) => self.say(Say::Metrics(sample.into())).await,
                        None => Ok(()),
                    }
                }
                Ok(()) = session.upgrade.failure.changed() => {
                    let failure = session.upgrade.failure.borrow_and_update().clone();
                    match failure {
                        Some(failure) => self.say(Say::UpgradeFailure(failure.into())).await,
                        None => Ok(()),
                    }
                }
                Ok(()) = events.changed() => {
                    events.borrow_and_update();
                    self.say_events(session).await
                }
            };
            if let Err(ended) = went_on {
                return ended;
            }
        }
    }

    async fn hear(&mut self, heard: v1::CoordinatorMessage, session: &mut Session) -> Result<(), Ended> {
        self.last_heard = Instant::now();
        match heard.message {
            // That it came is all there is to an echo. A message of a later version is passed over.
            Some(Hear::Heartbeat(_) | Hear::Welcome(_)) | None => {}
            Some(Hear::Plan(plan)) => match NodePlan::try_from(plan) {
                Ok(plan) => session.instruct(Instruction::Plan(plan)).await?,
                Err(error) => session.journal.record(Draft::error(
                    "plan-refused",
                    format!("a plan cannot be understood, is the coordinator newer than this agent? {error}"),
                )),
            },
            Some(Hear::Provision(sent)) => match provision(sent) {
                Ok((service, provision)) => {
                    session.instruct(Instruction::Provision(service, provision)).await?;
                }
                Err(error) => session.journal.record(Draft::error(
                    "provision-refused",
                    format!("what a service is provided with cannot be understood, is the coordinator newer than this agent? {error}"),
                )),
            },
            Some(Hear::UpgradeAgent(asked)) => match ask(asked) {
                Ok(ask) => drop(session.upgrade.asks.send_replace(Some(ask))),
                Err(error) => tracing::warn!(error, "an upgrade cannot be understood, is the coordinator newer than this agent?"),
            },
            Some(Hear::EventsStored(stored)) => session.journal.stored_through(stored.through),
            Some(Hear::LogRequest(request)) => self.begin_logs(request, session).await?,
            Some(Hear::LogCancel(cancel)) => drop(self.logs.remove(&cancel.request)),
            Some(Hear::Replaced(_)) => return Err(Ended::Replaced),
        }
        Ok(())
    }

    async fn begin_logs(&mut self, request: v1::LogRequest, session: &Session) -> Result<(), Ended> {
        self.logs.retain(|_, task| !task.is_finished());
        let number = request.request;
        if self.logs.len() >= LOG_REQUESTS_MAX {
            let error = format!("this node already answers {LOG_REQUESTS_MAX} log requests; end one of them");
            let lines = v1::LogLines { request: number, end: true, error, ..v1::LogLines::default() };
            return self.say(Say::LogLines(lines)).await;
        }
        let task = tokio::spawn(logs::serve(Arc::clone(&session.state), request, self.out.clone()));
        self.logs.insert(number, AbortOnDropHandle::new(task));
        Ok(())
    }

    async fn say_events(&mut self, session: &Session) -> Result<(), Ended> {
        loop {
            let entries = session.journal.after(self.events_said, EVENTS_BATCH);
            if entries.is_empty() {
                return Ok(());
            }
            let (now, wall_now) = (clock::boot_now(), clock::wall_now_ms());
            for entry in entries {
                self.events_said = entry.sequence;
                let ago_ms = session.journal.ago_ms(&entry, now, wall_now);
                self.say(Say::Event(event(entry, ago_ms))).await?;
            }
        }
    }

    /// Puts a message into the outbox. One that stays full means that the coordinator reads no more.
    async fn say(&self, say: Say) -> Result<(), Ended> {
        match tokio::time::timeout(self.silence, self.out.send(message(say))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Closed),
            Err(_) => Err(Ended::Silent(self.silence)),
        }
    }
}

impl Session {
    /// Hands the driver what the coordinator said.
    async fn instruct(&self, instruction: Instruction) -> Result<(), Ended> {
        self.instructions.send(instruction).await.map_err(|_| Ended::Closed)
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn ask(asked: v1::UpgradeAgent) -> Result<Ask, String> {
    let artifact = asked.artifact.ok_or("it names no program")?;
    Ok(Ask {
        request: asked.request,
        version: asked.version.parse().map_err(|error| format!("{error}"))?,
        artifact: artifact.try_into().map_err(|error: WireError| error.to_string())?,
    })
}

fn message(say: Say) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(say) }
}

fn observed(snapshot: &Snapshot) -> v1::Observed {
    // On the wire it is only told for how long an instance has been ready, so both times may be of the boot clock.
    let now = UnixMs(clock::boot_now().0);
    let instances = snapshot.instances.iter().map(|(id, (seen, ready_since))| {
        let mut seen = seen.clone();
        seen.ready_since = ready_since.map(|since| UnixMs(since.0));
        instance_to_wire(id, seen, now)
    });
    v1::Observed { generation: snapshot.generation.0, instances: instances.collect() }
}

fn event(entry: Entry, ago_ms: u64) -> v1::AgentEvent {
    v1::AgentEvent {
        sequence: entry.sequence,
        ago_ms,
        severity: v1::Severity::from(entry.severity).into(),
        kind: entry.kind,
        message: entry.message,
        instance: entry.instance.map(|id| id.to_string()),
        fields: entry.fields,
    }
}
