//! The store in memory: for tests. Nothing survives the process.

use super::watch::Watchers;
use super::{Change, Record, Store, StoreError, Watch, check_changes, check_key};
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

    fn apply(&mut self, change: &Change) -> Revision {
        let next = self.last.next();
        let changed = match &change.value {
            Some(value) => {
                self.records.insert(change.key.clone(), (value.clone(), next));
                true
            }
            None => self.records.remove(&change.key).is_some(),
        };
        if !changed {
            return Revision(0);
        }
        self.last = next;
        next
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

    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Revision>, StoreError> {
        check_changes(&changes)?;
        let mut state = self.state();
        for change in &changes {
            change.precondition.check(&change.key, state.revision(&change.key))?;
        }
        let revisions = changes.iter().map(|change| state.apply(change)).collect::<Vec<_>>();
        drop(state);
        for (change, revision) in changes.iter().zip(&revisions) {
            if *revision != Revision(0) {
                self.watchers.wake(&change.key);
            }
        }
        Ok(revisions)
    }

    fn watch(&self, prefix: &str) -> Watch {
        self.watchers.watch(prefix)
    }
}
