//! Order among services, asked of a deploy: what it comes after exists, and nothing comes after itself in a circle.

use super::status::Refusal;
use crate::records::SERVICES;
use crate::state::Coordinator;
use baton_model::desired::Service;
use baton_model::id::ServiceName;
use baton_model::lifecycle::{Near, circle, circle_in_words};
use baton_model::spec::ServiceSpec;
use std::collections::BTreeMap;

/// Refuses a spec that would wait for ever. Two deploys at the same moment may each pass and make a circle together;
/// then both wait, and their reports say for what.
pub(super) async fn check(coordinator: &Coordinator, spec: &ServiceSpec) -> Result<(), Refusal> {
    if spec.lifecycle.after.is_empty() {
        return Ok(());
    }
    let read = coordinator.records.list::<Service>(SERVICES).await?;
    let services = read.iter().map(|(_, read)| &read.value).filter(|service| !service.removed);
    let after: BTreeMap<&ServiceName, Option<&BTreeMap<ServiceName, Near>>> =
        services.map(|service| (&service.name, after_of(service))).collect();
    judge(spec, &after)
}

/// Refuses to remove a service that others come after: they would never be placed anew.
pub(super) async fn check_removal(coordinator: &Coordinator, name: &ServiceName) -> Result<(), Refusal> {
    let read = coordinator.records.list::<Service>(SERVICES).await?;
    let mut services = read.iter().map(|(_, read)| &read.value).filter(|service| !service.removed);
    match services.find(|service| after_of(service).is_some_and(|after| after.contains_key(name))) {
        None => Ok(()),
        Some(Service { name: other, .. }) => Err(Refusal::NotNow(format!(
            "`{other}` comes after `{name}`, and could not be started anew without it; remove `{other}` first, or deploy it \
             without `{name}` in its `[after]`"
        ))),
    }
}

/// What the release that is wanted comes after.
fn after_of(service: &Service) -> Option<&BTreeMap<ServiceName, Near>> {
    let wanted = service.request.as_ref().and_then(|request| service.releases.get(&request.to));
    wanted.map(|release| &release.spec.lifecycle.after)
}

fn judge(
    spec: &ServiceSpec,
    known: &BTreeMap<&ServiceName, Option<&BTreeMap<ServiceName, Near>>>,
) -> Result<(), Refusal> {
    let name = &spec.name;
    if let Some(circle) = circle(name, &spec.lifecycle.after, |name| known.get(name).copied().flatten()) {
        return Err(Refusal::NotNow(format!(
            "`{name}` would wait for itself: {}; take one of them out of an `[after]`",
            circle_in_words(&circle)
        )));
    }
    match spec.lifecycle.after.keys().find(|after| !known.contains_key(after)) {
        None => Ok(()),
        Some(missing) => Err(Refusal::NotNow(format!(
            "`{name}` comes after `{missing}`, which does not exist; deploy `{missing}` first, or take it out of `[after]`"
        ))),
    }
}
