//! The journal's writer: numbers, batches, stores, shows, acknowledges, trims.

use super::{Batch, Entry, Journal, Kept, QUEUE_MAX};
use crate::records::{self, Records, RecordsError};
use crate::store::{Change, Precondition};
use baton_engine::cycle::Versioned;
use baton_model::event::Event;
use baton_model::id::{EventSeq, NodeName, Revision};
use baton_model::time::UnixMs;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Events written as one record at most.
const BATCH_MAX: usize = 256;
/// The journal is trimmed when it has grown this far past what is kept, so that most writes trim nothing.
const TRIM_SLACK: usize = 1000;
/// Waits between attempts to write a batch that the store did not take.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Owns the numbers and the records of the journal.
pub(crate) struct Writer {
    records: Records,
    queue: mpsc::Receiver<Entry>,
    /// What was in the outbox at the start; it comes before anything that is queued.
    left: VecDeque<Entry>,
    kept: Arc<Kept>,
    kept_max: usize,
    next: EventSeq,
    through: BTreeMap<NodeName, u64>,
    /// The records that hold what is kept, oldest first.
    batches: VecDeque<Stored>,
}

struct Stored {
    key: String,
    revision: Revision,
    events: usize,
    through: BTreeMap<NodeName, u64>,
}

/// A batch being gathered.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    durable: Vec<oneshot::Sender<()>>,
    /// Records of the outbox whose events are in the batch.
    outboxed: Vec<String>,
}

/// A journal that was read from the store.
pub(crate) struct Opened {
    pub(crate) journal: Arc<Journal>,
    pub(crate) writer: Writer,
    /// The latest time in it.
    pub(crate) latest_time: UnixMs,
    /// The first number that no record of the outbox has.
    pub(crate) next_outbox: u64,
}

/// Reads the journal from the store.
pub(crate) async fn open(records: Records, kept_max: usize) -> Result<Opened, RecordsError> {
    let mut through: BTreeMap<NodeName, u64> =
        records.get(records::JOURNAL_FLOOR).await?.map(|floor: Versioned<_>| floor.value).unwrap_or_default();
    let mut events = VecDeque::new();
    let mut batches = VecDeque::new();
    let mut latest_time = UnixMs(0);
    let mut latest = EventSeq(0);
    for (key, stored) in records.list::<Batch>(records::EVENTS).await? {
        let batch = stored.value;
        merge(&mut through, &batch.through);
        // A batch without events has taken a number too.
        latest = latest.max(EventSeq(records::name_in(&key, records::EVENTS)?));
        batches.push_back(Stored {
            key,
            revision: stored.revision,
            events: batch.events.len(),
            through: batch.through,
        });
        for event in batch.events {
            latest_time = latest_time.max(event.at);
            latest = latest.max(event.seq);
            events.push_back(Arc::new(event));
        }
    }
    let mut left = VecDeque::new();
    let mut next_outbox = 0;
    for (key, stored) in records.list::<Vec<Event>>(records::OUTBOX).await? {
        let events = stored.value;
        next_outbox = records::name_in::<u64>(&key, records::OUTBOX)? + 1;
        latest_time = events.iter().map(|event| event.at).fold(latest_time, UnixMs::max);
        left.push_back(Entry::Stored { key, events });
    }
    let kept = Arc::new(Kept { events: RwLock::new(events), latest: watch::Sender::new(latest) });
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let journal = Arc::new(Journal { queue: sender, kept: Arc::clone(&kept), counts: Arc::default() });
    let writer = Writer { records, queue, left, kept, kept_max, next: latest.next(), through, batches };
    Ok(Opened { journal, writer, latest_time, next_outbox })
}

/// Zero forgets a node; anything else only grows.
fn merge(through: &mut BTreeMap<NodeName, u64>, newer: &BTreeMap<NodeName, u64>) {
    for (node, sequence) in newer {
        match sequence {
            0 => drop(through.remove(node)),
            n => drop(through.insert(node.clone(), *n)),
        }
    }
}

