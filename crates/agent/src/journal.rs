//! The node's events, numbered and kept on disk until the coordinator has stored them.
//!
//! `events.jsonl` holds the next number, then one line of JSON per event. Appending does not sync: a killed agent loses nothing, a machine
//! that loses power may lose the last seconds, which it spent losing its workloads too. Numbers are never used
//! twice, whatever is lost: each start goes on from the wall clock's milliseconds where that is higher.

use crate::clock;
use baton_model::event::Severity;
use baton_model::id::InstanceId;
use baton_model::time::BootMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Events kept while no coordinator takes them; the oldest go first, and how many went is told.
const EVENTS_KEPT: usize = 2_000;
/// The file is rewritten when it holds this many lines more than there are events.
const STALE_LINES: usize = 1_000;

/// An event as it waits on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Only grows.
    pub(crate) sequence: u64,
    /// The node's wall time, for an entry of an earlier boot.
    pub(crate) wall_ms: u64,
    /// When, on the boot clock of `boot_id`.
    pub(crate) boot_ms: BootMs,
    /// Which boot.
    pub(crate) boot_id: String,
    /// How much it matters.
    pub(crate) severity: Severity,
    /// A stable word.
    pub(crate) kind: String,
    /// A sentence for people.
    pub(crate) message: String,
    /// About which instance, where it is about one.
    pub(crate) instance: Option<InstanceId>,
    /// Figures and facts.
    pub(crate) fields: BTreeMap<String, String>,
}

/// An event before it has its number and time.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    severity: Severity,
    kind: &'static str,
    message: String,
    instance: Option<InstanceId>,
    fields: BTreeMap<String, String>,
}

impl Draft {
    /// Something normal.
    pub(crate) fn info(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Info,
            kind,
            message: message.into(),
            instance: None,
            fields: BTreeMap::new(),
        }
    }

    /// Something to look at.
    pub(crate) fn warning(kind: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::info(kind, message) }
    }

    /// Something to look at now.
    pub(crate) fn error(kind: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::info(kind, message) }
    }

    /// Names the instance that it is about.
    pub(crate) fn of(mut self, instance: &InstanceId) -> Self {
        self.instance = Some(instance.clone());
        self
    }

    /// Adds a figure or a fact.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.insert(name.to_owned(), value.to_string());
        self
    }
}

/// The journal; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    inner: Arc<Mutex<Inner>>,
    /// The number of the newest event; a receiver is woken by each.
    newest: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    lines: usize,
    waiting: VecDeque<Entry>,
    next: u64,
    dropped: u64,
    /// The same since the agent started.
    dropped_ever: u64,
    boot_id: String,
}

