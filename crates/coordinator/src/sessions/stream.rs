//! One session: an agent's stream, from its hello to its end.

use super::boundary::{self, INSTANCES_MAX};
use super::{Changed, Heard, Opened, ready};
use crate::api::status::Refusal;
use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_engine::cycle::Versioned;
use baton_model::desired::Node;
use baton_model::event::{Event, Severity};
use baton_model::id::{EventSeq, Generation, InstanceId, NodeName, SessionId};
use baton_model::metrics::NodeMetrics;
use baton_model::observed::NodeObserved;
use baton_model::time::UnixMs;
use baton_proto::convert::event::agent_event;
use baton_proto::convert::observed::instances_observed;
use baton_proto::v1::{self, agent_message::Message, coordinator_message::Message as Answer};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// An agent must say hello within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Attempts to note a node's new address while others change its record.
const ADDRESS_ATTEMPTS_MAX: usize = 8;

/// The stream to the agent, as tonic takes it.
pub(crate) type Outbound = mpsc::Sender<Result<v1::CoordinatorMessage, Status>>;

/// Serves the session of `node` until it ends.
pub(crate) async fn serve(
    coordinator: Arc<Coordinator>,
    node: NodeName,
    mut inbound: Streaming<v1::AgentMessage>,
    outbound: Outbound,
) {
    let opened = match greet(&coordinator, &node, &mut inbound).await {
        Ok(opened) => opened,
        Err(refusal) => {
            // Nobody may be there any more to be told.
            let _ = outbound.send(Err(refusal.into())).await;
            return;
        }
    };
    let Opened { session, outbound: queue, ended, cut, .. } = opened;
    tracing::info!(%node, %session, "session began");
    let forward = tokio::spawn(forward(queue, outbound.clone(), cut, ended.clone()));
    let mut speaker = Speaker { coordinator: &coordinator, node: &node, session, foreign_told: false };
    let end = tokio::select! {
        () = ended.cancelled() => Ok(()),
        end = speaker.listen(&mut inbound) => end,
    };
    coordinator.sessions.close(&node, session);
    if !coordinator.sessions.is_connected(&node) {
        coordinator.logs.node_gone(&node);
    }
    if let Err(refusal) = end {
        tracing::warn!(%node, %session, error = %refusal, "session refused");
        let _ = outbound.try_send(Err(refusal.into()));
    }
    if let Err(error) = forward.await {
        tracing::error!(%node, %error, "the sending side of a session failed");
    }
    tracing::info!(%node, %session, "session ended");
}

/// Waits for the hello, checks it, and opens the session.
async fn greet(
    coordinator: &Coordinator,
    node: &NodeName,
    inbound: &mut Streaming<v1::AgentMessage>,
) -> Result<Opened, Refusal> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message()).await;
    let Ok(Ok(Some(v1::AgentMessage { message: Some(Message::Hello(hello)) }))) = first else {
        return Err(Refusal::Invalid(
            "a session begins with a hello, which did not come; upgrade the agent".to_owned(),
        ));
    };
    let address: IpAddr = hello.address.parse().map_err(|_| {
        Refusal::Invalid(format!("`{}` is not an IP address; start the agent with one", hello.address))
    })?;
    admit(coordinator, node, address).await?;
    let generation = Generation(hello.generation);
    // What an earlier session of it was asked ends with that session, which may still be there.
    coordinator.logs.node_gone(node);
    let opened = coordinator.sessions.open(node, hello.facts.unwrap_or_default().into(), generation);
    if opened.was_silent {
        coordinator.journal.record(vec![back(coordinator.clock.now(), node)]);
    }
    if opened.flapping {
        // The older side was told by `Replaced`; this is how the newer one learns of it.
        let event = flapping(coordinator.clock.now(), node);
        let refusal = Refusal::Contended(event.message.clone());
        coordinator.journal.record(vec![event]);
        coordinator.sessions.close(node, opened.session);
        return Err(refusal);
    }
    warn_if_ahead(coordinator, node, generation);
    Ok(opened)
}

