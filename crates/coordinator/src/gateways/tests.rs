use super::*;
use baton_model::id::ReleaseNumber;
use baton_model::id::RouteRevision;
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Retries, RouteSpec, Split, Timeouts, TrafficLimits, Weight,
};
use baton_model::time::Millis;

fn gateways() -> Arc<Gateways> {
    let timing = Timing { heartbeat: Millis(10), silence: Millis::secs(60) };
    Gateways::new(Clock::start(UnixMs(0)), timing, Revision(40), BTreeMap::new())
}

fn edge() -> GatewayName {
    "edge-1".parse().unwrap()
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn routes(revision: u64) -> BTreeMap<ServiceName, Route> {
    let spec = RouteSpec {
        entry: Entry::Http { hosts: vec![], path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port: "http".parse().unwrap(),
        balance: Balance::LeastLoaded,
        split_by: Key::Address,
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis(1), response: Millis(1), idle: Millis(1) },
        retries: Retries { attempts: 0, budget_percent: 0, hedge_after: Millis(0) },
        limits: TrafficLimits { body_bytes_max: 1, in_flight_max: 1, queue_max: 1, queue_timeout: Millis(1) },
        check: None,
        ejection: Ejection { failures: 0, base: Millis(1), share_max: Weight::NONE },
        slow_start: Millis(0),
        zone_spill_below: Weight::NONE,
    };
    let route = Route {
        revision: RouteRevision(revision),
        spec,
        split: Split { weights: BTreeMap::from([(ReleaseNumber(1), Weight::ALL)]) },
        rules: vec![],
        mirror: None,
        held: false,
        trial: None,
        upstreams: BTreeMap::new(),
    };
    BTreeMap::from([(web(), route)])
}

fn serving(table: u64, route: u64) -> GatewayState {
    let routes = BTreeMap::from([(web(), RouteRevision(route))]);
    GatewayState { table: TableRevision(table), routes, ..GatewayState::default() }
}

#[test]
fn a_table_grows_only_where_something_changes() {
    let gateways = gateways();
    assert_eq!(
        gateways.table().revision,
        TableRevision(41),
        "above what an earlier coordinator can have sent"
    );
    gateways.publish(routes(1));
    gateways.publish(routes(1));
    assert_eq!(gateways.table().revision, TableRevision(42));
    gateways.publish(routes(2));
    assert_eq!(gateways.table().revision, TableRevision(43));
}

#[test]
fn what_a_gateway_says_at_its_hello_counts_at_once() {
    let gateways = gateways();
    gateways.publish(routes(8));
    let opened = gateways.open(&edge(), GatewayFacts::default(), serving(41, 7));
    assert!(!opened.ahead);
    assert_eq!(gateways.observed()[&edge()].routes, BTreeMap::from([(web(), RouteRevision(7))]));
}

#[test]
fn a_table_of_another_past_counts_for_nothing_and_is_overtaken() {
    let gateways = gateways();
    gateways.publish(routes(1));
    let same_number = gateways.open(&edge(), GatewayFacts::default(), serving(42, 7));
    assert!(same_number.ahead, "table 42 of this past has route 1");
    assert_eq!(gateways.table().revision, TableRevision(43));
    let opened = gateways.open(&edge(), GatewayFacts::default(), serving(100, 7));
    assert!(opened.ahead);
    assert_eq!(gateways.table().revision, TableRevision(101), "else the gateway would refuse it as older");
    assert_eq!(gateways.table().routes, routes(1));
    assert!(gateways.observed()[&edge()].routes.is_empty(), "route 7 may be anything");
    gateways.hear(&edge(), opened.session, Some(serving(101, 1)));
    assert_eq!(gateways.observed()[&edge()].routes, BTreeMap::from([(web(), RouteRevision(1))]));
}

#[test]
fn what_a_replaced_session_says_does_not_count() {
    let gateways = gateways();
    let open = || gateways.open(&edge(), GatewayFacts::default(), GatewayState::default());
    let (old, new) = (open(), open());
    assert!(old.ended.is_cancelled() && !new.ended.is_cancelled());
    assert_eq!(*old.replaced_by.borrow(), Some(new.session));
    assert_eq!(gateways.hear(&edge(), old.session, Some(serving(1, 1))), Heard::Replaced);
    assert!(gateways.observed()[&edge()].routes.is_empty());
    // The end of the older stream comes late and must not end the newer session.
    gateways.close(&edge(), old.session);
    assert!(gateways.look(&edge()).unwrap().connected);
    assert_eq!(gateways.hear(&edge(), new.session, Some(serving(1, 1))), Heard::Yes);
}

#[test]
fn three_replacements_in_a_short_time_are_flapping() {
    let gateways = gateways();
    let open = || gateways.open(&edge(), GatewayFacts::default(), GatewayState::default()).flapping;
    let flapping: Vec<bool> = (0..8).map(|_| open()).collect();
    assert_eq!(flapping, [false, false, false, true, false, false, true, false]);
}

#[test]
fn only_a_change_wakes() {
    let gateways = gateways();
    let opened = gateways.open(&edge(), GatewayFacts::default(), serving(40, 1));
    let mut changes = gateways.changes();
    changes.mark_unchanged();
    gateways.hear(&edge(), opened.session, None);
    gateways.hear(&edge(), opened.session, Some(serving(40, 1)));
    assert!(!changes.has_changed().unwrap(), "liveness alone decides nothing");
    let busy = BTreeMap::from([("web.1/1".parse().unwrap(), 3)]);
    gateways.hear(&edge(), opened.session, Some(GatewayState { busy: busy.clone(), ..serving(42, 2) }));
    assert!(changes.has_changed().unwrap());
    assert_eq!(gateways.observed()[&edge()].busy, busy);
}

#[test]
fn the_last_words_of_a_gateway_that_went_away_are_kept() {
    let gateways = gateways();
    let opened = gateways.open(&edge(), GatewayFacts::default(), serving(40, 1));
    gateways.close(&edge(), opened.session);
    assert!(!gateways.look(&edge()).unwrap().connected);
    assert_eq!(gateways.observed()[&edge()].routes.len(), 1, "it goes on serving by that table");
    gateways.forget(&edge());
    assert!(gateways.observed().is_empty());
}

#[test]
fn what_an_earlier_process_has_in_flight_is_waited_for_beside_the_present_one() {
    let gateways = gateways();
    let run: UpstreamId = "web.1/1".parse().unwrap();
    let busy = |count| BTreeMap::from([(run.clone(), count)]);
    let present =
        gateways.open(&edge(), GatewayFacts::default(), GatewayState { busy: busy(2), ..serving(40, 1) });
    let earlier = gateways.open_leaving(&edge(), busy(3));
    assert!(!present.ended.is_cancelled(), "neither replaces the other");
    assert_eq!(gateways.observed()[&edge()].busy, busy(5));
    gateways.hear(&edge(), present.session, Some(serving(40, 1)));
    assert_eq!(gateways.observed()[&edge()].busy, busy(3));
    gateways.hear_leaving(&edge(), earlier, None);
    assert!(gateways.observed()[&edge()].busy.is_empty());
}

#[test]
fn a_gateway_that_said_goodbye_is_not_waited_for_until_it_is_back() {
    let gateways = gateways();
    let opened = gateways.open(&edge(), GatewayFacts::default(), serving(40, 1));
    gateways.goodbye(&edge(), opened.session);
    assert_eq!(gateways.observed()[&edge()].last_heard, UnixMs(0));
    assert!(gateways.sweep().is_empty(), "it did not fall silent");
    gateways.open(&edge(), GatewayFacts::default(), serving(40, 1));
    assert!(gateways.observed()[&edge()].last_heard > UnixMs(0));
}
