//! The journal: what happened, in order, kept over restarts and bounded.
//!
//! Whoever has something to say queues it; one writer gives it its number, writes everything that waits as one
//! record, and only then shows it to readers. So an event that was seen is never lost, and its number never changes.
//!
//! What a decision says happened is committed together with what it changed, as a record of the outbox. The writer
//! puts it into the journal and removes that record in one commit, after a restart too: a kill at any moment neither
//! loses nor doubles it.
//!
//! ```text
//! decision ── commit {progress, outbox/n} ──► writer ── commit {event/first, no outbox/n} ──► readers
//! sessions, API ── queue ───────────────────────┘
//! ```

mod writer;

pub(crate) use writer::{Writer, open};

use crate::counts::Counts;
use baton_engine::outcome::EventDraft;
use baton_model::event::{Event, Severity};
use baton_model::id::{EventSeq, NodeName, ServiceName};
use baton_model::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

/// Events that are kept unless configured otherwise.
pub(crate) const KEPT_DEFAULT: usize = 50_000;
/// Entries that may wait for the writer. More are refused: the store has stood still for long by then.
const QUEUE_MAX: usize = 8192;
/// Events handed to a reader at once.
pub(crate) const PAGE_MAX: usize = 256;

/// The journal as everyone but its writer sees it.
pub(crate) struct Journal {
    queue: mpsc::Sender<Entry>,
    kept: Arc<Kept>,
    counts: Arc<Counts>,
}

/// What can be read.
struct Kept {
    events: RwLock<VecDeque<Arc<Event>>>,
    latest: watch::Sender<EventSeq>,
}

/// What waits for the writer.
enum Entry {
    /// Something the coordinator saw or did.
    Own(Vec<Event>),
    /// What a decision said happened: it is in this record of the outbox.
    Stored { key: String, events: Vec<Event> },
    /// Something an agent told, with its number on that node; answered when it is durable.
    Agent { node: NodeName, sequence: u64, event: Event, durable: oneshot::Sender<()> },
    /// A node was removed: its numbers start anew if it joins again.
    Forget(NodeName),
}

/// The journal takes nothing more for now: the store does not keep up, or does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal's queue of {QUEUE_MAX} entries is full")]
pub(crate) struct JournalFull;

/// Which events a reader wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) service: Option<ServiceName>,
    pub(crate) node: Option<NodeName>,
}

impl Filter {
    fn admits(&self, event: &Event) -> bool {
        self.service.as_ref().is_none_or(|service| event.service.as_ref() == Some(service))
            && self.node.as_ref().is_none_or(|node| event.node.as_ref() == Some(node))
    }
}

/// One record of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Batch {
    events: Vec<Event>,
    /// Up to which of its own numbers each node's events are in the journal with this batch; 0 forgets the node.
    through: BTreeMap<NodeName, u64>,
}

impl Journal {
    /// Records what the coordinator saw or did. Does not wait; what the journal cannot take is logged instead.
    pub(crate) fn record(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.counts.happened(&events);
        log(&events);
        if self.queue.try_send(Entry::Own(events)).is_err() {
            tracing::error!(queue = QUEUE_MAX, "the journal is full or closed; events go to this log only");
        }
    }

    /// Records what is in the record `key` of the outbox, and removes that record. Does not wait; what the journal
    /// cannot take stays in the outbox, and goes into the journal at the next start.
    pub(crate) fn record_stored(&self, key: String, events: Vec<Event>) {
        self.counts.happened(&events);
        log(&events);
        if self.queue.try_send(Entry::Stored { key, events }).is_err() {
            tracing::error!(queue = QUEUE_MAX, "the journal is full or closed; events wait in the outbox");
        }
    }

    /// Records what an agent told, once. The receiver resolves when it is durable.
    pub(crate) fn record_from_agent(
        &self,
        node: NodeName,
        sequence: u64,
        event: Event,
    ) -> Result<oneshot::Receiver<()>, JournalFull> {
        let (durable, done) = oneshot::channel();
        self.queue.try_send(Entry::Agent { node, sequence, event, durable }).map_err(|_| JournalFull)?;
        Ok(done)
    }

    /// Lets a removed node's numbers start anew.
    pub(crate) async fn forget(&self, node: NodeName) {
        if self.queue.send(Entry::Forget(node)).await.is_err() {
            tracing::warn!("the journal is closed");
        }
    }

    /// What is counted of it, and of the rest of the coordinator.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The number of the latest event, followed.
    pub(crate) fn latest(&self) -> watch::Receiver<EventSeq> {
        self.kept.latest.subscribe()
    }

    /// At most [`PAGE_MAX`] admitted events after `cursor`, and the cursor to go on from.
    pub(crate) fn page(&self, cursor: EventSeq, filter: &Filter) -> (Vec<Arc<Event>>, EventSeq) {
        let events = self.kept.events.read().unwrap_or_else(PoisonError::into_inner);
        let start = events.partition_point(|event| event.seq <= cursor);
        let mut page = Vec::new();
        let mut reached = cursor;
        for event in events.range(start..) {
            if page.len() == PAGE_MAX {
                break;
            }
            reached = event.seq;
            if filter.admits(event) {
                page.push(Arc::clone(event));
            }
        }
        (page, reached)
    }

    /// The cursor after which the last `count` admitted events lie.
    pub(crate) fn cursor_before_last(&self, count: usize, filter: &Filter) -> EventSeq {
        let events = self.kept.events.read().unwrap_or_else(PoisonError::into_inner);
        let mut admitted = events.iter().rev().filter(|event| filter.admits(event));
        match count.checked_sub(1).and_then(|skipped| admitted.nth(skipped)) {
            Some(event) => EventSeq(event.seq.0 - 1),
            None if count == 0 => events.back().map_or(EventSeq(0), |event| event.seq),
            None => EventSeq(0),
        }
    }
}

fn log(events: &[Event]) {
    for event in events {
        tracing::info!(
            kind = event.kind,
            service = event.service.as_ref().map(tracing::field::display),
            node = event.node.as_ref().map(tracing::field::display),
            message = event.message,
            "event"
        );
    }
}

/// An event of the coordinator's own; the writer gives it its number.
pub(crate) fn event(at: UnixMs, severity: Severity, kind: &str, message: String) -> Event {
    Event {
        seq: EventSeq(0),
        at,
        severity,
        kind: kind.to_owned(),
        message,
        service: None,
        node: None,
        instance: None,
        fields: BTreeMap::new(),
    }
}

/// What the engine said happened, at the time of its decision.
pub(crate) fn from_draft(draft: EventDraft, at: UnixMs) -> Event {
    Event {
        seq: EventSeq(0),
        at,
        severity: draft.severity,
        kind: draft.kind.to_owned(),
        message: draft.message,
        service: draft.service,
        node: draft.node,
        instance: draft.instance,
        fields: draft.fields,
    }
}

#[cfg(test)]
mod tests;
