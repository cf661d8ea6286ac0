//! A corpus of tables that contradict themselves, each one change away from a good one.

use super::*;
use crate::id::{InstanceId, PortName, ReleaseNumber, RolloutId, RouteRevision, RunNumber};
use crate::route::{
    Ejection, HttpProtocol, Mirror, Retries, RouteSpec, Split, Timeouts, TrafficCheck, TrafficLimits,
    Upstream,
};
use crate::time::Millis;
use proptest::prelude::*;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a name")
}

fn http(hosts: &[&str], path: &str) -> Entry {
    let hosts = hosts.iter().map(|it| (*it).to_owned()).collect();
    Entry::Http { hosts, path: path.to_owned(), protocol: HttpProtocol::Http1 }
}

fn good(name: &str, entry: Entry) -> Route {
    let upstream = |slot: u64, release| {
        let id = UpstreamId { instance: InstanceId { service: service(name), slot }, run: RunNumber(1) };
        (id, Upstream { release: ReleaseNumber(release), address: ([10, 0, 0, 1], 8080).into(), zone: None })
    };
    Route {
        revision: RouteRevision(1),
        spec: RouteSpec {
            entry,
            port: PortName::new("http").expect("a name"),
            balance: Balance::LeastLoaded,
            split_by: Key::Address,
            sticky_cookie: None,
            timeouts: Timeouts { connect: Millis(500), response: Millis(500), idle: Millis(500) },
            retries: Retries { attempts: 1, budget_percent: 20, hedge_after: Millis(0) },
            limits: TrafficLimits {
                body_bytes_max: 1,
                in_flight_max: 1,
                queue_max: 0,
                queue_timeout: Millis::ZERO,
            },
            check: None,
            ejection: Ejection { failures: 5, base: Millis(1), share_max: Weight(5_000) },
            slow_start: Millis::ZERO,
            zone_spill_below: Weight(7_000),
        },
        split: Split {
            weights: BTreeMap::from([(ReleaseNumber(1), Weight(9_500)), (ReleaseNumber(2), Weight(500))]),
        },
        rules: vec![],
        mirror: None,
        held: false,
        trial: None,
        upstreams: BTreeMap::from([upstream(1, 1), upstream(2, 2)]),
    }
}

fn table(routes: impl IntoIterator<Item = (&'static str, Route)>) -> RouteTable {
    RouteTable {
        routes: routes.into_iter().map(|(name, route)| (service(name), route)).collect(),
        ..RouteTable::default()
    }
}

/// `what` is the whole message, or `None` where the table is good.
fn check(change: impl FnOnce(&mut Route), what: Option<&str>) {
    let mut route = good("web", http(&["web.test"], "/"));
    change(&mut route);
    let told = table([("web", route)]).check().err().map(|it| it.to_string());
    assert_eq!(told.as_deref(), what);
}

fn check_tcp(change: impl FnOnce(&mut Route), what: Option<&str>) {
    let change = |route: &mut Route| {
        route.spec.entry = Entry::Tcp { listen: 5432 };
        change(route);
    };
    check(change, what);
}

fn rule(conditions: Vec<Condition>, to: u64) -> Rule {
    Rule { conditions, to: ReleaseNumber(to) }
}

#[test]
fn two_services_may_not_want_the_same_requests() {
    let check = |one: Entry, other: Entry, what: Option<&str>| {
        let told = table([("api", good("api", one)), ("web", good("web", other))]).check();
        assert_eq!(told.err().map(|it| it.to_string()).as_deref(), what);
    };
    let tcp = |listen| Entry::Tcp { listen };
    check(http(&["a.test"], "/"), http(&["b.test"], "/"), None);
    check(http(&["a.test"], "/"), http(&["a.test"], "/api"), None);
    check(http(&["a.test"], "/"), http(&["*.test"], "/"), None);
    check(http(&["a.test"], "/"), http(&[], "/"), None);
    check(tcp(1), tcp(2), None);
    check(
        http(&["a.test", "b.test"], "/api"),
        http(&["c.test", "b.test"], "/api/"),
        Some("api and web both take b.test /api: change the `[route]` of one of them"),
    );
    check(
        http(&[], "/"),
        http(&[], "/"),
        Some("api and web both take every other host /: change the `[route]` of one of them"),
    );
    check(tcp(1), tcp(1), Some("api and web both take TCP port 1: change the `[route]` of one of them"));
}

#[test]
fn weights_add_up() {
    let weights = |weights: &'static [(u64, u16)]| {
        move |route: &mut Route| {
            route.split.weights =
                weights.iter().map(|(it, weight)| (ReleaseNumber(*it), Weight(*weight))).collect();
        }
    };
    check(weights(&[]), None);
    check(weights(&[(1, 10_000)]), None);
    check(weights(&[(1, 3_333), (2, 3_333), (7, 3_334)]), None);
    check(
        weights(&[(1, 9_000), (2, 501)]),
        Some("web: the weights add up to 95.01%, not to 100%: release 1 90%, release 2 5.01%"),
    );
    check(weights(&[(1, 0)]), Some("web: the weights add up to 0.00%, not to 100%: release 1 0%"));
    check(
        weights(&[(1, 65_535), (2, 10_001)]),
        Some("web: the weights add up to 755.36%, not to 100%: release 1 655.35%, release 2 100.01%"),
    );
}

