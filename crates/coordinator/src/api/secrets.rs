//! Secrets: set, listed and removed. No call gives a value back.

use super::status::Refusal;
use crate::events::event;
use crate::state::Coordinator;
use baton_model::event::Severity;
use baton_model::id::SecretName;
use baton_model::secret::Secret;
use baton_proto::v1;

pub(super) async fn set(
    coordinator: &Coordinator,
    by: &str,
    request: v1::SetSecretRequest,
) -> Result<v1::SecretStatus, Refusal> {
    let name = SecretName::new(request.name)?;
    let value = Secret::new(request.value.into());
    let status = coordinator.secrets.set(&name, value, by, coordinator.clock.now()).await?;
    let revision = status.revisions.last().map_or(0, |newest| newest.revision);
    note(coordinator, "secret-set", format!("{by} set secret {name} (revision {revision})"));
    Ok(status.into())
}

pub(super) async fn list(coordinator: &Coordinator) -> Result<v1::ListSecretsResponse, Refusal> {
    let secrets = coordinator.secrets.list(coordinator.clock.now()).await?;
    Ok(v1::ListSecretsResponse { secrets: secrets.into_iter().map(Into::into).collect() })
}

pub(super) async fn remove(
    coordinator: &Coordinator,
    by: &str,
    request: v1::SecretRef,
) -> Result<v1::RemoveSecretResponse, Refusal> {
    let name = SecretName::new(request.name)?;
    coordinator.secrets.remove(&name).await?;
    note(coordinator, "secret-removed", format!("{by} removed secret {name}"));
    Ok(v1::RemoveSecretResponse {})
}

fn note(coordinator: &Coordinator, kind: &str, message: String) {
    coordinator.journal.record(vec![event(coordinator.clock.now(), Severity::Info, kind, message)]);
}
