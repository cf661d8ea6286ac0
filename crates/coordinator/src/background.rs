//! What a coordinator does from time to time: look for silence, store the time, collect artifacts, save
//! what was compared; and the upgrade of the agents.

use crate::artifacts::{COLLECT_EVERY, collect};
use crate::clock::MARK_EVERY;
use crate::events::event;
use crate::gateways::stream::about;
use crate::metrics;
use crate::pulse::BEATS_PER_SILENCE;
use crate::records::{self, SERVICES};
use crate::state::Coordinator;
use crate::trials::SAVE_EVERY;
use crate::upgrade;
use crate::webhooks;
use baton_model::desired::Service;
use baton_model::event::Severity;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Silence is looked for [`BEATS_PER_SILENCE`] times in the time that makes a node silent, and at least this far apart.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Starts all of it, and the page for scrapers where it is to be served; each ends with `stop`.
pub(crate) fn start(
    coordinator: &Arc<Coordinator>,
    scraped_at: Option<SocketAddr>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let look = Duration::from_millis(coordinator.sessions.timing.silence.0 / BEATS_PER_SILENCE).max(LOOK_MIN);
    let mut tasks = vec![
        tokio::spawn(upgrade::keep(Arc::clone(coordinator), stop.clone())),
        tokio::spawn(webhooks::keep(Arc::clone(coordinator), stop.clone())),
        every(look, coordinator, stop, |coordinator| async move {
            tell_silent(&coordinator);
            tell_silent_gateways(&coordinator);
        }),
        every(
            MARK_EVERY.duration(),
            coordinator,
            stop,
            |coordinator| async move { mark(&coordinator).await },
        ),
        every(SAVE_EVERY, coordinator, stop, |coordinator| async move { save_trials(&coordinator).await }),
        every(
            COLLECT_EVERY,
            coordinator,
            stop,
            |coordinator| async move { collect_artifacts(coordinator).await },
        ),
    ];
    if let Some(address) = scraped_at {
        let shared = Arc::clone(coordinator);
        let page = move || metrics::text(&shared);
        tasks.push(tokio::spawn(baton_metrics::port::keep(address, page, stop.clone())));
    }
    tasks
}

fn every<F>(
    period: Duration,
    coordinator: &Arc<Coordinator>,
    stop: &CancellationToken,
    work: impl Fn(Arc<Coordinator>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send,
{
    let (coordinator, stop) = (Arc::clone(coordinator), stop.clone());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => work(Arc::clone(&coordinator)).await,
            }
        }
    })
}

fn tell_silent(coordinator: &Coordinator) {
    for node in coordinator.sessions.sweep() {
        coordinator.logs.node_gone(&node);
        let message = format!("nothing was heard of node {node} for {}", coordinator.sessions.timing.silence);
        let mut event = event(coordinator.clock.now(), Severity::Warning, "node-silent", message);
        event.node = Some(node);
        coordinator.journal.record(vec![event]);
    }
}

fn tell_silent_gateways(coordinator: &Coordinator) {
    for gateway in coordinator.gateways.sweep() {
        let message = format!(
            "nothing was heard of gateway {gateway} for {}; it goes on by the table it has",
            coordinator.gateways.timing.silence
        );
        let event = event(coordinator.clock.now(), Severity::Warning, "gateway-silent", message);
        coordinator.journal.record(vec![about(&gateway, event)]);
    }
}

/// Stores the time, for the next start.
pub(crate) async fn mark(coordinator: &Coordinator) {
    if let Err(error) = coordinator.records.set(records::CLOCK, &coordinator.clock.now()).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot store the time; it is tried again");
    }
}

/// Stores what was counted of comparisons.
pub(crate) async fn save_trials(coordinator: &Coordinator) {
    if let Err(error) = coordinator.trials.save(&coordinator.records).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot store what was counted of a comparison; it is tried again"
        );
    }
}

async fn collect_artifacts(coordinator: Arc<Coordinator>) {
    let _alone = coordinator.artifacts.in_use.write().await;
    let services = match coordinator.records.list::<Service>(SERVICES).await {
        Ok(services) => services,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell which artifacts are in use; none is collected"
            );
            return;
        }
    };
    let releases = services.iter().flat_map(|(_, service)| service.value.releases.values());
    let mut referenced: BTreeSet<_> = releases.map(|release| release.artifact.digest).collect();
    match upgrade::current(&coordinator).await {
        // Also of one that is over for now: a node that is waited for may come back and fetch it.
        Ok(upgrade) => referenced.extend(upgrade.map(|read| read.value.artifact.digest)),
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot tell which program agents run; no artifact is collected"
            );
            return;
        }
    }
    let artifacts = Arc::clone(&coordinator.artifacts);
    match tokio::task::spawn_blocking(move || collect(&artifacts, &referenced, SystemTime::now())).await {
        Ok(Ok(0)) => {}
        Ok(Ok(removed)) => tracing::info!(removed, "artifacts that no release refers to were removed"),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot collect artifacts")
        }
        Err(error) => tracing::error!(%error, "collecting artifacts failed"),
    }
}