impl Writer {
    /// Writes until `stop`; then what still waits is written, and it ends.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = match self.left.pop_front() {
                Some(entry) => Some(entry),
                None => tokio::select! {
                    biased;
                    entry = self.queue.recv() => entry,
                    () = stop.cancelled() => None,
                },
            };
            let Some(first) = first else { return };
            let mut gathered = Gathered::default();
            self.gather(&mut gathered, first);
            while gathered.batch.events.len() < BATCH_MAX {
                let next = self.left.pop_front().or_else(|| self.queue.try_recv().ok());
                let Some(entry) = next else { break };
                self.gather(&mut gathered, entry);
            }
            if !self.write(gathered, &stop).await {
                return;
            }
            self.trim().await;
        }
    }

    fn gather(&mut self, gathered: &mut Gathered, entry: Entry) {
        match entry {
            Entry::Own(events) => events.into_iter().for_each(|event| self.number(gathered, event)),
            Entry::Stored { key, events } => {
                events.into_iter().for_each(|event| self.number(gathered, event));
                gathered.outboxed.push(key);
            }
            Entry::Agent { node, sequence, event, durable } => {
                // One that is here already is durable with this batch at the latest.
                gathered.durable.push(durable);
                if self.through.get(&node).is_none_or(|known| sequence > *known) {
                    self.number(gathered, event);
                    self.through.insert(node.clone(), sequence);
                    gathered.batch.through.insert(node, sequence);
                }
            }
            Entry::Forget(node) => {
                self.through.remove(&node);
                gathered.batch.through.insert(node, 0);
            }
        }
    }

    fn number(&mut self, gathered: &mut Gathered, mut event: Event) {
        event.seq = self.next;
        self.next = self.next.next();
        gathered.batch.events.push(event);
    }

    /// Writes a batch, as often as it takes. `false` when told to stop before the store took it.
    async fn write(&mut self, gathered: Gathered, stop: &CancellationToken) -> bool {
        let Gathered { batch, durable, outboxed } = gathered;
        if !batch.events.is_empty() || !batch.through.is_empty() {
            // A batch that only forgets a node has no event to be named after; it takes a number without one.
            let first = batch.events.first().map_or(self.next, |event| event.seq);
            self.next = self.next.max(first.next());
            let key = records::events(first);
            let Some(revision) = self.store(&key, &batch, &outboxed, stop).await else { return false };
            self.batches.push_back(Stored {
                key,
                revision,
                events: batch.events.len(),
                through: batch.through,
            });
            let last = batch.events.last().map(|event| event.seq);
            self.kept
                .events
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(batch.events.into_iter().map(Arc::new));
            if let Some(last) = last {
                self.kept.latest.send_replace(last);
            }
        }
        for waiter in durable {
            // The session that asked may be gone; its agent asks again in the next one.
            let _ = waiter.send(());
        }
        true
    }

    /// Writes the batch and takes its events out of the outbox, both or neither.
    async fn store(
        &self,
        key: &str,
        batch: &Batch,
        outboxed: &[String],
        stop: &CancellationToken,
    ) -> Option<Revision> {
        let mut expected = Revision(0);
        let mut wait = RETRY_FIRST;
        loop {
            match self.commit(key, expected, batch, outboxed).await {
                Ok(revision) => return Some(revision),
                // Only this writer writes here: it is our own earlier attempt, whose answer was lost.
                Err(error) if error.is_conflict() => match self.records.get::<Batch>(key).await {
                    Ok(found) => expected = found.map_or(Revision(0), |found| found.revision),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "cannot read the journal")
                    }
                },
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot write the journal; it is tried again"
                    );
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                () = stop.cancelled() => return None,
            }
        }
    }

    async fn commit(
        &self,
        key: &str,
        expected: Revision,
        batch: &Batch,
        outboxed: &[String],
    ) -> Result<Revision, RecordsError> {
        let mut changes = vec![records::putting(key.to_owned(), expected, batch)?];
        // Removed already where this is a second attempt after an answer that was lost.
        let removed =
            |key: &String| Change { key: key.clone(), value: None, precondition: Precondition::Any };
        changes.extend(outboxed.iter().map(removed));
        Ok(self.records.commit(changes).await?.first().copied().unwrap_or_default())
    }

    /// Removes the oldest batches when too much is kept. What they say of agents' numbers is stored first.
    async fn trim(&mut self) {
        let mut count = self.kept.events.read().unwrap_or_else(PoisonError::into_inner).len();
        if count <= self.kept_max + TRIM_SLACK {
            return;
        }
        let mut oldest = 0;
        for stored in &self.batches {
            if count <= self.kept_max {
                break;
            }
            count -= stored.events;
            oldest += 1;
        }
        if let Err(error) = self.remove_oldest(oldest).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot trim the journal; it is tried again with the next event"
            );
        }
    }

    async fn remove_oldest(&mut self, count: usize) -> Result<(), RecordsError> {
        let floor = self.records.get::<BTreeMap<NodeName, u64>>(records::JOURNAL_FLOOR).await?;
        let (revision, mut through) =
            floor.map_or((Revision(0), BTreeMap::new()), |floor| (floor.revision, floor.value));
        for stored in self.batches.iter().take(count) {
            merge(&mut through, &stored.through);
        }
        self.records.put(records::JOURNAL_FLOOR, revision, &through).await?;
        for _ in 0..count {
            let Some(stored) = self.batches.front() else { break };
            self.records.delete(&stored.key, stored.revision).await?;
            self.kept.events.write().unwrap_or_else(PoisonError::into_inner).drain(..stored.events);
            self.batches.pop_front();
        }
        Ok(())
    }
}