/// The node must be one of the cluster's; its address is kept up to date.
async fn admit(coordinator: &Coordinator, node: &NodeName, address: IpAddr) -> Result<(), Refusal> {
    let key = records::node(node);
    for _ in 0..ADDRESS_ATTEMPTS_MAX {
        let Some(Versioned { revision, value: mut record }) = coordinator.records.get::<Node>(&key).await?
        else {
            return Err(Refusal::Denied(format!(
                "node `{node}` was removed from this cluster; make a token (`baton node token`) and join it again"
            )));
        };
        if record.address == address.to_string() {
            return Ok(());
        }
        record.address = address.to_string();
        match coordinator.records.put(&key, revision, &record).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::Contended(format!(
        "the record of node `{node}` changes all the time; the agent tries again by itself"
    )))
}

/// A node whose plan is newer than the store's: the store is an older copy, or the node was fed by another coordinator.
fn warn_if_ahead(coordinator: &Coordinator, node: &NodeName, has: Generation) {
    let view = coordinator.view.borrow();
    let stored = view.snapshot.plans.get(node).map_or(Generation(0), |plan| plan.value.generation);
    if has > stored {
        let message = format!(
            "node {node} has plan {has} and the store knows only up to {stored}: the store was restored from an older copy, or \
             another coordinator led this node. It gets a newer plan from what the store wants; check that this is what you want"
        );
        let mut event = event(coordinator.clock.now(), Severity::Error, "plan-ahead", message);
        event.node = Some(node.clone());
        coordinator.journal.record(vec![event]);
    }
}

