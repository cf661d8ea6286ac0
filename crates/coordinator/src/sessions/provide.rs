//! What each session was given, the plan and what goes beside it, so that only what differs is sent.

use super::Sessions;
use crate::outline::Outline;
use baton_model::id::{Generation, NodeName, ServiceName};
use baton_proto::v1;

impl Sessions {
    /// Queues a plan for a node, unless its session was sent it before.
    pub(crate) fn send_plan(
        &self,
        node: &NodeName,
        generation: Generation,
        plan: impl FnOnce() -> v1::NodePlan,
    ) {
        let mut state = self.lock();
        let Some(entry) = state.nodes.get_mut(node) else { return };
        let Some(link) = entry.link.as_mut().filter(|link| link.sent < generation) else { return };
        link.sent = generation;
        if entry.send(node, v1::coordinator_message::Message::Plan(plan())).is_err() {
            tracing::warn!(%node, "the node was dropped before its plan could be queued");
        }
    }

    /// Whether the node's session was given something else for this service, or nothing yet.
    pub(crate) fn wants(&self, node: &NodeName, service: &ServiceName, outline: &Outline) -> bool {
        let state = self.lock();
        let link = state.nodes.get(node).and_then(|entry| entry.link.as_ref());
        link.is_some_and(|link| link.provided.get(service) != Some(outline))
    }

    /// Queues what the node is given for a service, and notes it for its session.
    pub(crate) fn provide(
        &self,
        node: &NodeName,
        service: ServiceName,
        outline: Outline,
        provision: v1::Provision,
    ) {
        let mut state = self.lock();
        let Some(entry) = state.nodes.get_mut(node) else { return };
        let Some(link) = entry.link.as_mut() else { return };
        link.provided.insert(service, outline);
        if entry.send(node, v1::coordinator_message::Message::Provision(provision)).is_err() {
            tracing::warn!(%node, "the node was dropped before what its services need could be queued");
        }
    }

    /// Forgets what the node's session was given for services that are not placed there any more.
    pub(crate) fn provide_only(&self, node: &NodeName, services: impl Fn(&ServiceName) -> bool) {
        let mut state = self.lock();
        if let Some(link) = state.nodes.get_mut(node).and_then(|entry| entry.link.as_mut()) {
            link.provided.retain(|service, _| services(service));
        }
    }
}
