//! Routes that between them hold every variant and every field both set and unset; and what is refused of them.

use super::refusals::refused;
use super::specs::service;
use crate::v1;
use baton_model::desired::Gateway;
use baton_model::evidence::histogram::Histogram;
use baton_model::evidence::{Evidence, ReleaseEvidence, ServiceEvidence, StatusCounts};
use baton_model::id::{ReleaseNumber, RolloutId, RouteRevision, TableRevision};
use baton_model::observed::{GatewayFacts, GatewayState, TableRefused};
use baton_model::route::{
    Balance, Between, Condition, Ejection, Entry, HttpProtocol, Key, Mirror, Retries, Route, RouteSpec,
    RouteTable, Rule, Split, Timeouts, TrafficCheck, TrafficLimits, Trial, Upstream, Weight,
};
use baton_model::status::{GatewayStatus, RouteStatus, ServiceTraffic, Traffic};
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;

fn keys() -> [Key; 4] {
    let name = || "x-user".to_owned();
    [Key::Address, Key::Header(name()), Key::Cookie(name()), Key::Query(name())]
}

pub(super) fn route_spec(n: usize) -> RouteSpec {
    let http = |hosts: &[&str], protocol| Entry::Http {
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        path: "/shop".to_owned(),
        protocol,
    };
    let entries = [
        http(&["shop.example", "*.shop.example"], HttpProtocol::Http1),
        http(&[], HttpProtocol::Http2),
        Entry::Tcp { listen: u16::MAX },
    ];
    let key = keys()[n % 4].clone();
    let balances = [Balance::LeastLoaded, Balance::RoundRobin, Balance::Hash(key.clone())];
    let check = TrafficCheck {
        path: "/up".to_owned(),
        interval: Millis(1000),
        timeout: Millis(1),
        rise: 1,
        fall: u32::MAX,
    };
    RouteSpec {
        entry: entries[n % 3].clone(),
        port: "http".parse().unwrap(),
        balance: balances[n % 3].clone(),
        split_by: key,
        sticky_cookie: n.is_multiple_of(2).then(|| "baton".to_owned()),
        timeouts: Timeouts { connect: Millis(1), response: Millis(u64::MAX), idle: Millis(3) },
        retries: Retries { attempts: 4, budget_percent: 5, hedge_after: Millis(6) },
        limits: TrafficLimits {
            body_bytes_max: u64::MAX,
            in_flight_max: 7,
            queue_max: 8,
            queue_timeout: Millis(9),
        },
        check: n.is_multiple_of(2).then_some(check),
        ejection: Ejection { failures: 10, base: Millis(11), share_max: Weight(12) },
        slow_start: Millis(13),
        zone_spill_below: Weight::ALL,
    }
}

fn trial(between: Between) -> Trial {
    Trial { rollout: RolloutId(7), control: ReleaseNumber(1), treatment: ReleaseNumber(2), between }
}

