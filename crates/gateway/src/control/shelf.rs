//! Keeps the newest table on disk: what was acknowledged is there after a crash (invariant `acked-is-durable`).

use crate::table::Table;
use baton_model::id::{RouteRevision, ServiceName, TableRevision};
use baton_model::route::RouteTable;
use baton_proto::identity::write_private;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A table that could not be kept is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// What is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) table: TableRevision,
    pub(super) routes: BTreeMap<ServiceName, RouteRevision>,
}

impl Kept {
    /// At the start, when the table in force is the one that was on disk.
    pub(super) fn in_force(table: &Table) -> Self {
        Self { table: table.revision(), routes: table.revisions() }
    }

    pub(super) fn of(table: &RouteTable) -> Self {
        let routes = table.routes.iter().map(|(name, route)| (name.clone(), route.revision)).collect();
        Self { table: table.revision, routes }
    }
}

/// A task of its own, so that a slow disk holds up neither the traffic nor the session. Of several tables that come
/// while one is written, only the newest is written after it.
pub(super) struct Shelf {
    newest: watch::Sender<Option<Arc<RouteTable>>>,
    kept: watch::Receiver<Kept>,
    _task: AbortOnDropHandle<()>,
}

impl Shelf {
    /// Keeps tables at `path`, where `kept` is already.
    pub(super) fn new(path: PathBuf, kept: Kept) -> Self {
        let (newest, tables) = watch::channel(None);
        let (done, kept) = watch::channel(kept);
        let task = AbortOnDropHandle::new(tokio::spawn(keep(path, tables, done)));
        Self { newest, kept, _task: task }
    }

    /// Has this table kept.
    pub(super) fn put(&self, table: Arc<RouteTable>) {
        self.newest.send_replace(Some(table));
    }

    /// What is on disk, and a wake-up when that changes.
    pub(super) fn kept(&self) -> watch::Receiver<Kept> {
        self.kept.clone()
    }
}

async fn keep(
    path: PathBuf,
    mut tables: watch::Receiver<Option<Arc<RouteTable>>>,
    done: watch::Sender<Kept>,
) {
    while tables.changed().await.is_ok() {
        let Some(table) = tables.borrow_and_update().clone() else { continue };
        let (target, written) = (path.clone(), Arc::clone(&table));
        let writing = tokio::task::spawn_blocking(move || write(&target, &written));
        match writing.await.map_err(io::Error::other).and_then(|written| written) {
            Ok(()) => drop(done.send_replace(Kept::of(&table))),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "the route table cannot be kept: it is in force but not acknowledged, and tried again"
                );
                tokio::time::sleep(AGAIN).await;
                tables.mark_changed();
            }
        }
    }
}

fn write(path: &Path, table: &RouteTable) -> io::Result<()> {
    write_private(path, &serde_json::to_vec(table)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(revision: u64) -> Arc<RouteTable> {
        Arc::new(RouteTable { revision: TableRevision(revision), routes: BTreeMap::new() })
    }

    #[tokio::test]
    async fn what_is_said_to_be_kept_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        let shelf = Shelf::new(path.clone(), Kept::default());
        let mut kept = shelf.kept();
        for revision in [3, 4] {
            shelf.put(table(revision));
            kept.wait_for(|kept| kept.table == TableRevision(revision)).await.unwrap();
            let read: RouteTable = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(read, *table(revision));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_not_said_to_be_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let shelf = Shelf::new(gone.join("table.json"), Kept::default());
        let mut kept = shelf.kept();
        shelf.put(table(3));
        let waited = tokio::time::timeout(Duration::from_millis(50), kept.changed()).await;
        assert!(waited.is_err(), "there is no folder to keep it in");
        std::fs::create_dir(&gone).unwrap();
        tokio::time::timeout(Duration::from_secs(20), kept.changed()).await.unwrap().unwrap();
        assert_eq!(kept.borrow().table, TableRevision(3));
    }
}
