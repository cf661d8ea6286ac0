//! What gateways say of themselves.

use super::field::{WireError, counted, text};
use crate::v1;
use baton_model::id::{RouteRevision, ServiceName, TableRevision};
use baton_model::observed::{GatewayFacts, GatewayState, TableRefused};
use baton_model::route::UpstreamId;
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

fn addresses(field: &str, wire: &[String]) -> Result<Vec<SocketAddr>, WireError> {
    let numbered = wire.iter().enumerate();
    numbered.map(|(at, address)| text(&format!("{field}[{at}]"), address)).collect()
}
