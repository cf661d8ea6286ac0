//! The store in terms of values instead of bytes.

use super::{RecordError, decode, encode};
use crate::store::{Change, Precondition, Store, StoreError};
use baton_engine::cycle::Versioned;
use baton_model::id::Revision;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Why a record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl RecordsError {
    /// Somebody else wrote since the record was read: read again and decide again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict { .. }))
    }
}

/// A change of a commit that writes a record which is at `expected` (0: that does not exist).
pub(crate) fn putting<T: Serialize>(
    key: String,
    expected: Revision,
    value: &T,
) -> Result<Change, RecordError> {
    let value = Some(encode(&key, value)?.into());
    Ok(Change { key, value, precondition: Precondition::Is(expected) })
}

/// Reads and writes records of the store. Copies are of the same store.
#[derive(Clone)]
pub(crate) struct Records {
    store: Arc<dyn Store>,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The record at `key`, where there is one.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<Versioned<T>>, RecordsError> {
        let Some(record) = self.store.get(key).await? else { return Ok(None) };
        Ok(Some(Versioned { revision: record.revision, value: decode(key, &record.value)? }))
    }

    /// Every record under `prefix`, in the order of keys.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, Versioned<T>)>, RecordsError> {
        let mut found = Vec::new();
        for record in self.store.list(prefix).await? {
            let value = decode(&record.key, &record.value)?;
            found.push((record.key, Versioned { revision: record.revision, value }));
        }
        Ok(found)
    }

    /// Writes a record that is at `expected` (0: that does not exist); durable when it returns.
    pub(crate) async fn put<T: Serialize>(
        &self,
        key: &str,
        expected: Revision,
        value: &T,
    ) -> Result<Revision, RecordsError> {
        let bytes = encode(key, value)?;
        Ok(self.store.put(key, bytes.into(), Precondition::Is(expected)).await?)
    }

    /// Writes a record whatever is there.
    pub(crate) async fn set<T: Serialize>(&self, key: &str, value: &T) -> Result<Revision, RecordsError> {
        let bytes = encode(key, value)?;
        Ok(self.store.put(key, bytes.into(), Precondition::Any).await?)
    }

    /// Removes a record that is at `expected`.
    pub(crate) async fn delete(&self, key: &str, expected: Revision) -> Result<(), RecordsError> {
        Ok(self.store.delete(key, Precondition::Is(expected)).await?)
    }

    /// Makes all of these changes, or none of them; durable when it returns.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Revision>, RecordsError> {
        Ok(self.store.commit(changes).await?)
    }

    /// The store itself: for watches, and for the authority.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
