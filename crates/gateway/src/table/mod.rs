//! A route table made ready for use, and the one that is in force.

pub(crate) mod hosts;
mod served;

pub use served::Served;

use crate::choose::RouteState;
use crate::clock::tick;
use crate::upstream::{ServiceState, UpstreamState};
use baton_model::id::{RouteRevision, ServiceName, TableRevision};
use baton_model::route::contradiction::Contradiction;
use baton_model::route::{Entry, Route, RouteTable, UpstreamId};
use hosts::Hosts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Why a table is not taken in; the one before stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It contradicts itself.
    #[error("route table {revision} is refused, the one before stays in force")]
    Contradiction {
        /// The table.
        revision: TableRevision,
        /// What is wrong with it.
        source: Contradiction,
    },
    /// It is older than the one in force.
    #[error("route table {offered} is older than {in_force}, which is in force")]
    Older {
        /// The table that came.
        offered: TableRevision,
        /// The table in force.
        in_force: TableRevision,
    },
}

/// A route table made ready for use.
#[derive(Debug, Default)]
pub struct Table {
    revision: TableRevision,
    routes: BTreeMap<ServiceName, Arc<RouteState>>,
    hosts: Hosts<Arc<RouteState>>,
    tcp: BTreeMap<u16, Arc<RouteState>>,
    upstreams: BTreeMap<UpstreamId, Arc<UpstreamState>>,
    /// No longer named, and something was still in flight when last looked.
    leaving: BTreeMap<UpstreamId, Arc<UpstreamState>>,
}

impl Table {
    /// Checks a table and makes it ready. What is known of upstreams and services is taken over from `previous`, and
    /// nothing of `previous` changes until [`Served::install`] puts this one in force.
    ///
    /// `zone` is the gateway's own.
    ///
    /// # Errors
    /// Says what contradicts what.
    pub fn compile(
        table: &RouteTable,
        zone: Option<&str>,
        previous: Option<&Self>,
        now: Instant,
    ) -> Result<Self, TableError> {
        table.check().map_err(|source| TableError::Contradiction { revision: table.revision, source })?;
        let mut compiled = Self { revision: table.revision, ..Self::default() };
        for (name, route) in &table.routes {
            compiled.add(name, route, zone, previous, now);
        }
        for (id, state) in previous.iter().flat_map(|it| it.leaving.iter().chain(&it.upstreams)) {
            let named = compiled.upstreams.get(id).is_some_and(|it| Arc::ptr_eq(it, state));
            if !named {
                compiled.leaving.insert(id.clone(), Arc::clone(state));
            }
        }
        Ok(compiled)
    }

    fn add(
        &mut self,
        name: &ServiceName,
        route: &Route,
        zone: Option<&str>,
        previous: Option<&Self>,
        now: Instant,
    ) {
        let before = previous.and_then(|it| it.routes.get(name));
        let service = match before {
            Some(before) => Arc::clone(before.service()),
            None => Arc::new(ServiceState::new(name.clone(), route.spec.ejection)),
        };
        // What the gateway finds at its own start was there before it.
        let well_since = if previous.is_some() { tick(now) } else { 0 };
        let mut states = Vec::with_capacity(route.upstreams.len());
        for (id, upstream) in &route.upstreams {
            let known = previous
                .and_then(|it| it.upstreams.get(id).or_else(|| it.leaving.get(id)))
                .filter(|it| it.upstream() == upstream && Arc::ptr_eq(it.service(), &service));
            let state = known.cloned().unwrap_or_else(|| {
                Arc::new(UpstreamState::new(id.clone(), upstream.clone(), &service, well_since))
            });
            self.upstreams.insert(id.clone(), Arc::clone(&state));
            states.push(state);
        }
        let state =
            Arc::new(RouteState::new(self.revision, route, service, &states, zone, before.map(Arc::as_ref)));
        match &route.spec.entry {
            Entry::Http { hosts, path, .. } => self.hosts.add(hosts, path, &state),
            Entry::Tcp { listen } => {
                self.tcp.insert(*listen, Arc::clone(&state));
            }
        }
        self.routes.insert(name.clone(), state);
    }

    /// Its revision.
    #[must_use]
    pub const fn revision(&self) -> TableRevision {
        self.revision
    }

    /// The route of an HTTP request.
    #[must_use]
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<&Arc<RouteState>> {
        self.hosts.find(host, path)
    }

    /// The routes of TCP connections, by the port they come in on.
    #[must_use]
    pub const fn tcp(&self) -> &BTreeMap<u16, Arc<RouteState>> {
        &self.tcp
    }

    /// All routes.
    #[must_use]
    pub const fn routes(&self) -> &BTreeMap<ServiceName, Arc<RouteState>> {
        &self.routes
    }

    /// The revision of each route: what the gateway acknowledges.
    #[must_use]
    pub fn revisions(&self) -> BTreeMap<ServiceName, RouteRevision> {
        self.routes.iter().map(|(name, route)| (name.clone(), route.revision())).collect()
    }

    /// The upstreams that routes name.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamState>> {
        self.upstreams.values()
    }

    /// Upstreams that no route names and that have something in flight.
    pub fn leaving(&self) -> impl Iterator<Item = &Arc<UpstreamState>> {
        self.leaving.values().filter(|state| state.in_flight() > 0)
    }

    /// Requests and connections in flight to runs that no route names: what the gateway reports with its
    /// acknowledgement. A run that is missing has nothing in flight and never will again, unless a table names it anew.
    #[must_use]
    pub fn busy(&self) -> BTreeMap<UpstreamId, u64> {
        self.leaving().map(|state| (state.id().clone(), state.in_flight())).collect()
    }
}

#[cfg(test)]
mod tests;
