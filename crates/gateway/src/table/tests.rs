//! Taking tables in: what is kept, what is refused, and who is still in flight.

use super::{Served, TableError};
use crate::choose::Picked;
use crate::fixture::{Fleet, fleet, header, pick, run, sent, service, slot, upstream, view, web};
use crate::upstream::Purpose;
use baton_model::id::{ReleaseNumber, RolloutId, RouteRevision, TableRevision};
use baton_model::route::{Condition, Entry, Key, RouteTable, Rule, Weight};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

#[test]
fn an_older_table_is_refused_and_the_same_is_taken_again() {
    let mut fleet = fleet(1);
    fleet.revision = 5;
    let (served, now) = (fleet.served(), Instant::now());
    assert!(Arc::ptr_eq(&served.install(&fleet.table(), now).expect("the same"), &served.load()));
    fleet.revision = 4;
    let refused = served.install(&fleet.table(), now).expect_err("older");
    assert_eq!(refused, TableError::Older { offered: TableRevision(4), in_force: TableRevision(5) });
    assert_eq!(served.load().revision(), TableRevision(5));
    assert_eq!(served.load().revisions(), BTreeMap::from([(service("web"), RouteRevision(1))]));
}

#[test]
fn a_contradiction_leaves_the_table_before_in_force() {
    let mut fleet = fleet(1);
    let (served, now) = (fleet.served(), Instant::now());
    fleet.revision = 2;
    fleet.weights(&[(1, 9_000)]);
    fleet.remove(1);
    let refused = served.install(&fleet.table(), now).expect_err("90% is not everything");
    assert_eq!(refused.to_string(), "route table 2 is refused, the one before stays in force");
    let source = std::error::Error::source(&refused).expect("a reason").to_string();
    assert_eq!(source, "web: the weights add up to 90.00%, not to 100%: release 1 90%");
    assert_eq!(slot(&sent(&web(&served), "x", now)), 1);
}

#[test]
fn a_run_that_left_is_busy_until_its_last_request_is_done() {
    let mut fleet = fleet(2);
    let (served, now) = (fleet.served(), Instant::now());
    let before = web(&served);
    let held: Vec<_> = (0..4).map(|_| sent(&before, "x", now)).collect();
    let at_one = held.iter().filter(|it| slot(it) == 1).count() as u64;
    fleet.remove(1);
    fleet.next(&served, now);
    assert_eq!(served.load().busy(), BTreeMap::from([(run(1, 1), at_one)]));
    // A request that still holds the old route cannot slip in behind the report.
    for _ in 0..20 {
        assert_eq!(slot(&sent(&before, "late", now)), 2);
    }
    fleet.next(&served, now);
    assert_eq!(served.load().busy().len(), 1, "one more table does not make it idle");
    drop(held);
    assert!(served.load().busy().is_empty());
    fleet.remove(2);
    fleet.next(&served, now);
    assert!(matches!(pick(&before, "late", &[], Purpose::First, now), Picked::Stale));
    assert!(matches!(pick(&web(&served), "late", &[], Purpose::First, now), Picked::Nobody));
}

#[test]
fn what_is_known_of_a_run_is_kept_over_revisions() {
    let mut fleet = fleet(2);
    let (served, now) = (fleet.served(), Instant::now());
    let state = |slot: u64| web(&served).upstreams().find(|it| it.id().instance.slot == slot).cloned();
    let one = state(1).expect("there");
    let held = sent(&web(&served), "x", now);
    fleet.weights(&[(1, 10_000), (2, 0)]);
    fleet.next(&served, now);
    assert!(Arc::ptr_eq(&state(1).expect("there"), &one));
    fleet.remove(1);
    fleet.next(&served, now);
    assert!(one.has_left());
    fleet.add(1, 1);
    fleet.next(&served, now);
    assert!(!state(1).expect("back").has_left());
    fleet.remove(1);
    fleet.route.upstreams.insert(run(1, 2), upstream(1, 1, None));
    fleet.next(&served, now);
    assert!(!Arc::ptr_eq(&state(1).expect("another run"), &one), "another run is another process");
    drop(held);
}

#[tokio::test]
async fn a_new_table_wakes_who_waits_and_tells_who_is_to_go() {
    let mut fleet = fleet(0);
    let (served, now) = (fleet.served(), Instant::now());
    let place = web(&served).service().queue(1).expect("a place");
    assert!(web(&served).service().queue(1).is_none(), "the queue is full");
    {
        let mut woken = pin!(place.woken());
        woken.as_mut().enable();
        fleet.add(1, 1);
        fleet.next(&served, now);
        woken.await;
    }
    let in_flight = sent(&web(&served), "x", now);
    let upstream = Arc::clone(in_flight.upstream());
    fleet.remove(1);
    fleet.next(&served, now);
    upstream.until_left().await;
    drop(place);
    assert_eq!(web(&served).service().waiting(), 0);
}

