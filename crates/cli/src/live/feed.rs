//! The stream of what changes, kept alive across restarts of the coordinator.

use crate::api::{self, Api, EventQuery};
use crate::fault;
use crate::global::Global;
use crate::reconnect::{Pauses, ended, is_final};
use anyhow::Result;
use baton_model::event::Event;
use baton_model::id::ServiceName;
use baton_model::status::ServiceStatus;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

/// Updates on their way to a view that is busy drawing; beyond it the stream waits.
const QUEUE_MAX: usize = 64;
/// Past events shown at the start.
const PAST_EVENTS: u32 = 5;

/// One thing that changed.
#[derive(Debug)]
pub(crate) enum Update {
    /// The service, whole.
    Status(Box<ServiceStatus>),
    /// Something happened.
    Event(Event),
    /// The coordinator does not answer; it is tried again.
    Lost(String),
    /// It answers again.
    Back,
    /// There is nothing more to follow: the coordinator says so.
    Ended(anyhow::Error),
}

/// Follows one service. Ends when the receiver is dropped.
///
/// # Errors
/// When the coordinator cannot be reached now, or does not know the service.
pub(crate) async fn follow(global: &Global, service: &ServiceName) -> Result<mpsc::Receiver<Update>> {
    let mut api = global.api().await?;
    let first = api.service(service).await?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    // The queue is empty and the receiver alive.
    let _ = sender.send(Update::Status(Box::new(first))).await;
    tokio::spawn(keep(global.clone(), service.clone(), api, sender));
    Ok(receiver)
}

/// One connection after another.
async fn keep(global: Global, service: ServiceName, mut api: Api, sender: mpsc::Sender<Update>) {
    let mut last_event = None;
    let mut pauses = Pauses::new();
    let mut lost = false;
    loop {
        let error = match one(&mut api, &service, &sender, &mut last_event, &mut lost).await {
            Ok(()) => return,
            Err(error) => error,
        };
        if is_final(&error) {
            // Whoever reads this ends.
            let _ = sender.send(Update::Ended(error)).await;
            return;
        }
        if !lost {
            pauses = Pauses::new();
            lost = true;
            if sender.send(Update::Lost(fault::briefly(&error))).await.is_err() {
                return;
            }
        }
        loop {
            pauses.wait().await;
            if sender.is_closed() {
                return;
            }
            if let Ok(fresh) = global.api().await {
                api = fresh;
                break;
            }
        }
    }
}

/// Passes on what comes over one connection. `Ok` when nobody listens any more.
async fn one(
    api: &mut Api,
    service: &ServiceName,
    sender: &mpsc::Sender<Update>,
    last_event: &mut Option<u64>,
    lost: &mut bool,
) -> Result<()> {
    let mut statuses = api.watch(service).await?;
    let query = EventQuery {
        after: *last_event,
        last: if last_event.is_some() { 0 } else { PAST_EVENTS },
        follow: true,
        service: Some(service.clone()),
        node: None,
    };
    let mut events = api.events(&query).await?;
    loop {
        let update = tokio::select! {
            status = statuses.next() => Update::Status(Box::new(api::status(status.ok_or_else(ended)??)?)),
            event = events.next() => {
                let event = api::event(event.ok_or_else(ended)??)?;
                *last_event = Some(event.seq.0);
                Update::Event(event)
            }
        };
        if std::mem::take(lost) && sender.send(Update::Back).await.is_err() {
            return Ok(());
        }
        if sender.send(update).await.is_err() {
            return Ok(());
        }
    }
}