/// Hands queued messages to the stream, until there are no more, the agent is gone, or the session is cut.
async fn forward(
    mut queue: mpsc::Receiver<v1::CoordinatorMessage>,
    outbound: Outbound,
    cut: tokio_util::sync::CancellationToken,
    ended: tokio_util::sync::CancellationToken,
) {
    let pass_on = async {
        while let Some(message) = queue.recv().await {
            if outbound.send(Ok(message)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = cut.cancelled() => {}
        () = pass_on => {}
    }
    ended.cancel();
}

/// Takes in what one agent says.
struct Speaker<'a> {
    coordinator: &'a Arc<Coordinator>,
    node: &'a NodeName,
    session: SessionId,
    /// A journal entry about foreign instances is made once per session.
    foreign_told: bool,
}

impl Speaker<'_> {
    /// Until the stream ends, falls silent, or says something that cannot be.
    async fn listen(&mut self, inbound: &mut Streaming<v1::AgentMessage>) -> Result<(), Refusal> {
        let silence = self.coordinator.sessions.timing.silence.duration();
        loop {
            let message = match tokio::time::timeout(silence, inbound.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(status)) => {
                    tracing::debug!(node = %self.node, %status, "the stream of a session broke");
                    return Ok(());
                }
                Err(_) => {
                    let silent = "nothing was heard for too long; the session is given up".to_owned();
                    return Err(Refusal::Unavailable(silent));
                }
            };
            match message.message {
                Some(message) => self.take(message)?,
                None => return Err(Refusal::Invalid(
                    "the agent sent something this coordinator does not know; upgrade the coordinator first"
                        .to_owned(),
                )),
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), Refusal> {
        match message {
            Message::Hello(_) => {
                return Err(Refusal::Invalid("a session has one hello only; upgrade the agent".to_owned()));
            }
            Message::Heartbeat(heartbeat) => {
                if self.hear(|_| Changed::No) {
                    self.answer(Answer::Heartbeat(heartbeat));
                }
            }
            Message::Observed(observed) => self.observe(observed)?,
            Message::Metrics(metrics) => {
                let metrics = metrics.try_into().map_err(invalid)?;
                if self.hear(|_| Changed::No) {
                    self.note_usage(&metrics);
                    self.coordinator.sessions.measured(self.node, metrics);
                }
            }
            Message::Event(event) => self.record(event)?,
            Message::UpgradeFailure(failure) => {
                self.hear(|known| {
                    known.facts.upgrade_failure = Some(failure.into());
                    Changed::Yes
                });
            }
            Message::LogLines(lines) => {
                if self.hear(|_| Changed::No) {
                    self.coordinator.logs.deliver(self.node, lines);
                }
            }
        }
        Ok(())
    }

    /// Keeps what instances use where a rollout asks for it.
    fn note_usage(&self, metrics: &NodeMetrics) {
        if !self.coordinator.usage.is_watching() {
            return;
        }
        let looks = self.coordinator.sessions.look();
        let node = looks.get(self.node);
        let running = |id: &InstanceId| Some(node.as_ref()?.observed.instances.get(id)?.release);
        self.coordinator.usage.take(metrics, running);
    }

    /// Notes a word of the node; `false` when a newer session speaks for it, and this word does not count.
    fn hear(&self, word: impl FnOnce(&mut NodeObserved) -> Changed) -> bool {
        match self.coordinator.sessions.hear(self.node, self.session, word) {
            Heard::Yes => true,
            Heard::AfterSilence => {
                self.coordinator.journal.record(vec![back(self.now(), self.node)]);
                true
            }
            Heard::Replaced => false,
        }
    }

    fn answer(&self, answer: Answer) {
        if self.coordinator.sessions.send(self.node, answer).is_err() {
            tracing::debug!(node = %self.node, "a session ended before it was answered");
        }
    }

    fn now(&self) -> UnixMs {
        self.coordinator.clock.now()
    }

    /// The whole state of the node: it takes the place of what was known.
    fn observe(&mut self, message: v1::Observed) -> Result<(), Refusal> {
        if message.instances.len() > INSTANCES_MAX {
            return Err(Refusal::Exhausted(format!(
                "a node may have {INSTANCES_MAX} instances, this one reports {}",
                message.instances.len()
            )));
        }
        let now = self.now();
        let generation = Generation(message.generation);
        let mut reported = instances_observed(message.instances, now).map_err(invalid)?;
        let foreign =
            boundary::take_foreign(self.node, &mut reported, &self.coordinator.view.borrow().snapshot);
        self.tell_foreign(&foreign);
        let counts = self.hear(|known| {
            ready::settle(&known.instances, &mut reported);
            if known.generation == generation && known.instances == reported {
                return Changed::No;
            }
            known.generation = generation;
            known.instances = reported;
            Changed::Yes
        });
        if counts {
            self.coordinator.sessions.reported(self.node);
        }
        Ok(())
    }

    fn tell_foreign(&mut self, foreign: &[InstanceId]) {
        let Some(first) = foreign.first() else { return };
        if std::mem::replace(&mut self.foreign_told, true) {
            return;
        }
        let message = format!(
            "node {} reports {} instances that are placed on other nodes, {first} among them; they are ignored. \
             Was its disk copied from another node? Remove its state and join it again",
            self.node,
            foreign.len()
        );
        let mut event = event(self.now(), Severity::Warning, "foreign-instances", message);
        event.node = Some(self.node.clone());
        self.coordinator.journal.record(vec![event]);
    }

    /// Puts an event into the journal, and tells the agent when it is durable.
    fn record(&self, told: v1::AgentEvent) -> Result<(), Refusal> {
        let sequence = told.sequence;
        let mut event = agent_event(told, self.node, self.now(), EventSeq(0)).map_err(invalid)?;
        boundary::cut_event(&mut event);
        self.hear(|_| Changed::No);
        let durable = self
            .coordinator
            .journal
            .record_from_agent(self.node.clone(), sequence, event)
            .map_err(|full| Refusal::Unavailable(format!("{full}; the agent sends its events again")))?;
        let (coordinator, node) = (Arc::clone(self.coordinator), self.node.clone());
        // Ends with the journal's writer at the latest; the journal's queue bounds how many there are.
        tokio::spawn(async move {
            if durable.await.is_ok() {
                let stored = Answer::EventsStored(v1::EventsStored { through: sequence });
                if coordinator.sessions.send(&node, stored).is_err() {
                    tracing::debug!(%node, "a node went away before its events were acknowledged; it sends them again");
                }
            }
        });
        Ok(())
    }
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(format!(
        "the agent sent something that cannot be: {error}; upgrade the agent, or the coordinator"
    ))
}

fn back(now: UnixMs, node: &NodeName) -> Event {
    let mut event = event(now, Severity::Info, "node-back", format!("node {node} is heard again"));
    event.node = Some(node.clone());
    event
}

fn flapping(now: UnixMs, node: &NodeName) -> Event {
    let message = format!(
        "the sessions of node {node} replace one another all the time: two agents seem to run with its identity. \
         Stop one of them, and join it under a name of its own"
    );
    let mut event = event(now, Severity::Error, "identity-flapping", message);
    event.node = Some(node.clone());
    event
}
