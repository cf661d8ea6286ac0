//! Upgrades of the agents' program: what operators ask for, see, and end.

use super::status::Refusal;
use super::{ATTEMPTS_MAX, contended};
use crate::events::event;
use crate::records::{NODES, UPGRADE};
use crate::state::Coordinator;
use crate::upgrade::current;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::desired::Node;
use baton_model::event::Severity;
use baton_model::id::{NodeName, Revision, Version};
use baton_model::spec::Amount;
use baton_model::upgrade::{AgentUpgrade, NodeUpgrade};
use baton_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an operator asked for, read.
struct Wanted {
    version: Version,
    artifact: Artifact,
    batch: Amount,
    nodes: BTreeSet<NodeName>,
}

/// Writes a request down; an earlier one ends with it.
pub(super) async fn request(
    coordinator: &Arc<Coordinator>,
    by: &str,
    request: v1::UpgradeAgentsRequest,
) -> Result<v1::AgentUpgrade, Refusal> {
    let wanted = wanted(request)?;
    // Held until the request is written: the collector must not take the program away in between.
    let _in_use = coordinator.artifacts.in_use.read().await;
    super::deploy::present(coordinator, &wanted.artifact).await?;
    let nodes = nodes(coordinator, &wanted.nodes).await?;
    for _ in 0..ATTEMPTS_MAX {
        let before = current(coordinator).await?;
        let revision = before.as_ref().map_or(Revision(0), |read| read.revision);
        let now = coordinator.clock.now();
        let upgrade = AgentUpgrade {
            request: before.as_ref().map_or(0, |read| read.value.request) + 1,
            version: wanted.version.clone(),
            artifact: wanted.artifact.clone(),
            batch: wanted.batch,
            requested_at: now,
            requested_by: by.to_owned(),
            nodes: nodes.clone(),
            paused: None,
            cancelled: false,
        };
        match coordinator.records.put(UPGRADE, revision, &upgrade).await {
            Ok(_) => {
                let message = format!(
                    "{by} asked for agents of {} on {} nodes, {} at a time",
                    upgrade.version,
                    upgrade.nodes.len(),
                    upgrade.batch
                );
                coordinator.journal.record(vec![event(
                    now,
                    Severity::Info,
                    "agent-upgrade-requested",
                    message,
                )]);
                return Ok(upgrade.into());
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended("the upgrade of the agents"))
}

fn wanted(request: v1::UpgradeAgentsRequest) -> Result<Wanted, Refusal> {
    let missing = |what: &str| Refusal::Invalid(format!("the request names no {what}; upgrade the CLI"));
    let invalid = |error: baton_proto::convert::WireError| {
        Refusal::Invalid(format!(
            "the request cannot be read: {error}; compare `baton version` on both hosts"
        ))
    };
    let artifact: Artifact =
        request.artifact.ok_or_else(|| missing("program"))?.try_into().map_err(invalid)?;
    match artifact.format {
        ArtifactFormat::File { .. } => {}
        ArtifactFormat::Tar | ArtifactFormat::TarGzip | ArtifactFormat::TarZstd => {
            return Err(Refusal::Invalid("an agent's program is one file, not an archive".to_owned()));
        }
    }
    let batch = request.batch.ok_or_else(|| missing("batch"))?.try_into().map_err(invalid)?;
    let nodes = request.nodes.into_iter().map(NodeName::new).collect::<Result<_, _>>()?;
    Ok(Wanted { version: Version::new(request.version)?, artifact, batch, nodes })
}

/// The named nodes, or all of them; none has begun.
async fn nodes(
    coordinator: &Coordinator,
    named: &BTreeSet<NodeName>,
) -> Result<BTreeMap<NodeName, NodeUpgrade>, Refusal> {
    let all = coordinator.records.list::<Node>(NODES).await?;
    let all: BTreeSet<NodeName> = all.into_iter().map(|(_, read)| read.value.name).collect();
    if let Some(unknown) = named.iter().find(|name| !all.contains(*name)) {
        return Err(super::nodes::unknown(unknown));
    }
    let chosen = if named.is_empty() { &all } else { named };
    if chosen.is_empty() {
        return Err(Refusal::NotNow("there is no node yet; `baton node token` invites one".to_owned()));
    }
    Ok(chosen.iter().map(|name| (name.clone(), NodeUpgrade::Waiting)).collect())
}

/// How the latest request stands.
pub(super) async fn get(coordinator: &Coordinator) -> Result<v1::AgentUpgrade, Refusal> {
    Ok(current(coordinator).await?.ok_or_else(none)?.value.into())
}

fn none() -> Refusal {
    Refusal::NotFound(
        "no upgrade of the agents was ever asked for; `baton node upgrade --version V --program FILE` does"
            .to_owned(),
    )
}

/// Ends the latest request: nodes that were asked may still become the new program, and no other is asked.
pub(super) async fn cancel(coordinator: &Coordinator, by: &str) -> Result<v1::AgentUpgrade, Refusal> {
    for _ in 0..ATTEMPTS_MAX {
        let read = current(coordinator).await?.ok_or_else(none)?;
        let mut upgrade = read.value;
        if upgrade.cancelled || upgrade.is_done() {
            return Ok(upgrade.into());
        }
        upgrade.cancelled = true;
        match coordinator.records.put(UPGRADE, read.revision, &upgrade).await {
            Ok(_) => {
                let message = format!("{by} ended the upgrade of the agents to {}", upgrade.version);
                let at = coordinator.clock.now();
                let event = event(at, Severity::Info, "agent-upgrade-cancelled", message);
                coordinator.journal.record(vec![event]);
                return Ok(upgrade.into());
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended("the upgrade of the agents"))
}