fn route(n: usize) -> Route {
    let to = ReleaseNumber(2);
    let key = || keys()[n % 4].clone();
    let conditions = vec![
        Condition::Is { key: key(), value: None },
        Condition::Is { key: key(), value: Some(String::new()) },
        Condition::Path { prefix: "/".to_owned() },
        Condition::Host { name: "preview.example".to_owned() },
        Condition::Share { key: key(), share: Weight(1), test: RolloutId(2) },
    ];
    let mirror = Mirror {
        to,
        share: Weight(2500),
        body_bytes_max: 1 << 20,
        in_flight_max: 64,
        unsafe_methods: true,
        compare_bodies: true,
    };
    let weights = [(ReleaseNumber(1), Weight(9_999)), (to, Weight(1))];
    let upstream = |release, address: &str, zone: Option<&str>| Upstream {
        release: ReleaseNumber(release),
        address: address.parse().unwrap(),
        zone: zone.map(str::to_owned),
    };
    let upstreams = [
        ("web.1/1", upstream(1, "10.0.0.1:8080", None)),
        ("web.1/2", upstream(2, "[2001:db8::1]:1", Some("a"))),
    ];
    let full = n.is_multiple_of(2);
    Route {
        revision: RouteRevision(u64::MAX),
        spec: route_spec(n),
        split: if full { Split { weights: weights.into() } } else { Split::default() },
        rules: if full { vec![Rule { conditions, to }, Rule { conditions: vec![], to }] } else { vec![] },
        mirror: full.then_some(mirror),
        held: full,
        trial: match n % 3 {
            0 => None,
            1 => Some(trial(Between::Copies)),
            _ => Some(trial(Between::Clients {
                key: keys()[n % 4].clone(),
                share: Weight(5_000),
                test: RolloutId(3),
            })),
        },
        upstreams: if full {
            upstreams.into_iter().map(|(id, upstream)| (id.parse().unwrap(), upstream)).collect()
        } else {
            BTreeMap::new()
        },
    }
}

pub(super) fn tables() -> Vec<RouteTable> {
    // Twelve of them meet every pair of the choices above.
    let routes = (0..12).map(|n| (service(&format!("web{n}")), route(n)));
    vec![RouteTable::default(), RouteTable { revision: TableRevision(7), routes: routes.collect() }]
}

pub(super) fn states() -> Vec<GatewayState> {
    let one = GatewayState {
        table: TableRevision(9),
        routes: BTreeMap::from([(service("web"), RouteRevision(4)), (service("db"), RouteRevision(1))]),
        busy: BTreeMap::from([("web.3/2".parse().unwrap(), 12), ("web.4/1".parse().unwrap(), 0)]),
        refused: Some(TableRefused {
            revision: TableRevision(10),
            reason: "two routes are the same".to_owned(),
        }),
        unserved: BTreeMap::from([(service("db"), "its port is taken".to_owned())]),
    };
    vec![GatewayState::default(), one]
}

pub(super) fn facts() -> Vec<GatewayFacts> {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let one = GatewayFacts {
        version: "0.1.0".to_owned(),
        http: addresses(&["0.0.0.0:80", "[::]:80"]),
        https: addresses(&["0.0.0.0:443"]),
    };
    vec![GatewayFacts::default(), one]
}

pub(super) fn evidence() -> Vec<Evidence> {
    let mut latency = Histogram::default();
    for us in [0, 63, 64, 1_000, 1_000, u64::MAX] {
        latency.record_us(us);
    }
    let release = ReleaseEvidence {
        status: StatusCounts {
            informational: 1,
            successful: 2,
            redirected: 3,
            client_error: 4,
            server_error: 5,
        },
        failures: 6,
        broken: 7,
        cancelled: 8,
        retries: 9,
        hedges: 10,
        exposures: 11,
        in_flight: 12,
        mirrored: 13,
        unmirrored: 14,
        compared: 23,
        diverted: 24,
        left_out: 25,
        differing: 15,
        latency,
    };
    let releases = [(ReleaseNumber(1), release), (ReleaseNumber(2), ReleaseEvidence::default())];
    let service = ServiceEvidence {
        requests: 16,
        unanswered: 17,
        refused: 18,
        fallbacks: 19,
        queued: 20,
        over_budget: 21,
        waiting: 22,
        releases: releases.into(),
    };
    let services =
        [(super::specs::service("web"), service), (super::specs::service("db"), ServiceEvidence::default())];
    let trials = [(super::specs::service("web"), super::trials::evidence())];
    vec![
        Evidence::default(),
        Evidence { span: Millis(1001), services: services.into(), trials: trials.into() },
    ]
}

