//! Wake-ups: who is woken reads again.

use super::StoreError;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Wakes after changes under a prefix. Wake-ups that were not taken yet fold into one.
#[derive(Clone, Debug)]
pub struct Watch {
    receiver: watch::Receiver<()>,
}

impl Watch {
    /// Waits until something has changed since the last call (or since the watch began). Cancel safe.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the store is gone and nothing more will come.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        self.receiver.changed().await.map_err(|_| StoreError::Closed)
    }
}

/// The watches of one store.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    list: Mutex<Vec<(String, watch::Sender<()>)>>,
}

impl Watchers {
    pub(super) fn watch(&self, prefix: &str) -> Watch {
        let (sender, receiver) = watch::channel(());
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_owned(), sender));
        Watch { receiver }
    }

    /// Wakes whoever watches `key`; forgets those who have gone.
    pub(super) fn wake(&self, key: &str) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|(prefix, sender)| {
            if key.starts_with(prefix.as_str()) {
                // Fails only without receivers, which the next line sees.
                let _ = sender.send(());
            }
            !sender.is_closed()
        });
    }
}
