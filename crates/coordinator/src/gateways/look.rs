//! What operators are shown of gateways.

use super::Gateways;
use baton_model::id::{GatewayName, RouteRevision, ServiceName};
use baton_model::observed::{GatewayFacts, GatewayState};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// What is known of one gateway, for readers.
#[derive(Clone, Debug)]
pub(crate) struct GatewayLook {
    pub(crate) connected: bool,
    pub(crate) last_heard: UnixMs,
    pub(crate) facts: GatewayFacts,
    pub(crate) said: GatewayState,
}

impl Gateways {
    /// What is known of one gateway.
    pub(crate) fn look(&self, gateway: &GatewayName) -> Option<GatewayLook> {
        let state = self.lock();
        let entry = state.gateways.get(gateway)?;
        Some(GatewayLook {
            connected: entry.link.is_some(),
            last_heard: entry.last_heard,
            facts: entry.facts.clone(),
            said: entry.said.clone(),
        })
    }

    /// The revision of a service's route at each gateway that has a session.
    pub(crate) fn serving(&self, service: &ServiceName) -> BTreeMap<GatewayName, Option<RouteRevision>> {
        let state = self.lock();
        let connected = state.gateways.iter().filter(|(_, entry)| entry.link.is_some());
        connected.map(|(name, entry)| (name.clone(), entry.said.routes.get(service).copied())).collect()
    }

    /// The gateways with a session that have a service's route and cannot serve it: why.
    pub(crate) fn unserved(&self, service: &ServiceName) -> BTreeMap<GatewayName, String> {
        let state = self.lock();
        let connected = state.gateways.iter().filter(|(_, entry)| entry.link.is_some());
        connected
            .filter_map(|(name, entry)| Some((name.clone(), entry.said.unserved.get(service)?.clone())))
            .collect()
    }
}