impl Journal {
    /// Opens the journal with what an earlier agent left. A line cut by a crash is passed over.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(path: &Path, boot_id: &str) -> io::Result<Self> {
        let mut waiting = VecDeque::new();
        let mut next = clock::wall_now_ms();
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    let line = line?;
                    if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
                        next = next.max(entry.sequence + 1);
                        waiting.push_back(entry);
                    } else if let Ok(unused) = serde_json::from_slice::<u64>(&line) {
                        next = next.max(unused);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut inner = Inner {
            path: path.to_owned(),
            file: OpenOptions::new().append(true).create(true).open(path)?,
            lines: 0,
            waiting,
            next,
            dropped: 0,
            dropped_ever: 0,
            boot_id: boot_id.to_owned(),
        };
        // Starting on a fresh file removes a cut line, so that the next event does not continue it.
        inner.rewrite()?;
        Ok(Self { inner: Arc::new(Mutex::new(inner)), newest: Arc::new(watch::Sender::new(next)) })
    }

    /// Records what happened, and logs it. A journal that cannot be written still tells the coordinator.
    pub(crate) fn record(&self, draft: Draft) {
        let instance = draft.instance.as_ref().map(ToString::to_string).unwrap_or_default();
        match draft.severity {
            Severity::Info => tracing::info!(kind = draft.kind, instance, message = draft.message),
            Severity::Warning => tracing::warn!(kind = draft.kind, instance, message = draft.message),
            Severity::Error => tracing::error!(kind = draft.kind, instance, message = draft.message),
        }
        let mut inner = self.lock();
        if let Err(error) = inner.append(draft) {
            tracing::warn!(%error, "an event could not be written to the journal file");
        }
        self.newest.send_replace(inner.next);
    }

    /// Up to `limit` waiting events after `sequence`, oldest first.
    pub(crate) fn after(&self, sequence: u64, limit: usize) -> Vec<Entry> {
        let inner = self.lock();
        let from = inner.waiting.partition_point(|entry| entry.sequence <= sequence);
        inner.waiting.iter().skip(from).take(limit).cloned().collect()
    }

    /// How many events wait for a coordinator, and how many were lost since the agent started.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.waiting.len() as u64, inner.dropped_ever)
    }

    /// Forgets what the coordinator has stored.
    pub(crate) fn stored_through(&self, sequence: u64) {
        if let Err(error) = self.lock().forget_through(sequence) {
            tracing::warn!(%error, "the journal file could not be shortened");
        }
    }

    /// Wakes its holder after each event that is recorded from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// How long ago `entry` happened: by the boot clock where it still runs, else by the wall clock.
    pub(crate) fn ago_ms(&self, entry: &Entry, now: BootMs, wall_now_ms: u64) -> u64 {
        if entry.boot_id == self.lock().boot_id {
            now.since(entry.boot_ms).0
        } else {
            wall_now_ms.saturating_sub(entry.wall_ms)
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere does not make a list of events wrong.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, draft: Draft) -> io::Result<()> {
        if self.waiting.len() >= EVENTS_KEPT {
            self.waiting.pop_front();
            self.dropped += 1;
            self.dropped_ever += 1;
        }
        let mut fields = draft.fields;
        if self.dropped > 0 {
            fields.insert("events_dropped_before".to_owned(), self.dropped.to_string());
        }
        let entry = Entry {
            sequence: self.next,
            wall_ms: clock::wall_now_ms(),
            boot_ms: clock::boot_now(),
            boot_id: self.boot_id.clone(),
            severity: draft.severity,
            kind: draft.kind.to_owned(),
            message: draft.message,
            instance: draft.instance,
            fields,
        };
        self.next += 1;
        let written = write_line(&mut self.file, &entry);
        self.lines += 1;
        self.waiting.push_back(entry);
        written?;
        self.shorten()
    }

    fn forget_through(&mut self, sequence: u64) -> io::Result<()> {
        let stored = self.waiting.partition_point(|entry| entry.sequence <= sequence);
        self.waiting.drain(..stored);
        if stored > 0 {
            self.dropped = 0;
        }
        self.shorten()
    }

    fn shorten(&mut self) -> io::Result<()> {
        if self.lines > self.waiting.len() + STALE_LINES || (self.waiting.is_empty() && self.lines > 0) {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("jsonl.new");
        let mut file = File::create(&beside)?;
        // The first line keeps the next number for when no event is left to tell it.
        let mut text = format!("{}\n", self.next).into_bytes();
        for entry in &self.waiting {
            write_line(&mut text, entry)?;
        }
        file.write_all(&text)?;
        std::fs::rename(&beside, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = self.waiting.len();
        Ok(())
    }
}

fn write_line(to: &mut impl io::Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(journal: &Journal, after: u64) -> Vec<String> {
        journal.after(after, usize::MAX).into_iter().map(|entry| entry.kind).collect()
    }

    #[test]
    fn events_wait_through_restarts_until_they_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = Journal::open(&path, "boot").unwrap();
        journal.record(Draft::info("a", "first").with("ms", 3));
        journal.record(Draft::warning("b", "second").of(&"web.1".parse().unwrap()));
        drop(journal);

        let journal = Journal::open(&path, "boot").unwrap();
        let entries = journal.after(0, 10);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].fields["ms"], "3");
        assert_eq!(entries[1].instance, Some("web.1".parse().unwrap()));
        journal.stored_through(entries[0].sequence);
        assert_eq!(kinds(&journal, 0), ["b"]);
        journal.stored_through(entries[1].sequence);
        drop(journal);

        let journal = Journal::open(&path, "boot").unwrap();
        assert_eq!(kinds(&journal, 0), Vec::<String>::new());
        journal.record(Draft::info("c", "third"));
        assert!(journal.after(0, 1)[0].sequence > entries[1].sequence, "numbers are never used again");
    }

    #[test]
    fn a_line_cut_by_a_crash_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = Journal::open(&path, "boot").unwrap();
        journal.record(Draft::info("a", "first"));
        journal.record(Draft::info("b", "second"));
        drop(journal);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();

        let journal = Journal::open(&path, "boot").unwrap();
        journal.record(Draft::info("c", "third"));
        drop(journal);
        assert_eq!(kinds(&Journal::open(&path, "boot").unwrap(), 0), ["a", "c"]);
    }

    #[test]
    fn it_is_bounded_and_tells_what_it_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = Journal::open(&path, "boot").unwrap();
        for _ in 0..EVENTS_KEPT + STALE_LINES + 7 {
            journal.record(Draft::info("a", "again"));
        }
        let entries = journal.after(0, usize::MAX);
        assert_eq!(entries.len(), EVENTS_KEPT);
        let last = entries.last().unwrap();
        assert_eq!(last.fields["events_dropped_before"], (STALE_LINES + 7).to_string());
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= EVENTS_KEPT + STALE_LINES + 1, "{lines}");
    }

    #[test]
    fn the_age_of_an_event_comes_from_the_clock_that_still_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let journal = Journal::open(&path, "boot-1").unwrap();
        journal.record(Draft::info("a", "first"));
        let entry = journal.after(0, 1).remove(0);
        let later = BootMs(entry.boot_ms.0 + 50);
        assert_eq!(journal.ago_ms(&entry, later, entry.wall_ms + 9_000), 50);
        let journal = Journal::open(&path, "boot-2").unwrap();
        assert_eq!(journal.ago_ms(&entry, BootMs(1), entry.wall_ms + 9_000), 9_000);
    }
}
