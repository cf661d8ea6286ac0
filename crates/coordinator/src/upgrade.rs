//! The upgrade of the agents' program: `engine::upgrade` decides, this commits, and then asks.
//!
//! What is decided is durable before a node is asked. A node is asked again in each of its sessions for as long as it is
//! `Asked` and runs another program; an agent that has answered a request passes over it.

use crate::events::from_draft;
use crate::records::{self, RecordsError, UPGRADE};
use crate::state::Coordinator;
use baton_engine::cycle::Versioned;
use baton_engine::upgrade::{Decided, decide};
use baton_model::time::UnixMs;
use baton_model::upgrade::{AgentUpgrade, NodeUpgrade};
use baton_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After a wake-up, what follows within this time is decided upon together.
const COALESCE: Duration = Duration::from_millis(20);
/// When the store cannot be used, it is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// Decides and asks until `stop`.
pub(crate) async fn keep(coordinator: Arc<Coordinator>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = run(&coordinator) => {}
    }
}

async fn run(coordinator: &Coordinator) {
    let mut requests = coordinator.records.store().watch(UPGRADE);
    let mut observed = coordinator.sessions.changes();
    let mut known = None;
    loop {
        if known.is_none() {
            known = match coordinator.records.get::<AgentUpgrade>(UPGRADE).await {
                Ok(read) => Some(read),
                Err(error) => {
                    tell(&error);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
        }
        observed.mark_unchanged();
        let wake_at = match known.as_mut().and_then(Option::as_mut) {
            None => None,
            Some(read) => match turn(coordinator, read).await {
                Ok(wake_at) => wake_at,
                Err(error) => {
                    // An operator wrote meanwhile, or it is not known what is there: it is read again.
                    known = None;
                    if !error.is_conflict() {
                        tell(&error);
                        tokio::time::sleep(RETRY).await;
                    }
                    continue;
                }
            },
        };
        let timer = async {
            match wake_at {
                Some(at) => {
                    let at = tokio::time::Instant::from_std(coordinator.clock.instant_of(at));
                    tokio::time::sleep_until(at).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            _ = requests.changed() => known = None,
            // Without an upgrade, or with one that is over, nothing that is heard matters.
            _ = observed.changed(), if is_open(known.as_ref()) => {}
        }
        tokio::time::sleep(COALESCE).await;
    }
}

fn is_open(known: Option<&Option<Versioned<AgentUpgrade>>>) -> bool {
    known.and_then(Option::as_ref).is_some_and(|read| !read.value.is_done())
}

/// Decides once, commits what changed, and asks who is to be asked.
async fn turn(
    coordinator: &Coordinator,
    read: &mut Versioned<AgentUpgrade>,
) -> Result<Option<UnixMs>, RecordsError> {
    let now = coordinator.clock.now();
    let snapshot = Arc::clone(&coordinator.view.borrow().snapshot);
    let observed = coordinator.sessions.observed();
    let Decided { upgrade, events, wake_at } = decide(&read.value, &snapshot.desired.nodes, &observed, now);
    if upgrade != read.value {
        read.revision = coordinator.records.put(UPGRADE, read.revision, &upgrade).await?;
        read.value = upgrade;
    }
    coordinator.journal.record(events.into_iter().map(|draft| from_draft(draft, now)).collect());
    ask(coordinator, &read.value);
    Ok(wake_at)
}

/// Asks every node that is to become another program, once in each of its sessions.
fn ask(coordinator: &Coordinator, upgrade: &AgentUpgrade) {
    for (node, state) in &upgrade.nodes {
        match state {
            NodeUpgrade::Asked(asked) if asked.back_at.is_none() => {}
            NodeUpgrade::Waiting
            | NodeUpgrade::Asked(_)
            | NodeUpgrade::Done { .. }
            | NodeUpgrade::Failed { .. } => continue,
        }
        coordinator.sessions.ask_upgrade(node, upgrade.request, || v1::UpgradeAgent {
            request: upgrade.request,
            version: upgrade.version.to_string(),
            artifact: Some(upgrade.artifact.clone().into()),
        });
    }
}

fn tell(error: &RecordsError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the upgrade of the agents stands still; it is tried again"
    );
}

/// The upgrade that the store holds.
pub(crate) async fn current(
    coordinator: &Coordinator,
) -> Result<Option<Versioned<AgentUpgrade>>, RecordsError> {
    coordinator.records.get(records::UPGRADE).await
}
