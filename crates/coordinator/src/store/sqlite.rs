//! The store in a SQLite file: write-ahead log, synced at every commit.
//!
//! One thread writes. It takes what waits in its queue, changes it all in one transaction, commits once (one sync
//! to the disk for all of them), and only then answers. Reads go through a second connection, which sees the last
//! commit and never waits for the writer. A lock file keeps a second coordinator out.

use super::schema::{self, explain, shown};
use super::watch::Watchers;
use super::{Change, Record, Store, StoreError, Watch, check_changes, check_key};
use crate::lock::FileLock;
use async_trait::async_trait;
use baton_model::id::Revision;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Commits that may wait for the writer; above it, callers are told that the store is busy.
const QUEUE_MAX: usize = 1024;
/// Commits in one transaction; bounds how long the first of them waits for the others.
const BATCH_MAX: usize = 128;

/// A store in one file. Dropping it finishes the changes that wait and closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    path: Arc<Path>,
    reader: Arc<Mutex<Connection>>,
    watchers: Arc<Watchers>,
    writes: Option<SyncSender<Write>>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the store is open.
    _lock: FileLock,
}

/// What a commit comes to.
type Outcome = Result<Vec<Revision>, StoreError>;

/// A commit that waits for the writer.
struct Write {
    changes: Vec<Change>,
    answer: oneshot::Sender<Outcome>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it. Blocks for as long as the check of a large file takes.
    ///
    /// # Errors
    /// Tells apart a file in use, of a newer Baton, damaged, and one that cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path: Arc<Path> = path.into().into();
        let lock = lock(&path)?;
        let connection = schema::open(&path)?;
        let reader = schema::open_reader(&path)?;
        let watchers = Arc::new(Watchers::default());
        let (writes, queue) = sync_channel(QUEUE_MAX);
        let worker = Writer { path: Arc::clone(&path), connection, watchers: Arc::clone(&watchers) };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || worker.run(&queue))
            .map_err(|error| StoreError::Failed { path: shown(&path), detail: error.to_string() })?;
        let reader = Arc::new(Mutex::new(reader));
        Ok(Self { path, reader, watchers, writes: Some(writes), writer: Some(writer), _lock: lock })
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, reader) = (Arc::clone(&self.path), Arc::clone(&self.reader));
        let reading = tokio::task::spawn_blocking(move || {
            let connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection).map_err(|error| explain(&path, &error))
        });
        reading.await.map_err(|_| StoreError::Closed)?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.read(move |connection| {
            let mut query =
                connection.prepare_cached("SELECT key, value, revision FROM record WHERE key = ?1")?;
            query.query_row([key], record).optional()
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |connection| {
            let mut query = connection
                .prepare_cached("SELECT key, value, revision FROM record WHERE key >= ?1 ORDER BY key")?;
            let mut rows = query.query([&prefix])?;
            let mut found = Vec::new();
            // Rows are stepped to one by one, so nothing beyond the prefix is read but its first neighbour.
            while let Some(row) = rows.next()? {
                let record = record(row)?;
                if !record.key.starts_with(&prefix) {
                    break;
                }
                found.push(record);
            }
            Ok(found)
        })
        .await
    }

    async fn commit(&self, changes: Vec<Change>) -> Outcome {
        check_changes(&changes)?;
        let (answer, answered) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or(StoreError::Closed)?;
        writes.try_send(Write { changes, answer }).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy(QUEUE_MAX),
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.writes.take());
        if let Some(writer) = self.writer.take() {
            // Its panic has been printed; there is nobody left to tell.
            let _ = writer.join();
        }
    }
}

/// The thread that writes.
struct Writer {
    path: Arc<Path>,
    connection: Connection,
    watchers: Arc<Watchers>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(BATCH_MAX - 1));
            let outcomes = self.commit(&batch);
            match outcomes {
                Ok(outcomes) => self.answer(batch, outcomes),
                Err(error) => {
                    for write in batch {
                        let _ = write.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Makes all commits of the batch in one transaction. A lost precondition is that commit's own matter; any
    /// other error undoes the whole batch.
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Outcome>, StoreError> {
        let path = Arc::clone(&self.path);
        let failed = |error: rusqlite::Error| explain(&path, &error);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Read anew each time: of a commit that failed it is not known whether it counted.
        let first =
            transaction.query_row("SELECT last FROM counter", [], |row| revision(row, 0)).map_err(failed)?;
        let mut last = first;
        let mut outcomes = Vec::with_capacity(batch.len());
        for write in batch {
            outcomes.push(apply_all(&transaction, &write.changes, &mut last).map_err(failed)?);
        }
        if last != first {
            transaction.execute("UPDATE counter SET last = ?1", [signed(last)]).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(outcomes)
    }

    /// Wakes the watchers and then answers, so that who has an answer has also been woken.
    fn answer(&self, batch: Vec<Write>, outcomes: Vec<Outcome>) {
        for (write, outcome) in batch.into_iter().zip(outcomes) {
            let revisions = outcome.as_deref().unwrap_or_default();
            for (change, _) in write.changes.iter().zip(revisions).filter(|(_, at)| **at != Revision(0)) {
                self.watchers.wake(&change.key);
            }
            // A caller that stopped waiting does not want to know.
            let _ = write.answer.send(outcome);
        }
    }
}

/// One commit: nothing is changed before every precondition is known to hold.
fn apply_all(connection: &Connection, changes: &[Change], last: &mut Revision) -> rusqlite::Result<Outcome> {
    let mut query = connection.prepare_cached("SELECT revision FROM record WHERE key = ?1")?;
    let mut found = Vec::with_capacity(changes.len());
    for change in changes {
        let actual = query.query_row([&change.key], |row| revision(row, 0)).optional()?.unwrap_or_default();
        if let Err(conflict) = change.precondition.check(&change.key, actual) {
            return Ok(Err(conflict));
        }
        found.push(actual);
    }
    let each = changes.iter().zip(found).map(|(change, actual)| apply(connection, change, actual, last));
    each.collect::<rusqlite::Result<Vec<Revision>>>().map(Ok)
}

/// One change of a record that is at `actual`. Answers the change's number, `Revision(0)` where there was nothing to
/// remove.
fn apply(
    connection: &Connection,
    change: &Change,
    actual: Revision,
    last: &mut Revision,
) -> rusqlite::Result<Revision> {
    match &change.value {
        Some(value) => {
            let mut put = connection.prepare_cached(
                "INSERT INTO record (key, value, revision) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
            )?;
            put.execute((&change.key, value.as_ref(), signed(last.next())))?;
        }
        None if actual == Revision(0) => return Ok(actual),
        None => {
            connection.prepare_cached("DELETE FROM record WHERE key = ?1")?.execute([&change.key])?;
        }
    }
    *last = last.next();
    Ok(*last)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let value: Vec<u8> = row.get(1)?;
    Ok(Record { key: row.get(0)?, value: value.into(), revision: revision(row, 2)? })
}

/// SQLite's integers are signed; a counter that starts at 0 and grows by 1 never reaches the sign.
fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).expect("fewer than 2^63 changes")
}

fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    let stored: i64 = row.get(column)?;
    u64::try_from(stored).map(Revision).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, stored))
}

/// Takes the lock file beside the store.
fn lock(path: &Path) -> Result<FileLock, StoreError> {
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(".lock");
    FileLock::take(&beside).map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::Locked { path: shown(path) },
        TryLockError::Error(error) => StoreError::Open {
            path: shown(path),
            detail: format!(
                "its lock file: {error}; check that the folder exists and that this user may write there"
            ),
        },
    })
}
