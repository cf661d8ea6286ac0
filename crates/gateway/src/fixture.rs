//! Tables for tests: a small fleet, of which a test changes what it is about.

use crate::choose::{Decision, Picked, RouteState};
use crate::request::{LOOPBACK, RequestView};
use crate::table::Served;
use crate::upstream::{InFlight, Purpose, Serial};
use baton_model::id::{
    InstanceId, PortName, ReleaseNumber, RouteRevision, RunNumber, ServiceName, TableRevision,
};
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Retries, Route, RouteSpec, RouteTable, Split, Timeouts,
    TrafficLimits, Upstream, UpstreamId, Weight,
};
use baton_model::time::Millis;
use http::{HeaderMap, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a name")
}

pub(crate) fn spec() -> RouteSpec {
    RouteSpec {
        entry: Entry::Http { hosts: vec![], path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port: PortName::new("http").expect("a name"),
        balance: Balance::LeastLoaded,
        split_by: Key::Header("x-user".to_owned()),
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis(500), response: Millis::secs(5), idle: Millis::secs(60) },
        retries: Retries { attempts: 2, budget_percent: 20, hedge_after: Millis(0) },
        limits: TrafficLimits {
            body_bytes_max: 1 << 20,
            in_flight_max: 1_000,
            queue_max: 100,
            queue_timeout: Millis::secs(5),
        },
        check: None,
        ejection: Ejection { failures: 3, base: Millis::secs(10), share_max: Weight(5_000) },
        slow_start: Millis(0),
        zone_spill_below: Weight(7_000),
    }
}

/// A run of an instance of `web`: run 1 of this slot.
pub(crate) fn run(slot: u64, run: u64) -> UpstreamId {
    UpstreamId { instance: InstanceId { service: service("web"), slot }, run: RunNumber(run) }
}

pub(crate) fn upstream(release: u64, slot: u64, zone: Option<&str>) -> Upstream {
    let port = 10_000 + u16::try_from(slot).expect("few slots");
    Upstream {
        release: ReleaseNumber(release),
        address: ([127, 0, 0, 1], port).into(),
        zone: zone.map(str::to_owned),
    }
}

/// A table with one service, `web`.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) revision: u64,
    pub(crate) route: Route,
}

/// Release 1 with all the weight and instances in slots 1 to `instances`.
pub(crate) fn fleet(instances: u64) -> Fleet {
    let mut fleet = Fleet {
        revision: 1,
        route: Route {
            revision: RouteRevision(1),
            spec: spec(),
            split: Split::default(),
            rules: vec![],
            mirror: None,
            held: false,
            trial: None,
            upstreams: BTreeMap::new(),
        },
    };
    fleet.weights(&[(1, 10_000)]);
    (1..=instances).for_each(|slot| fleet.add(1, slot));
    fleet
}

impl Fleet {
    pub(crate) fn weights(&mut self, weights: &[(u64, u16)]) {
        self.route.split.weights =
            weights.iter().map(|(release, weight)| (ReleaseNumber(*release), Weight(*weight))).collect();
    }

    pub(crate) fn add(&mut self, release: u64, slot: u64) {
        self.add_in(release, slot, None);
    }

    pub(crate) fn add_in(&mut self, release: u64, slot: u64, zone: Option<&str>) {
        self.route.upstreams.insert(run(slot, 1), upstream(release, slot, zone));
    }

    pub(crate) fn remove(&mut self, slot: u64) {
        self.route.upstreams.retain(|id, _| id.instance.slot != slot);
    }

    pub(crate) fn table(&self) -> RouteTable {
        RouteTable {
            revision: TableRevision(self.revision),
            routes: BTreeMap::from([(service("web"), self.route.clone())]),
        }
    }

    /// A gateway that has this table in force.
    pub(crate) fn served(&self) -> Served {
        self.served_in(None)
    }

    pub(crate) fn served_in(&self, zone: Option<&str>) -> Served {
        let served = Served::new(zone.map(str::to_owned));
        served.install(&self.table(), Instant::now()).expect("a table without contradictions");
        served
    }

    /// Puts the next revision in force at a gateway.
    pub(crate) fn next(&mut self, served: &Served, now: Instant) {
        self.revision += 1;
        self.route.revision = self.route.revision.next();
        served.install(&self.table(), now).expect("a table without contradictions");
    }
}

/// The route of `web`.
pub(crate) fn web(served: &Served) -> Arc<RouteState> {
    Arc::clone(served.load().find(None, "/").expect("the route of web"))
}

pub(crate) fn header(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::try_from(value).expect("a value"));
    headers
}

pub(crate) fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView { method: &http::Method::GET, path: "/", headers, ..RequestView::connection(LOOPBACK) }
}

/// The release that a user is sent to.
pub(crate) fn release_of(route: &RouteState, user: &str) -> Option<u64> {
    let headers = header("x-user", user);
    route.decide(&view(&headers), Instant::now()).release.map(|it| it.0)
}

/// One request of a user, as far as the instance that gets it.
pub(crate) fn pick(
    route: &RouteState,
    user: &str,
    tried: &[Serial],
    purpose: Purpose,
    now: Instant,
) -> Picked {
    let headers = header("x-user", user);
    let view = view(&headers);
    let decision: Decision = route.decide(&view, now);
    route.pick(&decision, &view, tried, purpose, now)
}

/// The same, where there must be one.
pub(crate) fn sent(route: &RouteState, user: &str, now: Instant) -> InFlight {
    match pick(route, user, &[], Purpose::First, now) {
        Picked::Upstream(in_flight) => in_flight,
        other @ (Picked::Busy | Picked::Nobody | Picked::Stale) => panic!("no instance: {other:?}"),
    }
}

/// The slot of the instance that a request is in flight to.
pub(crate) fn slot(in_flight: &InFlight) -> u64 {
    in_flight.upstream().id().instance.slot
}

/// So many requests of different users, each done before the next: how many each slot got.
pub(crate) fn spread(route: &RouteState, requests: u64, now: Instant) -> BTreeMap<u64, u64> {
    let mut spread = BTreeMap::new();
    for user in 0..requests {
        let mut in_flight = sent(route, &user.to_string(), now);
        in_flight.answered(http::StatusCode::OK, std::time::Duration::from_millis(1), now);
        *spread.entry(slot(&in_flight)).or_default() += 1;
    }
    spread
}

/// Lets the instance of a slot fail so many times in a row.
pub(crate) fn fail(route: &RouteState, slot: u64, times: u32, now: Instant) {
    let upstream = route.upstreams().find(|it| it.id().instance.slot == slot).expect("the instance");
    for _ in 0..times {
        upstream.enter(u32::MAX).expect("room");
        InFlight::new(Arc::clone(upstream), Purpose::First, now).failed(now);
    }
}
