//! What gateways say of themselves, and what the coordinator says of them and of routes.

use super::field::{WireError, counted, required, text};
use crate::v1;
use baton_model::desired::Gateway;
use baton_model::id::{ReleaseNumber, RouteRevision, ServiceName, TableRevision};
use baton_model::observed::{GatewayFacts, GatewayState, TableRefused};
use baton_model::route::UpstreamId;
use baton_model::status::{GatewayStatus, RouteStatus};
use baton_model::time::{Millis, UnixMs};
use std::net::SocketAddr;

impl From<GatewayState> for v1::GatewayState {
    fn from(state: GatewayState) -> Self {
        Self {
            table: state.table.0,
            routes: state.routes.into_iter().map(|(service, route)| (service.into(), route.0)).collect(),
            busy: state.busy.into_iter().map(|(run, count)| (run.into(), count)).collect(),
            refused: state
                .refused
                .map(|refused| v1::TableRefused { revision: refused.revision.0, reason: refused.reason }),
        }
    }
}

impl TryFrom<v1::GatewayState> for GatewayState {
    type Error = WireError;
    fn try_from(wire: v1::GatewayState) -> Result<Self, WireError> {
        let route = |(service, revision): (String, u64)| {
            let field = format!("routes[{service:?}]");
            Ok((text::<ServiceName>(&field, &service)?, RouteRevision(counted(&field, revision)?)))
        };
        let busy = |(run, count): (String, u64)| {
            let field = format!("busy[{run:?}]");
            Ok((text::<UpstreamId>(&field, &run)?, count))
        };
        Ok(Self {
            table: TableRevision(wire.table),
            routes: wire.routes.into_iter().map(route).collect::<Result<_, WireError>>()?,
            busy: wire.busy.into_iter().map(busy).collect::<Result<_, WireError>>()?,
            refused: wire.refused.map(|refused| TableRefused {
                revision: TableRevision(refused.revision),
                reason: refused.reason,
            }),
        })
    }
}

impl From<GatewayFacts> for v1::GatewayFacts {
    fn from(facts: GatewayFacts) -> Self {
        let texts = |addresses: Vec<SocketAddr>| addresses.iter().map(ToString::to_string).collect();
        Self { version: facts.version, http: texts(facts.http), https: texts(facts.https) }
    }
}

impl TryFrom<v1::GatewayFacts> for GatewayFacts {
    type Error = WireError;
    fn try_from(wire: v1::GatewayFacts) -> Result<Self, WireError> {
        Ok(Self {
            version: wire.version,
            http: addresses("http", &wire.http)?,
            https: addresses("https", &wire.https)?,
        })
    }
}

impl From<GatewayStatus> for v1::GatewayStatus {
    fn from(status: GatewayStatus) -> Self {
        Self {
            name: status.gateway.name.into(),
            joined_at_ms: status.gateway.joined_at.0,
            connected: status.connected,
            silent_for_ms: status.silent_for.map(|length| length.0),
            facts: Some(status.facts.into()),
            state: Some(status.state.into()),
            table: status.table.0,
            now_ms: status.now.0,
        }
    }
}

impl TryFrom<v1::GatewayStatus> for GatewayStatus {
    type Error = WireError;
    fn try_from(wire: v1::GatewayStatus) -> Result<Self, WireError> {
        Ok(Self {
            gateway: Gateway { name: text("name", &wire.name)?, joined_at: UnixMs(wire.joined_at_ms) },
            connected: wire.connected,
            silent_for: wire.silent_for_ms.map(Millis),
            facts: required("facts", wire.facts)?,
            state: required("state", wire.state)?,
            table: TableRevision(wire.table),
            now: UnixMs(wire.now_ms),
        })
    }
}

impl From<RouteStatus> for v1::RouteStatus {
    fn from(status: RouteStatus) -> Self {
        let gateways = status.gateways.into_iter();
        Self {
            service: status.service.into(),
            route: Some(status.route.into()),
            versions: status.versions.into_iter().map(|(number, name)| (number.0, name.into())).collect(),
            gateways: gateways
                .map(|(name, revision)| (name.into(), revision.unwrap_or_default().0))
                .collect(),
        }
    }
}

impl TryFrom<v1::RouteStatus> for RouteStatus {
    type Error = WireError;
    fn try_from(wire: v1::RouteStatus) -> Result<Self, WireError> {
        let version = |(number, name): (u64, String)| {
            let field = format!("versions[{number}]");
            Ok((ReleaseNumber(counted(&field, number)?), text(&field, &name)?))
        };
        let gateway = |(name, revision): (String, u64)| {
            let serves = Some(RouteRevision(revision)).filter(|revision| revision.0 > 0);
            Ok((text(&format!("gateways[{name:?}]"), &name)?, serves))
        };
        Ok(Self {
            service: text("service", &wire.service)?,
            route: required("route", wire.route)?,
            versions: wire.versions.into_iter().map(version).collect::<Result<_, WireError>>()?,
            gateways: wire.gateways.into_iter().map(gateway).collect::<Result<_, WireError>>()?,
        })
    }
}

fn addresses(field: &str, wire: &[String]) -> Result<Vec<SocketAddr>, WireError> {
    let numbered = wire.iter().enumerate();
    numbered.map(|(at, address)| text(&format!("{field}[{at}]"), address)).collect()
}
