//! The store in memory: for tests. Nothing survives the process.

use super::watch::Watchers;
use super::{Precondition, Record, Store, StoreError, Watch, check_key, check_record};
use async_trait::async_trait;
use baton_model::id::Revision;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    watchers: Watchers,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, (Bytes, Revision)>,
    last: Revision,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two lines of ours cannot leave the map half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn revision(&self, key: &str) -> Revision {
        self.records.get(key).map_or(Revision(0), |(_, revision)| *revision)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        check_key(key)?;
        let state = self.state();
        let found = state.records.get(key);
        Ok(found.map(|(value, revision)| Record {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let state = self.state();
        let from = state.records.range(prefix.to_owned()..);
        let within = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(within
            .map(|(key, (value, revision))| Record {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect())
    }

    async fn put(&self, key: &str, value: Bytes, precondition: Precondition) -> Result<Revision, StoreError> {
        check_record(key, &value)?;
        let mut state = self.state();
        precondition.check(key, state.revision(key))?;
        let revision = state.last.next();
        state.last = revision;
        state.records.insert(key.to_owned(), (value, revision));
        drop(state);
        self.watchers.wake(key);
        Ok(revision)
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<(), StoreError> {
        check_key(key)?;
        let mut state = self.state();
        precondition.check(key, state.revision(key))?;
        if state.records.remove(key).is_none() {
            return Ok(());
        }
        state.last = state.last.next();
        drop(state);
        self.watchers.wake(key);
        Ok(())
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}
