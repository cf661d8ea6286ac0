//! One session: a gateway's stream, from its hello to its end.

mod leaving;

use super::Opened;
use crate::api::status::Refusal;
use crate::events::event;
use crate::sessions::Heard;
use crate::state::Coordinator;
use baton_model::event::{Event, Severity};
use baton_model::id::{GatewayName, ServiceName, SessionId};
use baton_model::observed::{GatewayFacts, GatewayState, TableRefused};
use baton_model::time::UnixMs;
use baton_proto::convert::WireError;
use baton_proto::v1::{self, gateway_message::Message, gateway_order::Message as Order};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// A gateway must say hello within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Echoes of heartbeats that may wait for a gateway; one that leaves more unread is passed over.
const ECHOES_MAX: usize = 16;
/// Runs that a gateway may report as busy: more are in flight to instances that are gone than a fleet can have.
const BUSY_MAX: usize = 100_000;

/// The stream to the gateway, as tonic takes it.
pub(crate) type Outbound = mpsc::Sender<Result<v1::GatewayOrder, Status>>;

/// Serves the session of `gateway` until it ends.
pub(crate) async fn serve(
    coordinator: Arc<Coordinator>,
    gateway: GatewayName,
    mut inbound: Streaming<v1::GatewayMessage>,
    outbound: Outbound,
) {
    let end = match greet(&coordinator, &gateway, &mut inbound).await {
        Ok(Greeted::Serving(opened)) => {
            converse(&coordinator, &gateway, opened, &mut inbound, &outbound).await
        }
        Ok(Greeted::Leaving(session)) => {
            leaving::serve(&coordinator, &gateway, session, &mut inbound, &outbound).await
        }
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = end {
        tracing::warn!(%gateway, error = %refusal, "session refused");
        // Nobody may be there any more to be told.
        let _ = outbound.try_send(Err(refusal.into()));
    }
}

/// Both sides of the session of a gateway that serves.
async fn converse(
    coordinator: &Coordinator,
    gateway: &GatewayName,
    opened: Opened,
    inbound: &mut Streaming<v1::GatewayMessage>,
    outbound: &Outbound,
) -> Result<(), Refusal> {
    let (session, ended) = (opened.session, opened.ended.clone());
    tracing::info!(%gateway, %session, "session began");
    let (echo, echoes) = mpsc::channel(ECHOES_MAX);
    let speaking = tokio::spawn(speak(opened, welcome(coordinator, session), echoes, outbound.clone()));
    let mut listener =
        Listener { coordinator, gateway, session, echo, refused: None, unserved: BTreeMap::new() };
    let end = tokio::select! {
        () = ended.cancelled() => Ok(()),
        end = listener.listen(inbound) => end,
    };
    coordinator.gateways.close(gateway, session);
    ended.cancel();
    if let Err(error) = speaking.await {
        tracing::error!(%gateway, %error, "the sending side of a session failed");
    }
    tracing::info!(%gateway, %session, "session ended");
    end
}

fn welcome(coordinator: &Coordinator, session: SessionId) -> v1::Welcome {
    v1::Welcome {
        session: session.0,
        heartbeat_ms: coordinator.gateways.timing.heartbeat.0,
        silence_ms: coordinator.gateways.timing.silence.0,
    }
}

/// Who said hello.
enum Greeted {
    /// The process that serves.
    Serving(Opened),
    /// One that ends what it has in flight, while another serves in its place.
    Leaving(SessionId),
}

/// Waits for the hello, checks it, and opens the session.
async fn greet(
    coordinator: &Coordinator,
    gateway: &GatewayName,
    inbound: &mut Streaming<v1::GatewayMessage>,
) -> Result<Greeted, Refusal> {
    let first = tokio::time::timeout(HELLO_WITHIN, inbound.message()).await;
    let Ok(Ok(Some(v1::GatewayMessage { message: Some(Message::Hello(hello)) }))) = first else {
        return Err(Refusal::Invalid(
            "a session begins with a hello, which did not come; upgrade the gateway".to_owned(),
        ));
    };
    let facts: GatewayFacts = hello.facts.unwrap_or_default().try_into().map_err(invalid)?;
    let said = said(hello.state.unwrap_or_default())?;
    if hello.leaving {
        return Ok(Greeted::Leaving(coordinator.gateways.open_leaving(gateway, said.busy)));
    }
    let served = said.table;
    let opened = coordinator.gateways.open(gateway, facts, said);
    let now = coordinator.clock.now();
    if opened.was_silent {
        coordinator.journal.record(vec![back(now, gateway)]);
    }
    if opened.ahead {
        let message = format!(
            "gateway {gateway} serves by table {served}, which this store knows nothing of: it was restored from an older \
             copy, or another coordinator led this gateway. It gets the table of what the store wants, under a higher number"
        );
        coordinator.journal.record(vec![about(gateway, event(now, Severity::Error, "table-ahead", message))]);
    }
    if opened.flapping {
        let message = format!(
            "the sessions of gateway {gateway} replace one another all the time: two gateways seem to run with its \
             identity. Stop one of them, and join it under a name of its own"
        );
        // The older side is told by `Replaced`; this is how the newer one learns of it.
        let refusal = Refusal::Contended(message.clone());
        coordinator
            .journal
            .record(vec![about(gateway, event(now, Severity::Error, "identity-flapping", message))]);
        coordinator.gateways.close(gateway, opened.session);
        return Err(refusal);
    }
    Ok(Greeted::Serving(opened))
}

/// Says everything that is said to a gateway, until its session ends.
async fn speak(
    mut opened: Opened,
    welcome: v1::Welcome,
    mut echoes: mpsc::Receiver<v1::Heartbeat>,
    outbound: Outbound,
) {
    let talk = async {
        outbound.send(order(Order::Welcome(welcome))).await?;
        // The table as it is now goes first; of several changes only the last one is sent.
        opened.tables.mark_changed();
        loop {
            let next = tokio::select! {
                biased;
                changed = opened.tables.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let table = Arc::clone(&opened.tables.borrow_and_update());
                    Order::Table(v1::RouteTable::from(Arc::unwrap_or_clone(table)))
                }
                echo = echoes.recv() => match echo {
                    Some(echo) => Order::Heartbeat(echo),
                    None => return Ok(()),
                },
            };
            outbound.send(order(next)).await?;
        }
    };
    let talked: Result<(), mpsc::error::SendError<_>> = tokio::select! {
        () = opened.ended.cancelled() => Ok(()),
        talked = talk => talked,
    };
    if talked.is_err() {
        tracing::debug!("a gateway went away");
    }
    let replaced_by = *opened.replaced_by.borrow();
    if let Some(by) = replaced_by {
        // A gateway that does not even read this learns it from the end of the stream.
        let _ = outbound.try_send(order(Order::Replaced(v1::Replaced { by_session: by.0 })));
    }
    opened.ended.cancel();
}

