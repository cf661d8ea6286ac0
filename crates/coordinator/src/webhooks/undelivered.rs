//! Webhooks that were tried and not delivered, for readers: what an operator is shown of them until they are, or are given up.

use super::waiting::Webhook;
use baton_model::id::ServiceName;
use baton_model::status::UndeliveredWebhook;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// All of them, by their keys in the store; as many as there are webhooks in hand.
#[derive(Debug, Default)]
pub(crate) struct Undelivered(watch::Sender<BTreeMap<String, (ServiceName, UndeliveredWebhook)>>);

impl Undelivered {
    /// A try failed.
    pub(super) fn note(&self, key: &str, webhook: &Webhook, state: UndeliveredWebhook) {
        self.0.send_modify(|all| drop(all.insert(key.to_owned(), (webhook.service.clone(), state))));
    }

    /// It was delivered, or given up.
    pub(super) fn forget(&self, key: &str) {
        self.0.send_if_modified(|all| all.remove(key).is_some());
    }

    /// Those of a service.
    pub(crate) fn of(&self, service: &ServiceName) -> Vec<UndeliveredWebhook> {
        let all = self.0.borrow();
        all.values().filter(|(of, _)| of == service).map(|(_, webhook)| webhook.clone()).collect()
    }

    /// Wakes whoever shows them.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<String, (ServiceName, UndeliveredWebhook)>> {
        self.0.subscribe()
    }
}
