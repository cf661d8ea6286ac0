//! Which instance: balance, zones, slow start, limits.

use crate::choose::Picked;
use crate::fixture::{fail, fleet, pick, run, sent, slot, spread, upstream, web};
use crate::upstream::Purpose;
use baton_model::route::{Balance, Key, Weight};
use baton_model::time::Millis;
use http::StatusCode;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn by_user() -> Balance {
    Balance::Hash(Key::Header("x-user".to_owned()))
}

/// Which slot each of so many users is sent to.
fn places(fleet: &crate::fixture::Fleet, users: u64) -> BTreeMap<u64, u64> {
    let route = web(&fleet.served());
    (0..users).map(|user| (user, slot(&sent(&route, &user.to_string(), Instant::now())))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_instance_that_goes_or_comes_moves_only_its_own_share(instances in 2_u64..12, gone in 1_u64..12) {
        let gone = 1 + gone % instances;
        let mut fleet = fleet(instances);
        fleet.route.spec.balance = by_user();
        let before = places(&fleet, 600);
        fleet.remove(gone);
        let after = places(&fleet, 600);
        for (user, place) in &before {
            prop_assert!(*place == gone || after[user] == *place, "user {user} moved from {place} to {}", after[user]);
        }
        prop_assert!(before.values().any(|place| *place == gone), "nobody was there");
    }
}

#[test]
fn hashing_is_even_and_a_swap_in_place_moves_nobody() {
    let mut fleet = fleet(4);
    fleet.route.spec.balance = by_user();
    let before = places(&fleet, 4_000);
    for place in 1..=4 {
        let users = before.values().filter(|it| **it == place).count();
        // 1,000 expected, standard deviation 27; six of them.
        assert!((836..1_164).contains(&users), "{users} users at {place}");
    }
    fleet.remove(2);
    fleet.route.upstreams.insert(run(2, 7), upstream(1, 2, None));
    assert_eq!(places(&fleet, 4_000), before);
}

#[test]
fn an_ejected_instance_moves_only_its_own_users_and_gets_them_back() {
    let mut fleet = fleet(4);
    fleet.route.spec.balance = by_user();
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    let places =
        |now| (0..400).map(|user: u64| slot(&sent(&route, &user.to_string(), now))).collect::<Vec<_>>();
    let before = places(now);
    fail(&route, 3, 3, now);
    let during = places(now);
    assert!(!during.contains(&3));
    assert!(before.iter().zip(&during).all(|(before, during)| *before == 3 || before == during));
    assert_eq!(places(now + Duration::from_secs(11)), before);
}

#[test]
fn round_robin_is_even() {
    let mut fleet = fleet(4);
    fleet.route.spec.balance = Balance::RoundRobin;
    let spread = spread(&web(&fleet.served()), 400, Instant::now());
    assert_eq!(spread, BTreeMap::from([(1, 100), (2, 100), (3, 100), (4, 100)]));
}

#[test]
fn the_less_loaded_of_two_gets_the_request() {
    fastrand::seed(3);
    let (served, now) = (fleet(2).served(), Instant::now());
    let route = web(&served);
    let held: Vec<_> = (0..10).map(|user: u64| sent(&route, &user.to_string(), now)).collect();
    let at = |place| held.iter().filter(|it| slot(it) == place).count();
    assert_eq!((at(1), at(2)), (5, 5), "of two, the one with less in flight");
    drop(held);
    for (answers, latency) in [(1, 10), (2, 90)] {
        let mut in_flight = loop {
            let in_flight = sent(&route, "x", now);
            if slot(&in_flight) == answers {
                break in_flight;
            }
            // The other one stays as it is: cancelled at once, it tells nothing of note.
            drop(in_flight);
        };
        in_flight.answered(StatusCode::OK, Duration::from_millis(latency), now);
    }
    let held: Vec<_> = (0..20).map(|user: u64| sent(&route, &user.to_string(), now)).collect();
    let slow = held.iter().filter(|it| slot(it) == 2).count();
    assert!((1..=3).contains(&slow), "nine times as slow, a tenth of the load: {slow} of 20");
}

#[test]
fn nobody_gets_more_than_its_limit() {
    let mut fleet = fleet(2);
    fleet.route.spec.limits.in_flight_max = 3;
    for balance in [Balance::LeastLoaded, Balance::RoundRobin, by_user()] {
        fleet.route.spec.balance = balance.clone();
        let (served, now) = (fleet.served(), Instant::now());
        let route = web(&served);
        let mut held: Vec<_> = (0..6).map(|user: u64| sent(&route, &user.to_string(), now)).collect();
        assert!(route.upstreams().all(|it| it.in_flight() == 3), "{balance:?}");
        assert!(matches!(pick(&route, "one more", &[], Purpose::First, now), Picked::Busy), "{balance:?}");
        held.pop();
        assert!(
            matches!(pick(&route, "one more", &[], Purpose::First, now), Picked::Upstream(_)),
            "{balance:?}"
        );
    }
}

#[test]
fn the_own_zone_is_preferred_until_too_few_of_it_are_well() {
    let mut fleet = fleet(0);
    fleet.route.spec.ejection.share_max = Weight::ALL;
    (1..=4).for_each(|slot| fleet.add_in(1, slot, Some("a")));
    (5..=8).for_each(|slot| fleet.add_in(1, slot, Some("b")));
    let (served, now) = (fleet.served_in(Some("a")), Instant::now());
    let route = web(&served);
    let slots = || spread(&route, 200, now).into_keys().collect::<Vec<_>>();
    assert_eq!(slots(), [1, 2, 3, 4]);
    fail(&route, 1, 3, now);
    assert_eq!(slots(), [2, 3, 4], "three of four are more than 70%");
    fail(&route, 2, 3, now);
    assert_eq!(slots(), [3, 4, 5, 6, 7, 8], "two of four are less");
    let elsewhere = web(&fleet.served_in(Some("c")));
    assert_eq!(spread(&elsewhere, 400, now).len(), 8, "a zone without instances prefers none");
}

#[test]
fn what_the_own_zone_has_no_room_for_goes_to_others() {
    let mut fleet = fleet(0);
    fleet.route.spec.limits.in_flight_max = 2;
    fleet.add_in(1, 1, Some("a"));
    fleet.add_in(1, 2, Some("b"));
    let (served, now) = (fleet.served_in(Some("a")), Instant::now());
    let route = web(&served);
    let held: Vec<_> = (0..4).map(|user: u64| sent(&route, &user.to_string(), now)).collect();
    assert_eq!(held.iter().map(slot).collect::<Vec<_>>(), [1, 1, 2, 2]);
    assert!(matches!(pick(&route, "x", &[], Purpose::First, now), Picked::Busy));
}

#[test]
fn a_new_instance_gets_its_share_slowly() {
    fastrand::seed(5);
    for balance in [Balance::LeastLoaded, Balance::RoundRobin, by_user()] {
        let mut fleet = fleet(4);
        fleet.route.spec.slow_start = Millis::secs(100);
        fleet.route.spec.balance = balance.clone();
        let (served, now) = (fleet.served(), Instant::now());
        let share = |at: u64| {
            let now = now + Duration::from_secs(at);
            spread(&web(&served), 4_000, now).get(&5).copied().unwrap_or(0)
        };
        assert_eq!(share(1), 0);
        fleet.add(1, 5);
        fleet.next(&served, now);
        // A fifth is 800. Draws are repeated three times at most, so that a little more than its part gets through.
        assert!((20..250).contains(&share(1)), "{balance:?}: {} at the start", share(1));
        assert!((250..650).contains(&share(50)), "{balance:?}: {} halfway", share(50));
        assert!((600..1_000).contains(&share(101)), "{balance:?}: {} at the end", share(101));
    }
}

#[test]
fn when_all_are_new_none_is_held_back() {
    let mut fleet = fleet(0);
    fleet.route.spec.slow_start = Millis::secs(100);
    let (served, now) = (fleet.served(), Instant::now());
    (1..=2).for_each(|slot| fleet.add(1, slot));
    fleet.next(&served, now);
    let spread = spread(&web(&served), 100, now);
    assert_eq!(spread.len(), 2, "{spread:?}");
}
