//! What the service manager is told; see sd_notify(3). Without one, nothing.

use baton_model::id::GatewayName;
use sd_notify::NotifyState;

/// This process takes the place of another one of the same unit, and is the unit's from now on.
pub(crate) fn takes_over() {
    tell(&[NotifyState::MainPid(std::process::id())]);
}

/// The gateway serves.
pub(crate) fn ready(name: &GatewayName) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("gateway {name} serves"))]);
}

/// The gateway drains and then ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
