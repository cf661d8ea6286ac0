//! What the service manager is told; see sd_notify(3). Without one, nothing.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Says that the agent is up, then keeps the status line current and the watchdog fed.
///
/// The watchdog is fed by the agent's one thread, so that a stuck agent is noticed; its workloads do not depend on it.
pub(crate) async fn keep(status: watch::Receiver<String>) {
    tell(&[NotifyState::Ready]);
    let feed_every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    follow(status, feed_every, tell).await;
}

/// Tells the status whenever it changes, and feeds the watchdog at its own pace, however often that is.
async fn follow(
    mut status: watch::Receiver<String>,
    feed_every: Option<Duration>,
    mut tell: impl FnMut(&[NotifyState]),
) {
    let mut feed = feed_every.map(tokio::time::interval);
    if let Some(feed) = &mut feed {
        feed.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    status.mark_changed();
    loop {
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
                let text = status.borrow_and_update().clone();
                tell(&[NotifyState::Status(&text)]);
            }
            () = tick(&mut feed) => tell(&[NotifyState::Watchdog]),
        }
    }
}

async fn tick(feed: &mut Option<tokio::time::Interval>) {
    match feed {
        Some(feed) => drop(feed.tick().await),
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_status_that_changes_all_the_time_does_not_starve_the_watchdog() {
        let status = watch::Sender::new("starting".to_owned());
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let feed_every = Duration::from_millis(50);
        let following = follow(status.subscribe(), Some(feed_every), move |states| {
            states.iter().for_each(|state| drop(said.send(state.to_string())));
        });
        let changing = async {
            // Always sooner than the watchdog is fed, for as long as it takes.
            for attempt in 0.. {
                status.send_replace(format!("not connected, attempt {attempt}"));
                tokio::time::sleep(feed_every / 10).await;
            }
        };
        let fed = async {
            let (mut fed, mut told) = (0, 0);
            while fed < 3 || told < 3 {
                let state = heard.recv().await.expect("it goes on");
                fed += u32::from(state.starts_with("WATCHDOG=1"));
                told += u32::from(state.contains("not connected"));
            }
        };
        tokio::select! {
            () = following => panic!("it ended"),
            () = changing => {}
            fed = tokio::time::timeout(Duration::from_secs(20), fed) => fed.expect("the watchdog is fed"),
        }
    }
}
