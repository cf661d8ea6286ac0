//! The store: what must survive. Four verbs over keys and bytes, so that one engine can take another's place.
//!
//! ```text
//! get ─ list ─ commit(changes, each with its precondition: all or none) ─ watch (wake-ups only)
//!              put, delete: a commit of one change
//! ```
//!
//! Every change takes the next number of one counter that only grows; a record's [`Revision`] is the number of its
//! last change, and `Revision(0)` means that there is none. A key that was deleted and made again therefore never
//! shows an old revision, and compare-and-set cannot be fooled. What `commit` has answered is durable.
//!
//! A watch carries no data: who is woken reads again. Wake-ups that were not yet taken fold into one.
//!
//! [`MemoryStore`] is for tests and the simulation, [`SqliteStore`] for everything else; one conformance suite
//! holds for both.

mod memory;
mod schema;
mod sqlite;
mod watch;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;
pub use watch::Watch;

use async_trait::async_trait;
use baton_model::id::Revision;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes; large things are artifacts and are kept as files.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Keys and bytes that survive. Object safe: share it as `Arc<dyn Store>`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record at `key`, `None` where there is none.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// Every record whose key begins with `prefix`, in the order of the keys' bytes.
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError>;

    /// Makes all of these changes, durably, or none of them; answers the revision of each, `Revision(0)` where there
    /// was nothing to remove. The keys differ. A caller that stops waiting does not know whether it was done.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a precondition does not hold; nothing is changed then.
    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Revision>, StoreError>;

    /// Writes `value` at `key` and answers its new revision.
    ///
    /// # Errors
    /// As [`Self::commit`].
    async fn put(&self, key: &str, value: Bytes, precondition: Precondition) -> Result<Revision, StoreError> {
        let change = Change { key: key.to_owned(), value: Some(value), precondition };
        Ok(self.commit(vec![change]).await?.first().copied().unwrap_or_default())
    }

    /// Removes `key`. Without a precondition, removing what is not there succeeds.
    ///
    /// # Errors
    /// As [`Self::commit`].
    async fn delete(&self, key: &str, precondition: Precondition) -> Result<(), StoreError> {
        self.commit(vec![Change { key: key.to_owned(), value: None, precondition }]).await.map(|_| ())
    }

    /// Wakes after every change to a key that begins with `prefix`, from now on.
    fn watch(&self, prefix: &str) -> Watch;
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The number of its last change.
    pub revision: Revision,
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of which record.
    pub key: String,
    /// Its new value; `None` removes it.
    pub value: Option<Bytes>,
    /// What must be so.
    pub precondition: Precondition,
}

/// What must be so for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// The record is at this revision; `Revision(0)`: there is none.
    Is(Revision),
}

impl Precondition {
    /// There is no record yet.
    pub const ABSENT: Self = Self::Is(Revision(0));

    fn check(self, key: &str, actual: Revision) -> Result<(), StoreError> {
        match self {
            Self::Is(expected) if expected != actual => {
                Err(StoreError::Conflict { key: key.to_owned(), expected, actual })
            }
            Self::Is(_) | Self::Any => Ok(()),
        }
    }
}

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The record has changed since it was read: read it again and decide again.
    #[error("`{key}` is at revision {actual}, not at {expected}")]
    Conflict {
        /// Which record.
        key: String,
        /// What the precondition asked for.
        expected: Revision,
        /// What it is.
        actual: Revision,
    },
    /// A key or value that no store takes.
    #[error("the store takes no such record: {0}")]
    Refused(String),
    /// The file cannot be opened or made.
    #[error("cannot open the store {path}: {detail}")]
    Open {
        /// Its path.
        path: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// Another process has the file.
    #[error(
        "the store {path} is in use by another process; stop the other coordinator first (`fuser {path}` names it)"
    )]
    Locked {
        /// Its path.
        path: String,
    },
    /// A newer Baton has written the file.
    #[error(
        "the store {path} has schema {found}, and this Baton knows up to {known}; run the newer Baton that wrote it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// Its path.
        path: String,
        /// The file's schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The file is damaged.
    #[error(
        "the store {path} is damaged: {detail}; stop the coordinator, keep a copy of the file, and restore a backup"
    )]
    Corrupt {
        /// Its path.
        path: String,
        /// What SQLite says.
        detail: String,
    },
    /// No space is left.
    #[error("no space is left for the store {path}; free some, nothing was lost")]
    Full {
        /// Its path.
        path: String,
    },
    /// More changes are waiting than the store lets wait.
    #[error("the store is busy: {0} changes are waiting already")]
    Busy(usize),
    /// Reading or writing failed.
    #[error("the store {path} failed: {detail}")]
    Failed {
        /// Its path.
        path: String,
        /// What the system says.
        detail: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the very same call may succeed later. A conflict is not: it needs a fresh read first.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Full { .. } | Self::Failed { .. } | Self::Locked { .. } => true,
            Self::Conflict { .. }
            | Self::Refused(_)
            | Self::Open { .. }
            | Self::Newer { .. }
            | Self::Corrupt { .. }
            | Self::Closed => false,
        }
    }

    /// Whether a compare-and-set was lost.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes, this one {}",
            key.len()
        )));
    }
    Ok(())
}

fn check_changes(changes: &[Change]) -> Result<(), StoreError> {
    let mut keys = BTreeSet::new();
    for Change { key, value, .. } in changes {
        check_key(key)?;
        let bytes = value.as_ref().map_or(0, Bytes::len);
        if bytes > VALUE_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "`{key}` would have {bytes} bytes, at most {VALUE_BYTES_MAX} are kept"
            )));
        }
        if !keys.insert(key) {
            return Err(StoreError::Refused(format!("`{key}` is changed twice in one commit")));
        }
    }
    Ok(())
}