#[tokio::test]
async fn room_wakes_one_who_waits() {
    let mut fleet = fleet(1);
    fleet.route.spec.limits.in_flight_max = 1;
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    let held = sent(&route, "x", now);
    let place = route.service().queue(10).expect("a place");
    let mut woken = pin!(place.woken());
    woken.as_mut().enable();
    assert!(matches!(pick(&route, "y", &[], Purpose::First, now), Picked::Busy));
    drop(held);
    woken.await;
    assert!(matches!(pick(&route, "y", &[], Purpose::First, now), Picked::Upstream(_)));
}

#[test]
fn tcp_routes_are_found_by_their_port() {
    let mut fleet = fleet(1);
    fleet.route.spec.entry = Entry::Tcp { listen: 5432 };
    fleet.route.spec.split_by = baton_model::route::Key::Address;
    let served = fleet.served();
    let table = served.load();
    assert_eq!(table.tcp()[&5432].name(), &service("web"));
    assert!(table.find(None, "/").is_none());
}

/// A fleet of any few instances and weights.
fn some_fleet() -> impl Strategy<Value = Fleet> {
    (0_u64..5, 0_u64..5, 0_u16..=10_000, any::<bool>()).prop_map(|(ones, twos, weight, held)| {
        let mut fleet = fleet(ones);
        (1..=twos).for_each(|slot| fleet.add(2, 10 + slot));
        fleet.weights(&[(1, 10_000 - weight), (2, weight)]);
        fleet.route.held = held;
        fleet.route.spec.ejection.share_max = Weight::ALL;
        fleet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    /// A table whose text was damaged on its way or on the disk: it is no table, it is refused, or it is served; whatever it
    /// says, a request is decided by it and nothing panics.
    #[test]
    fn a_damaged_table_is_refused_or_served(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, "[0-9a-z\"{}:,./-]{0,4}"), 1..4),
    ) {
        let mut fleet = fleet(3);
        fleet.add(2, 4);
        fleet.weights(&[(1, 9_000), (2, 1_000)]);
        let condition = Condition::Share { key: Key::Cookie("user".to_owned()), share: Weight(5_000), test: RolloutId(1) };
        fleet.route.rules = vec![Rule { conditions: vec![condition], to: ReleaseNumber(2) }];
        fleet.route.spec.sticky_cookie = Some("at".to_owned());
        let mut text = serde_json::to_string(&fleet.table()).expect("a table has a text");
        for (at, cut, put) in damage {
            let at = at.index(text.len());
            text.replace_range(at..(at + cut).min(text.len()), &put);
        }
        if let Ok(table) = serde_json::from_str::<RouteTable>(&text) {
            let (served, now) = (Served::new(None), Instant::now());
            let _ = served.install(&table, now);
            let headers = header("cookie", "user=ada");
            for route in served.load().routes().values() {
                let decision = route.decide(&view(&headers), now);
                let _ = route.pick(&decision, &view(&headers), &[], Purpose::First, now);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Requests and tables in any order: nobody is sent to a run that no table names, every request finds somebody while
    /// the split has anybody, and what is reported busy is what is held.
    #[test]
    fn no_request_reaches_a_run_that_left(tables in prop::collection::vec((some_fleet(), 0_usize..6, 0_usize..6), 1..8)) {
        let (served, now) = (Served::new(None), Instant::now());
        let (mut held, mut old) = (Vec::new(), Vec::new());
        for (revision, (mut fleet, requests, done)) in (1..).zip(tables) {
            fleet.revision = revision;
            let table: RouteTable = fleet.table();
            served.install(&table, now).expect("no contradiction");
            old.push(web(&served));
            for (at, route) in old.iter().enumerate().rev().take(3).flat_map(|it| std::iter::repeat_n(it, requests)) {
                match pick(route, "x", &[], Purpose::First, now) {
                    Picked::Upstream(in_flight) => {
                        prop_assert!(fleet.route.upstreams.contains_key(in_flight.upstream().id()));
                        held.push(in_flight);
                    }
                    Picked::Stale => prop_assert!(at + 1 < old.len(), "the newest is never stale"),
                    Picked::Nobody => {
                        let has = |release: u64, weight: &Weight| {
                            weight.0 > 0 && fleet.route.upstreams.values().any(|it| it.release.0 == release)
                        };
                        prop_assert!(at + 1 == old.len());
                        prop_assert!(!fleet.route.split.weights.iter().any(|(release, weight)| has(release.0, weight)));
                    }
                    Picked::Busy => prop_assert!(false, "there is room"),
                }
            }
            held.drain(..done.min(held.len()));
            let mut busy = BTreeMap::new();
            for in_flight in &held {
                let id = in_flight.upstream().id();
                if !fleet.route.upstreams.contains_key(id) {
                    *busy.entry(id.clone()).or_insert(0) += 1;
                }
            }
            prop_assert_eq!(served.load().busy(), busy);
        }
    }
}
