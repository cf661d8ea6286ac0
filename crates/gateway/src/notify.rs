//! What the service manager is told; see sd_notify(3). Without one, nothing.

use baton_model::id::GatewayName;
use sd_notify::NotifyState;

/// The gateway serves. It may have taken the place of another process of the same unit: this one is the unit's now.
pub(crate) fn ready(name: &GatewayName) {
    let status = format!("gateway {name} serves");
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(&status)]);
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
