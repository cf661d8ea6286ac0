//! What is known of one node, and the session it has.

use super::{Link, NotConnected, QUEUE_MAX};
use crate::flapping::Replacements;
use baton_model::id::{Generation, NodeName};
use baton_model::metrics::NodeMetrics;
use baton_model::observed::{InstanceObserved, InstanceState, NodeFacts, NodeObserved};
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

    /// Takes in what the node says of itself at the beginning of a session. Where it was booted since the last one, nothing
    /// that it reported before runs any more: until it says what does, a moment later, no instance of it counts as ready and
    /// no route names a run that ended with its host.
    pub(super) fn take_facts(&mut self, facts: NodeFacts) {
        let before = std::mem::replace(&mut self.observed.facts, facts);
        let boot_id = &self.observed.facts.boot_id;
        if before.boot_id.is_empty() || boot_id.is_empty() || before.boot_id == *boot_id {
            return;
        }
        self.metrics = None;
        // A job that had ended well has no process that could have ended with its host.
        let ran = |instance: &&mut InstanceObserved| {
            instance.state == InstanceState::Ready && instance.pid.is_some()
        };
        for instance in self.observed.instances.values_mut().filter(ran) {
            instance.state = InstanceState::Starting;
            instance.ready_since = None;
            instance.pid = None;
            instance.reason = "its host was booted anew, and its agent has not said yet what runs".to_owned();
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