pub(super) fn gateway_statuses() -> Vec<GatewayStatus> {
    let both = states().into_iter().zip(facts());
    let one = |(state, facts): (GatewayState, GatewayFacts)| GatewayStatus {
        gateway: Gateway { name: "edge-1".parse().unwrap(), joined_at: UnixMs(1) },
        connected: state.table.0 > 0,
        silent_for: (state.table.0 == 0).then_some(Millis(5)),
        facts,
        state,
        table: TableRevision(11),
        now: UnixMs(2),
    };
    both.map(one).collect()
}

pub(super) fn traffics() -> Vec<Traffic> {
    let service = ServiceTraffic {
        counted: evidence().swap_remove(1).services.remove(&service("web")).unwrap(),
        versions: BTreeMap::from([(ReleaseNumber(1), "1.0".parse().unwrap())]),
        split: route(0).split,
    };
    let services =
        [(super::specs::service("web"), service), (super::specs::service("db"), ServiceTraffic::default())];
    vec![
        Traffic::default(),
        Traffic { gateways: 2, span: Millis(10_000), services: services.into(), now: UnixMs(3) },
    ]
}

pub(super) fn statuses() -> Vec<RouteStatus> {
    let one = RouteStatus {
        service: service("web"),
        route: route(0),
        versions: BTreeMap::from([(ReleaseNumber(1), "1.0".parse().unwrap())]),
        gateways: BTreeMap::from([
            ("edge-1".parse().unwrap(), Some(RouteRevision(3))),
            ("edge-2".parse().unwrap(), None),
        ]),
        unserved: BTreeMap::from([("edge-1".parse().unwrap(), "its port is taken".to_owned())]),
    };
    let bare = RouteStatus { gateways: BTreeMap::new(), unserved: BTreeMap::new(), ..one.clone() };
    vec![RouteStatus { versions: BTreeMap::new(), ..bare }, one]
}

#[test]
fn what_no_gateway_could_serve_is_refused() {
    fn web0(wire: &mut v1::RouteTable) -> &mut v1::Route {
        wire.routes.get_mut("web0").unwrap()
    }
    fn spec(wire: &mut v1::RouteTable) -> &mut v1::RouteSpec {
        web0(wire).spec.as_mut().unwrap()
    }
    refused::<RouteTable, v1::RouteTable>(
        || tables().swap_remove(1).into(),
        &[
            ("routes[\"web0\"].revision", |wire| web0(wire).revision = 0),
            ("routes[\"web0\"].spec", |wire| web0(wire).spec = None),
            ("routes[\"web0\"].spec.entry", |wire| spec(wire).entry = None),
            ("routes[\"web0\"].spec.tcp.listen", |wire| {
                spec(wire).entry = Some(v1::route_spec::Entry::Tcp(v1::TcpEntry { listen: 0 }));
            }),
            ("routes[\"web0\"].spec.http.path", |wire| {
                let http = v1::HttpEntry { hosts: vec![], path: "shop".to_owned(), protocol: 1 };
                spec(wire).entry = Some(v1::route_spec::Entry::Http(http));
            }),
            ("routes[\"web0\"].spec.http.protocol", |wire| {
                let http = v1::HttpEntry { hosts: vec![], path: "/".to_owned(), protocol: 0 };
                spec(wire).entry = Some(v1::route_spec::Entry::Http(http));
            }),
            ("routes[\"web0\"].spec.balance.kind", |wire| spec(wire).balance.as_mut().unwrap().kind = None),
            ("routes[\"web0\"].spec.split_by.kind", |wire| {
                spec(wire).split_by.as_mut().unwrap().kind = None;
            }),
            ("routes[\"web0\"].spec.sticky_cookie", |wire| spec(wire).sticky_cookie = Some(String::new())),
            ("routes[\"web0\"].spec.timeouts", |wire| spec(wire).timeouts = None),
            ("routes[\"web0\"].spec.limits", |wire| spec(wire).limits = None),
            ("routes[\"web0\"].spec.check.interval_ms", |wire| {
                spec(wire).check.as_mut().unwrap().interval_ms = 0;
            }),
            ("routes[\"web0\"].spec.ejection.share_max", |wire| {
                spec(wire).ejection.as_mut().unwrap().share_max = 10_001;
            }),
            ("routes[\"web0\"].spec.zone_spill_below", |wire| spec(wire).zone_spill_below = 1 << 16),
            ("routes[\"web0\"].split.weights", |wire| {
                web0(wire).split.as_mut().unwrap().weights.insert(2, 2);
            }),
            ("routes[\"web0\"].split.weights[0]", |wire| {
                web0(wire).split.as_mut().unwrap().weights = BTreeMap::from([(0, 10_000)]);
            }),
            ("routes[\"web0\"].rules[0].to", |wire| web0(wire).rules[0].to = 0),
            ("routes[\"web0\"].rules[0].conditions[0].kind", |wire| {
                web0(wire).rules[0].conditions[0].kind = None;
            }),
            ("routes[\"web0\"].rules[0].conditions[0].is.key", |wire| {
                let is = v1::KeyIs { key: None, value: None };
                web0(wire).rules[0].conditions[0].kind = Some(v1::condition::Kind::Is(is));
            }),
            ("routes[\"web0\"].mirror.share", |wire| web0(wire).mirror.as_mut().unwrap().share = 10_001),
            ("routes[\"web0\"].upstreams[\"web.1/1\"].address", |wire| {
                web0(wire).upstreams.get_mut("web.1/1").unwrap().address = "n1:80".to_owned();
            }),
            ("routes[\"web0\"].upstreams[\"web.1\"]", |wire| {
                let upstream = web0(wire).upstreams["web.1/1"].clone();
                web0(wire).upstreams.insert("web.1".to_owned(), upstream);
            }),
        ],
    );
}