#[test]
fn a_release_whose_last_instance_died_is_no_contradiction() {
    check(|route| route.upstreams.clear(), None);
    check(|route| route.rules = vec![rule(vec![Condition::Host { name: "x.test".to_owned() }], 9)], None);
}

#[test]
fn rules_say_something_and_not_two_things() {
    let staff =
        || vec![Condition::Is { key: Key::Header("x-group".to_owned()), value: Some("staff".to_owned()) }];
    check(|route| route.rules = vec![rule(staff(), 2), rule(staff(), 2)], None);
    check(
        |route| route.rules = vec![rule(staff(), 2), rule(staff(), 1)],
        Some("web: rule 2 sends to release 1 what rule 1 sends to release 2: take one of them out"),
    );
    check(
        |route| route.rules = vec![rule(vec![], 2)],
        Some("web: rule 1 has no condition and would take every request: use a weight of 100%"),
    );
    check(
        |route| {
            route.rules = vec![rule(
                vec![Condition::Share { key: Key::Address, share: Weight(10_001), test: RolloutId(1) }],
                2,
            )]
        },
        Some("web: the share of rule 1 is 100.01%, more than everything"),
    );
    check(
        |route| {
            route.rules =
                vec![rule(vec![Condition::Is { key: Key::Header("X-Group".to_owned()), value: None }], 2)]
        },
        Some("web: the key of rule 1: `X-Group` is not a valid name of a header; headers are in lower case"),
    );
    check(
        |route| route.rules = vec![rule(vec![Condition::Path { prefix: "admin".to_owned() }], 2)],
        Some("web: the path `admin` must begin with `/` and have no blank, `?`, `#`, empty or dot segment"),
    );
    check(
        |route| route.rules = vec![rule(staff(), 2); RULES_MAX + 1],
        Some("web: 257 rules; at most 256 are taken"),
    );
    check(
        |route| route.rules = vec![rule(vec![staff().remove(0); CONDITIONS_MAX + 1], 2)],
        Some("web: rule 1 has 33 conditions; at most 32 are taken"),
    );
}

#[test]
fn a_tcp_connection_has_only_an_address() {
    check_tcp(|_| {}, None);
    check_tcp(|route| route.spec.balance = Balance::Hash(Key::Address), None);
    check_tcp(
        |route| route.spec.entry = Entry::Tcp { listen: 0 },
        Some("web: port 0 cannot be listened on: name one from 1 to 65535"),
    );
    check_tcp(
        |route| route.spec.split_by = Key::Cookie("user".to_owned()),
        Some("web: the split's key is the cookie `user`, but a TCP connection has only an address"),
    );
    check_tcp(
        |route| route.spec.sticky_cookie = Some("stay".to_owned()),
        Some("web: the sticky cookie is the cookie `stay`, but a TCP connection has only an address"),
    );
    check_tcp(
        |route| route.rules = vec![rule(vec![Condition::Host { name: "x.test".to_owned() }], 2)],
        Some("web: rule 1 asks for a host, but a TCP connection has none"),
    );
    let mirror = Mirror {
        to: ReleaseNumber(2),
        share: Weight::ALL,
        body_bytes_max: 0,
        in_flight_max: 1,
        unsafe_methods: false,
        compare_bodies: false,
    };
    check_tcp(
        |route| route.mirror = Some(mirror.clone()),
        Some("web: a TCP connection cannot be mirrored: take the mirror out"),
    );
    check(
        |route| route.mirror = Some(Mirror { share: Weight(20_000), ..mirror.clone() }),
        Some("web: the mirror's share is 200%, more than everything"),
    );
}

