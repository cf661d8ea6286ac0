//! What is known of one node, and the session it has.

use super::{Link, NotConnected, QUEUE_MAX};
use crate::flapping::Replacements;
use baton_model::id::{Generation, NodeName};
use baton_model::metrics::NodeMetrics;
use baton_model::observed::{NodeFacts, NodeObserved};
use baton_model::time::UnixMs;
use baton_proto::v1;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// One node.
pub(super) struct Entry {
    pub(super) observed: NodeObserved,
    /// It has said what runs on it since the coordinator started. Until then a node that says hello is one of which nothing
    /// is known: to take it for empty would take its instances out of the routes.
    pub(super) reported: bool,
    pub(super) silent: bool,
    pub(super) metrics: Option<NodeMetrics>,
    pub(super) link: Option<Link>,
    pub(super) replaced: Replacements,
}

impl Entry {
    pub(super) fn unheard(now: UnixMs) -> Self {
        let observed = NodeObserved {
            last_heard: now,
            generation: Generation(0),
            instances: BTreeMap::new(),
            facts: NodeFacts::default(),
        };
        Self {
            observed,
            reported: false,
            silent: false,
            metrics: None,
            link: None,
            replaced: Replacements::default(),
        }
    }

    pub(super) fn send(
        &mut self,
        node: &NodeName,
        message: v1::coordinator_message::Message,
    ) -> Result<(), NotConnected> {
        let link = self.link.as_ref().ok_or(NotConnected)?;
        match link.queue.try_send(v1::CoordinatorMessage { message: Some(message) }) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotConnected),
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(%node, queue = QUEUE_MAX, "the agent does not read what it is sent; its session is dropped");
                if let Some(link) = self.link.take() {
                    link.drop_now();
                }
                Err(NotConnected)
            }
        }
    }
}
