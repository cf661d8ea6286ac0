//! What the service manager is told; see sd_notify(3). Without one, nothing.

use crate::state::Coordinator;
use sd_notify::NotifyState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the status line is looked at.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Says that the coordinator serves, then keeps the status line current and the watchdog fed until `stop`.
///
/// The watchdog is fed while the runtime turns and the deciding thread lives (`undecided` tells that it ended): a
/// coordinator that answers and no longer decides is restarted, too.
pub(crate) async fn keep(
    coordinator: Arc<Coordinator>,
    address: SocketAddr,
    undecided: CancellationToken,
    stop: CancellationToken,
) {
    tell(&[NotifyState::Ready]);
    let feed_every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut ticks = tokio::time::interval(feed_every.map_or(STATUS_EVERY, |feed| feed.min(STATUS_EVERY)));
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = undecided.cancelled() => {
                tracing::error!("the deciding thread has ended; the watchdog is no longer fed");
                return;
            }
            _ = ticks.tick() => {}
        }
        tell(&[NotifyState::Watchdog]);
        let status = status(&coordinator, address);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
    }
    tell(&[NotifyState::Stopping]);
}

fn status(coordinator: &Coordinator, address: SocketAddr) -> String {
    let view = coordinator.view.borrow().clone();
    let desired = &view.snapshot.desired;
    let looks = coordinator.sessions.look();
    let connected =
        desired.nodes.keys().filter(|node| looks.get(node).is_some_and(|look| look.connected)).count();
    let (nodes, services) = (desired.nodes.len(), desired.services.len());
    format!("serving on {address}: {connected} of {nodes} nodes connected, {services} services")
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