#[test]
fn what_nobody_could_reach_or_send_is_refused() {
    check(
        |route| route.spec.entry = http(&["Web.test"], "/"),
        Some(
            "web: `Web.test` is not a host: write a name in lower case without a port: `www.example.org`, `*.example.org`",
        ),
    );
    check(|route| route.spec.entry = http(&["*.web.test"], "/a/"), None);
    check(
        |route| route.spec.sticky_cookie = Some("a b".to_owned()),
        Some("web: the sticky cookie: `a b` is not a valid name of a cookie; headers are in lower case"),
    );
    check(
        |route| route.spec.limits.in_flight_max = 0,
        Some("web: 0 requests in flight to an instance would let none through: allow at least 1"),
    );
    let asks = TrafficCheck {
        path: "/well?now".to_owned(),
        interval: Millis(1),
        timeout: Millis(1),
        rise: 1,
        fall: 1,
    };
    check(|route| route.spec.check = Some(asks.clone()), None);
    check(
        |route| route.spec.check = Some(TrafficCheck { interval: Millis(0), ..asks.clone() }),
        Some("web: the check's interval, timeout, rise and fall must be more than 0"),
    );
    check(
        |route| route.spec.check = Some(TrafficCheck { path: "/a b".to_owned(), ..asks.clone() }),
        Some("web: the check's path `/a b` must begin with `/` and be printable ASCII"),
    );
    check(
        |route| route.upstreams.values_mut().for_each(|it| it.address.set_port(0)),
        Some("web: web.1/1 cannot be reached at 10.0.0.1:0: it needs an address and a port"),
    );
    check(
        |route| route.upstreams = good("api", http(&[], "/")).upstreams,
        Some("web: api.1/1 is an instance of another service"),
    );
}

proptest! {
    /// Two entries overlap exactly when one request could be meant by both with the same right.
    #[test]
    fn entries_overlap_when_they_share_a_name_and_a_path(
        one in prop::collection::btree_set("[ab]\\.test", 0..3), other in prop::collection::btree_set("[ab]\\.test", 0..3),
        paths in ("(/[xy]){0,2}", "(/[xy]){0,2}", any::<bool>()),
    ) {
        let (path, elsewhere, slash) = paths;
        let entry = |hosts: &std::collections::BTreeSet<String>, path: &str, end: &str| {
            let path = if path.is_empty() { "/".to_owned() } else { format!("{path}{end}") };
            Entry::Http { hosts: hosts.iter().cloned().collect(), path, protocol: HttpProtocol::Http1 }
        };
        let first = entry(&one, &path, if slash { "/" } else { "" });
        let second = entry(&other, &elsewhere, "");
        let names = (one.is_empty() && other.is_empty()) || one.intersection(&other).next().is_some();
        let told = table([("api", good("api", first)), ("web", good("web", second))]).check();
        prop_assert_eq!(told.is_err(), names && path == elsewhere, "{:?}", told);
    }
}

#[test]
fn the_true_share_of_a_release_is_that_of_its_rule_and_of_the_split() {
    let mut route = good("web", http(&[], "/"));
    let shares = |route: &Route| -> Vec<(u64, u16)> {
        route.shares().iter().map(|(release, weight)| (release.0, weight.0)).collect()
    };
    assert_eq!(shares(&route), [(1, 9_500), (2, 500)]);
    let half = Condition::Share { key: Key::Address, share: Weight(5_000), test: RolloutId(1) };
    let staff = Condition::Is { key: Key::Header("x-staff".to_owned()), value: None };
    route.split.weights = BTreeMap::from([(ReleaseNumber(1), Weight::ALL)]);
    route.rules = vec![rule(vec![staff.clone()], 2)];
    assert_eq!(shares(&route), [(1, 10_000)], "how many are staff is not known");
    route.rules = vec![rule(vec![half.clone()], 2)];
    assert_eq!(shares(&route), [(1, 5_000), (2, 5_000)]);
    route.rules = vec![rule(vec![staff, half], 2)];
    assert_eq!(shares(&route), [(1, 10_000)]);
}
