//! Gateways and routes, as operators see them.

use super::contended;
use super::status::Refusal;
use crate::events::event;
use crate::gateways::stream::about;
use crate::reconcile::View;
use crate::records::{self, GATEWAYS};
use crate::state::Coordinator;
use baton_model::desired::Gateway;
use baton_model::event::Severity;
use baton_model::id::{GatewayName, ReleaseNumber, ServiceName, Version};
use baton_model::route::Split;
use baton_model::status::{GatewayStatus, RouteStatus, ServiceTraffic, Traffic};
use baton_model::time::Millis;
use baton_proto::identity::Peer;
use baton_proto::v1;
use std::collections::BTreeMap;

/// Every gateway that has joined.
pub(super) async fn list(coordinator: &Coordinator) -> Result<v1::ListGatewaysResponse, Refusal> {
    let joined = coordinator.records.list::<Gateway>(GATEWAYS).await?;
    let statuses = joined.into_iter().map(|(_, read)| status(coordinator, read.value).into());
    Ok(v1::ListGatewaysResponse { gateways: statuses.collect() })
}

fn status(coordinator: &Coordinator, gateway: Gateway) -> GatewayStatus {
    let now = coordinator.clock.now();
    let look = coordinator.gateways.look(&gateway.name);
    let connected = look.as_ref().is_some_and(|look| look.connected);
    let heard = look.as_ref().filter(|look| !look.connected).map(|look| look.last_heard);
    let (facts, state) = look.map(|look| (look.facts, look.said)).unwrap_or_default();
    GatewayStatus {
        gateway,
        connected,
        silent_for: heard.map(|at| now.since(at)),
        facts,
        state,
        table: coordinator.gateways.table().revision,
        now,
    }
}

/// Forgets a gateway: it is not waited for any more, and its certificate is worth nothing. Refused while it is
/// connected, because it would go on serving.
pub(super) async fn remove(
    coordinator: &Coordinator,
    by: &str,
    request: v1::GatewayRef,
) -> Result<v1::RemoveGatewayResponse, Refusal> {
    let name = GatewayName::new(request.name)?;
    let key = records::gateway(&name);
    let Some(read) = coordinator.records.get::<Gateway>(&key).await? else {
        return Err(Refusal::NotFound(format!(
            "no gateway `{name}` has joined; `baton gateway ls` lists them"
        )));
    };
    if coordinator.gateways.look(&name).is_some_and(|look| look.connected) {
        return Err(Refusal::NotNow(format!(
            "gateway `{name}` is connected and may be serving; stop it first, then remove it"
        )));
    }
    match coordinator.records.delete(&key, read.revision).await {
        Ok(()) => {}
        Err(error) if error.is_conflict() => return Err(contended(&format!("gateway `{name}`"))),
        Err(error) => return Err(error.into()),
    }
    coordinator.authority.forget(&Peer::Gateway(name.clone())).await?;
    coordinator.gateways.forget(&name);
    let message = format!("{by} removed gateway {name}");
    let removed = event(coordinator.clock.now(), Severity::Info, "gateway-removed", message);
    coordinator.journal.record(vec![about(&name, removed)]);
    Ok(v1::RemoveGatewayResponse {})
}

/// What the gateways are to do, for one service or for all.
pub(super) fn routes(
    coordinator: &Coordinator,
    request: v1::ListRoutesRequest,
) -> Result<v1::ListRoutesResponse, Refusal> {
    let only = request.service.map(ServiceName::new).transpose()?;
    let table = coordinator.gateways.table();
    let view = coordinator.view.borrow().clone();
    let mut routes = Vec::new();
    for (service, route) in
        table.routes.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == *name))
    {
        let status = RouteStatus {
            service: service.clone(),
            route: route.clone(),
            versions: versions(&view, service),
            gateways: coordinator.gateways.serving(service),
            unserved: coordinator.gateways.unserved(service),
        };
        routes.push(status.into());
    }
    match only {
        Some(name) if routes.is_empty() => {
            let exists = view.snapshot.desired.services.contains_key(&name);
            Err(Refusal::NotFound(if exists {
                format!("service `{name}` has no route; give its file a `[route]` and deploy it")
            } else {
                format!("there is no service `{name}`; `baton service ls` lists them")
            }))
        }
        Some(_) | None => Ok(v1::ListRoutesResponse { routes }),
    }
}

/// How far back is looked where nobody says.
const SPAN_DEFAULT: Millis = Millis::secs(10);

/// What gateways counted lately.
pub(super) fn traffic(coordinator: &Coordinator, request: &v1::GetTrafficRequest) -> v1::Traffic {
    let span = if request.span_ms == 0 { SPAN_DEFAULT } else { Millis(request.span_ms) };
    let counted = coordinator.evidence.last(span);
    let table = coordinator.gateways.table();
    let view = coordinator.view.borrow().clone();
    let services = counted.services.into_iter().map(|(name, counted)| {
        let split =
            table.routes.get(&name).map(|route| Split { weights: route.shares() }).unwrap_or_default();
        let one = ServiceTraffic { counted, versions: versions(&view, &name), split };
        (name, one)
    });
    let services = services.collect();
    let gateways = u64::try_from(counted.gateways).unwrap_or(u64::MAX);
    Traffic { gateways, span: counted.span, services, now: coordinator.clock.now() }.into()
}

fn versions(view: &View, service: &ServiceName) -> BTreeMap<ReleaseNumber, Version> {
    let releases = view.snapshot.desired.services.get(service).map(|service| &service.releases);
    releases.into_iter().flatten().map(|(number, release)| (*number, release.version.clone())).collect()
}