#[test]
fn what_no_gateway_could_say_is_refused() {
    refused::<GatewayState, v1::GatewayState>(
        || states().swap_remove(1).into(),
        &[
            ("routes[\"Web\"]", |wire| {
                wire.routes.insert("Web".to_owned(), 1);
            }),
            ("routes[\"web\"]", |wire| {
                wire.routes.insert("web".to_owned(), 0);
            }),
            ("busy[\"web.1\"]", |wire| {
                wire.busy.insert("web.1".to_owned(), 1);
            }),
        ],
    );
    refused::<GatewayFacts, v1::GatewayFacts>(
        || facts().swap_remove(1).into(),
        &[("http[1]", |wire| wire.http[1] = "[::]".to_owned())],
    );
}

#[test]
fn what_no_gateway_could_have_counted_is_refused() {
    fn latency(wire: &mut v1::Evidence) -> &mut v1::Histogram {
        let service = wire.services.get_mut("web").unwrap();
        service.releases.get_mut(&1).unwrap().latency.as_mut().unwrap()
    }
    fn web(wire: &mut v1::Evidence) -> &mut v1::ServiceEvidence {
        wire.services.get_mut("web").unwrap()
    }
    refused::<Evidence, v1::Evidence>(
        || evidence().swap_remove(1).into(),
        &[
            ("services[\"Web\"]", |wire| {
                wire.services.insert("Web".to_owned(), v1::ServiceEvidence::default());
            }),
            ("services[\"web\"].releases[1].latency.steps", |wire| latency(wire).steps[0] = 60_000),
            ("services[\"web\"].releases[1].latency.steps", |wire| latency(wire).steps.reverse()),
            ("services[\"web\"].releases[1].latency.counts", |wire| latency(wire).counts.truncate(1)),
            ("services[\"web\"].releases[1].status", |wire| {
                web(wire).releases.get_mut(&1).unwrap().status = None;
            }),
            ("services[\"web\"].releases[0]", |wire| {
                let empty = v1::ReleaseEvidence::from(ReleaseEvidence::default());
                web(wire).releases.insert(0, empty);
            }),
        ],
    );
}
