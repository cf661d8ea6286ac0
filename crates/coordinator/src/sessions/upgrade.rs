//! Which sessions were asked to go on as another program, so that each is asked once.

use super::Sessions;
use baton_model::id::NodeName;
use baton_proto::v1;

impl Sessions {
    /// Asks the node's session, unless it was asked this request before or the node is not connected.
    pub(crate) fn ask_upgrade(
        &self,
        node: &NodeName,
        request: u64,
        message: impl FnOnce() -> v1::UpgradeAgent,
    ) {
        let mut state = self.lock();
        let Some(entry) = state.nodes.get_mut(node) else { return };
        let Some(link) = entry.link.as_mut().filter(|link| link.upgrade_asked < request) else { return };
        link.upgrade_asked = request;
        if entry.send(node, v1::coordinator_message::Message::UpgradeAgent(message())).is_err() {
            tracing::warn!(%node, "the node was dropped before it could be asked to upgrade its agent");
        }
    }
}
