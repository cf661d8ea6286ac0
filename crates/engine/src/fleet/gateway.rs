//! A gateway as the coordinator sees it: it takes each table at once, unless it is told not to, and acknowledges it.

use super::Fleet;
use baton_model::id::{GatewayName, PortName, ServiceName};
use baton_model::observed::GatewayObserved;
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Retries, Route, RouteSpec, Timeouts, TrafficLimits,
    UpstreamId, Weight,
};
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;

/// One gateway.
#[derive(Clone, Debug, Default)]
pub struct Gateway {
    /// It says nothing and hears nothing.
    pub silent: bool,
    /// It is heard, and takes no table.
    pub deaf: bool,
    /// By what it serves.
    pub routes: BTreeMap<ServiceName, Route>,
    /// What it has in flight, to whichever run.
    pub in_flight: BTreeMap<UpstreamId, u64>,
    /// What it has and cannot serve, and why.
    pub unserved: BTreeMap<ServiceName, String>,
}

impl Gateway {
    /// What it reports: it is busy with what its routes no longer name.
    #[must_use]
    pub fn observe(&self, now: UnixMs) -> GatewayObserved {
        let named = |id: &UpstreamId| self.routes.values().any(|route| route.upstreams.contains_key(id));
        let routes = self.routes.iter().map(|(name, route)| (name.clone(), route.revision)).collect();
        let busy = self.in_flight.iter().filter(|(id, _)| !named(id));
        let busy = busy.map(|(id, requests)| (id.clone(), *requests)).collect();
        GatewayObserved { last_heard: now, routes, busy, unserved: self.unserved.clone() }
    }
}

impl Fleet {
    /// A gateway joins.
    ///
    /// # Panics
    /// When the name is none.
    pub fn join_gateway(&mut self, name: &str) -> &mut Self {
        let name = GatewayName::new(name).expect("a test's own name");
        self.desired.gateways.insert(name.clone());
        self.gateways.insert(name, Gateway::default());
        self
    }

    /// Changes a gateway, or what happens to it. One that hears again gets the table of now.
    ///
    /// # Panics
    /// When there is no such gateway.
    pub fn gateway(&mut self, name: &str, change: impl FnOnce(&mut Gateway)) -> &mut Self {
        let name = GatewayName::new(name).expect("a test's own name");
        let memory = self.memory();
        let gateway = self.gateways.get_mut(&name).expect("a gateway of this fleet");
        change(gateway);
        if !gateway.silent && !gateway.deaf {
            gateway.routes = crate::route::routes(&memory);
        }
        self
    }

    /// The route of `web` as it is remembered.
    #[must_use]
    pub fn route_of_web(&self) -> Option<&Route> {
        self.progress.get(&super::service_name("web"))?.value.route.current.as_ref()
    }

    /// The runs that the route of `web` names: `web.1/1=1`, run and release, in order.
    #[must_use]
    pub fn routed(&self) -> String {
        let upstreams = self.route_of_web().into_iter().flat_map(|route| &route.upstreams);
        upstreams.map(|(id, upstream)| format!("{id}={}", upstream.release)).collect::<Vec<_>>().join(" ")
    }
}

/// A route to the port `main`, all of whose limits are out of the way.
///
/// # Panics
/// Never: the name is one.
#[must_use]
pub fn route_spec() -> RouteSpec {
    RouteSpec {
        entry: Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port: PortName::new("main").expect("a name"),
        balance: Balance::LeastLoaded,
        split_by: Key::Address,
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis::secs(1), response: Millis::secs(30), idle: Millis::secs(60) },
        retries: Retries { attempts: 1, budget_percent: 20, hedge_after: Millis::ZERO },
        limits: TrafficLimits {
            body_bytes_max: 1 << 20,
            in_flight_max: 100,
            queue_max: 100,
            queue_timeout: Millis::secs(1),
        },
        check: None,
        ejection: Ejection { failures: 5, base: Millis::secs(10), share_max: Weight(5_000) },
        slow_start: Millis::ZERO,
        zone_spill_below: Weight(7_000),
    }
}
