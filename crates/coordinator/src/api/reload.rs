//! A reload of a service: one more is counted, and each node's agent carries it out.

use super::services::{status, unknown};
use super::status::Refusal;
use super::{ATTEMPTS_MAX, contended};
use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_model::desired::Service;
use baton_model::event::Severity;
use baton_model::id::ServiceName;
use baton_proto::v1;

pub(super) async fn reload(
    coordinator: &Coordinator,
    by: &str,
    request: v1::ServiceRef,
) -> Result<v1::ReloadResponse, Refusal> {
    let name = ServiceName::new(request.service)?;
    let key = records::service(&name);
    for _ in 0..ATTEMPTS_MAX {
        let read = coordinator.records.get::<Service>(&key).await?.ok_or_else(|| unknown(&name))?;
        let (revision, mut service) = (read.revision, read.value);
        may_reload(&service)?;
        service.reload += 1;
        match coordinator.records.put(&key, revision, &service).await {
            Ok(_) => {
                let message = format!("{by} asked {name} to reload");
                let mut event = event(coordinator.clock.now(), Severity::Info, "reload-requested", message);
                event.service = Some(name.clone());
                event.fields.insert("reload".to_owned(), service.reload.to_string());
                coordinator.journal.record(vec![event]);
                return Ok(v1::ReloadResponse {
                    reload: service.reload,
                    service: Some(status(coordinator, &service)?),
                });
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("service `{name}`")))
}

/// Refuses where nothing would come of it.
fn may_reload(service: &Service) -> Result<(), Refusal> {
    let name = &service.name;
    let wanted = service.request.as_ref().and_then(|request| service.releases.get(&request.to));
    let Some(release) = wanted.filter(|_| !service.removed) else { return Err(unknown(name)) };
    if release.spec.lifecycle.reload.is_none() {
        return Err(Refusal::NotNow(format!(
            "`{name}` {} cannot reload: its service file has no `[reload]`; write one with `signal = \"SIGHUP\"` or \
             `command = [...]` and deploy that, or deploy again to restart it",
            release.version
        )));
    }
    Ok(())
}
