//! What gateways say of themselves, and what the coordinator says of them and of routes.

use super::field::{WireError, counted, keyed, required, text};
use crate::v1;
use baton_model::desired::Gateway;
use baton_model::id::{ReleaseNumber, RouteRevision, ServiceName, TableRevision, Version};
use baton_model::observed::{GatewayFacts, GatewayState, TableRefused};
use baton_model::route::UpstreamId;
use baton_model::status::{GatewayStatus, RouteStatus, ServiceTraffic, Traffic};
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;
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
            unserved: state.unserved.into_iter().map(|(service, why)| (service.into(), why)).collect(),
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
        let unserved = |(service, why): (String, String)| {
            Ok((text::<ServiceName>(&format!("unserved[{service:?}]"), &service)?, why))
        };
        Ok(Self {
            table: TableRevision(wire.table),
            routes: wire.routes.into_iter().map(route).collect::<Result<_, WireError>>()?,
            busy: wire.busy.into_iter().map(busy).collect::<Result<_, WireError>>()?,
            refused: wire.refused.map(|refused| TableRefused {
                revision: TableRevision(refused.revision),
                reason: refused.reason,
            }),
            unserved: wire.unserved.into_iter().map(unserved).collect::<Result<_, WireError>>()?,
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
            versions: versions_to_wire(status.versions),
            gateways: gateways
                .map(|(name, revision)| (name.into(), revision.unwrap_or_default().0))
                .collect(),
            unserved: status.unserved.into_iter().map(|(name, why)| (name.into(), why)).collect(),
        }
    }
}

impl TryFrom<v1::RouteStatus> for RouteStatus {
    type Error = WireError;
    fn try_from(wire: v1::RouteStatus) -> Result<Self, WireError> {
        let gateway = |(name, revision): (String, u64)| {
            let serves = Some(RouteRevision(revision)).filter(|revision| revision.0 > 0);
            Ok((text(&format!("gateways[{name:?}]"), &name)?, serves))
        };
        let unserved =
            |(name, why): (String, String)| Ok((text(&format!("unserved[{name:?}]"), &name)?, why));
        Ok(Self {
            service: text("service", &wire.service)?,
            route: required("route", wire.route)?,
            versions: versions(wire.versions)?,
            gateways: wire.gateways.into_iter().map(gateway).collect::<Result<_, WireError>>()?,
            unserved: wire.unserved.into_iter().map(unserved).collect::<Result<_, WireError>>()?,
        })
    }
}

impl From<Traffic> for v1::Traffic {
    fn from(traffic: Traffic) -> Self {
        Self {
            gateways: traffic.gateways,
            span_ms: traffic.span.0,
            services: traffic.services.into_iter().map(|(name, one)| (name.into(), one.into())).collect(),
            now_ms: traffic.now.0,
        }
    }
}

impl TryFrom<v1::Traffic> for Traffic {
    type Error = WireError;
    fn try_from(wire: v1::Traffic) -> Result<Self, WireError> {
        Ok(Self {
            gateways: wire.gateways,
            span: Millis(wire.span_ms),
            services: keyed("services", wire.services)?,
            now: UnixMs(wire.now_ms),
        })
    }
}

impl From<ServiceTraffic> for v1::ServiceTraffic {
    fn from(traffic: ServiceTraffic) -> Self {
        Self {
            counted: Some(traffic.counted.into()),
            versions: versions_to_wire(traffic.versions),
            split: Some(traffic.split.into()),
        }
    }
}

impl TryFrom<v1::ServiceTraffic> for ServiceTraffic {
    type Error = WireError;
    fn try_from(wire: v1::ServiceTraffic) -> Result<Self, WireError> {
        Ok(Self {
            counted: required("counted", wire.counted)?,
            versions: versions(wire.versions)?,
            split: required("split", wire.split)?,
        })
    }
}

fn versions_to_wire(versions: BTreeMap<ReleaseNumber, Version>) -> BTreeMap<u64, String> {
    versions.into_iter().map(|(number, version)| (number.0, version.into())).collect()
}

fn versions(wire: BTreeMap<u64, String>) -> Result<BTreeMap<ReleaseNumber, Version>, WireError> {
    let one = |(number, version): (u64, String)| {
        let field = format!("versions[{number}]");
        Ok((ReleaseNumber(counted(&field, number)?), text(&field, &version)?))
    };
    wire.into_iter().map(one).collect()
}

fn addresses(field: &str, wire: &[String]) -> Result<Vec<SocketAddr>, WireError> {
    let numbered = wire.iter().enumerate();
    numbered.map(|(at, address)| text(&format!("{field}[{at}]"), address)).collect()
}