fn order(message: Order) -> Result<v1::GatewayOrder, Status> {
    Ok(v1::GatewayOrder { message: Some(message) })
}

/// Takes in what one gateway says.
struct Listener<'a> {
    coordinator: &'a Coordinator,
    gateway: &'a GatewayName,
    session: SessionId,
    echo: mpsc::Sender<v1::Heartbeat>,
    /// The refusal of a table that the journal was told of.
    refused: Option<TableRefused>,
    /// The routes that cannot be served, of which the journal was told.
    unserved: BTreeMap<ServiceName, String>,
}

impl Listener<'_> {
    /// Until the stream ends, falls silent, or says something that cannot be.
    async fn listen(&mut self, inbound: &mut Streaming<v1::GatewayMessage>) -> Result<(), Refusal> {
        while let Some(message) = next(self.coordinator, self.gateway, inbound).await? {
            if self.take(message)? == Took::Goodbye {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<Took, Refusal> {
        match message {
            Message::Hello(_) => {
                return Err(Refusal::Invalid("a session has one hello only; upgrade the gateway".to_owned()));
            }
            Message::Heartbeat(heartbeat) => {
                if self.hear(None) && self.echo.try_send(heartbeat).is_err() {
                    tracing::debug!(gateway = %self.gateway, "a gateway does not read its echoes");
                }
            }
            Message::State(state) => {
                let said = said(state)?;
                self.tell_refused(said.refused.as_ref());
                self.tell_unserved(&said.unserved);
                self.hear(Some(said));
            }
            Message::Evidence(counted) => {
                let counted = counted.try_into().map_err(invalid)?;
                if self.hear(None) {
                    self.coordinator.take_evidence(self.gateway, counted);
                }
            }
            Message::Goodbye(_) => {
                self.coordinator.gateways.goodbye(self.gateway, self.session);
                return Ok(Took::Goodbye);
            }
        }
        Ok(Took::Word)
    }

    /// Notes a word of the gateway; `false` when a newer session speaks for it, and this word does not count.
    fn hear(&self, said: Option<GatewayState>) -> bool {
        match self.coordinator.gateways.hear(self.gateway, self.session, said) {
            Heard::Yes => true,
            Heard::AfterSilence => {
                let now = self.coordinator.clock.now();
                self.coordinator.journal.record(vec![back(now, self.gateway)]);
                true
            }
            Heard::Replaced => false,
        }
    }

    /// A table that is not taken is an event, once.
    fn tell_refused(&mut self, refused: Option<&TableRefused>) {
        if self.refused.as_ref() == refused {
            return;
        }
        self.refused = refused.cloned();
        let Some(TableRefused { revision, reason }) = refused else { return };
        let message = format!(
            "gateway {} does not take table {revision} and goes on by the one before: {reason}",
            self.gateway
        );
        let now = self.coordinator.clock.now();
        self.coordinator
            .journal
            .record(vec![about(self.gateway, event(now, Severity::Error, "table-refused", message))]);
    }
}

impl Listener<'_> {
    /// A route that a gateway has and cannot serve is an event, once; so is that it can again.
    fn tell_unserved(&mut self, unserved: &BTreeMap<ServiceName, String>) {
        if self.unserved == *unserved {
            return;
        }
        let (now, gateway) = (self.coordinator.clock.now(), self.gateway);
        let new = unserved.iter().filter(|(service, why)| self.unserved.get(*service) != Some(*why));
        let lost = new.map(|(service, why)| {
            let message = format!("gateway {gateway} does not serve {service}: it {why}");
            (service, event(now, Severity::Error, "route-unserved", message))
        });
        let back = self.unserved.keys().filter(|service| !unserved.contains_key(*service)).map(|service| {
            let message = format!("gateway {gateway} no longer lacks what it needs to serve {service}");
            (service, event(now, Severity::Info, "route-served", message))
        });
        let events = lost.chain(back).map(|(service, mut event)| {
            event.service = Some(service.clone());
            about(gateway, event)
        });
        self.coordinator.journal.record(events.collect());
        self.unserved.clone_from(unserved);
    }
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    Word,
    Goodbye,
}

/// The next thing that a gateway says; `None` at the end of its stream.
async fn next(
    coordinator: &Coordinator,
    gateway: &GatewayName,
    inbound: &mut Streaming<v1::GatewayMessage>,
) -> Result<Option<Message>, Refusal> {
    let silence = coordinator.gateways.timing.silence.duration();
    match tokio::time::timeout(silence, inbound.message()).await {
        Ok(Ok(Some(v1::GatewayMessage { message: Some(message) }))) => Ok(Some(message)),
        Ok(Ok(Some(v1::GatewayMessage { message: None }))) => Err(Refusal::Invalid(
            "the gateway sent something this coordinator does not know; upgrade the coordinator first"
                .to_owned(),
        )),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => {
            tracing::debug!(%gateway, %status, "the stream of a session broke");
            Ok(None)
        }
        Err(_) => {
            Err(Refusal::Unavailable("nothing was heard for too long; the session is given up".to_owned()))
        }
    }
}

fn said(wire: v1::GatewayState) -> Result<GatewayState, Refusal> {
    if wire.busy.len() > BUSY_MAX {
        return Err(Refusal::Exhausted(format!(
            "a gateway may have requests in flight to {BUSY_MAX} runs that left, this one reports {}",
            wire.busy.len()
        )));
    }
    wire.try_into().map_err(invalid)
}

fn invalid(error: WireError) -> Refusal {
    Refusal::Invalid(format!(
        "the gateway sent something that cannot be: {error}; upgrade the gateway, or the coordinator"
    ))
}

fn back(now: UnixMs, gateway: &GatewayName) -> Event {
    about(gateway, event(now, Severity::Info, "gateway-back", format!("gateway {gateway} is heard again")))
}

/// The event, with the gateway's name as a field.
pub(crate) fn about(gateway: &GatewayName, mut event: Event) -> Event {
    event.fields.insert("gateway".to_owned(), gateway.to_string());
    event
}
