//! What the service manager is told; see sd_notify(3). Without one, nothing.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::sync::watch;

/// Says that the agent is up, then keeps the status line current and the watchdog fed.
///
/// The watchdog is fed by the agent's one thread, so that a stuck agent is noticed; its workloads do not depend on it.
pub(crate) async fn keep(mut status: watch::Receiver<String>) {
    tell(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    loop {
        let text = status.borrow_and_update().clone();
        tell(&[NotifyState::Status(&text)]);
        loop {
            tokio::select! {
                changed = status.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = sleep_or_forever(watchdog) => tell(&[NotifyState::Watchdog]),
            }
        }
    }
}

/// Says that the agent goes, and its workloads stay.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

async fn sleep_or_forever(length: Option<Duration>) {
    match length {
        Some(length) => tokio::time::sleep(length).await,
        None => std::future::pending().await,
    }
}
