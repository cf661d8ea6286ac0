//! The journal as a stream: the past that was asked for, then what follows.

use super::Answers;
use super::status::Refusal;
use crate::events::Filter;
use crate::state::Coordinator;
use baton_model::event::Event;
use baton_model::id::{EventSeq, NodeName, ServiceName};
use baton_proto::v1;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Events that may wait for a reader; it reads from the journal, so that waiting loses nothing.
const AHEAD: usize = 64;

pub(super) fn list(
    coordinator: &Arc<Coordinator>,
    request: v1::ListEventsRequest,
) -> Result<Answers<v1::Event>, Refusal> {
    let filter = Filter {
        service: request.service.map(ServiceName::new).transpose()?,
        node: request.node.map(NodeName::new).transpose()?,
    };
    let mut cursor = EventSeq(request.after.unwrap_or(0));
    if request.last > 0 {
        let last = usize::try_from(request.last).unwrap_or(usize::MAX);
        cursor = cursor.max(coordinator.journal.cursor_before_last(last, &filter));
    }
    let (sender, answers) = mpsc::channel(AHEAD);
    let coordinator = Arc::clone(coordinator);
    tokio::spawn(async move {
        let stop = coordinator.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            () = send(&coordinator, cursor, &filter, request.follow, &sender) => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

async fn send(
    coordinator: &Coordinator,
    mut cursor: EventSeq,
    filter: &Filter,
    follow: bool,
    sender: &mpsc::Sender<Result<v1::Event, Status>>,
) {
    let mut latest = coordinator.journal.latest();
    loop {
        let end = *latest.borrow_and_update();
        while cursor < end {
            let (page, reached) = coordinator.journal.page(cursor, filter);
            if reached == cursor {
                break;
            }
            cursor = reached;
            for event in page {
                if sender.send(Ok(Event::clone(&event).into())).await.is_err() {
                    return;
                }
            }
        }
        if !follow || latest.changed().await.is_err() {
            return;
        }
    }
}
