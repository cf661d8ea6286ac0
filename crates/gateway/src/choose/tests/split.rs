//! Which release: weights, rules, cookies, copies.

use crate::choose::DecidedBy;
use crate::fixture::{fleet, header, release_of, view, web};
use crate::hash::{Salt, point};
use crate::request::RequestView;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::route::{Condition, Key, Mirror, Rule, Weight};
use http::{HeaderMap, Method};
use proptest::prelude::*;
use std::time::Instant;

/// Six standard deviations of a binomial distribution around its mean.
#[allow(clippy::cast_precision_loss)]
fn within_bound(hits: u64, of: u64, weight: u16) -> bool {
    let (n, p) = (of as f64, f64::from(weight) / 10_000.0);
    (hits as f64 - n * p).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt() + 1.0
}

const USERS: u64 = 40_000;

#[test]
fn the_split_follows_its_weight_by_key_and_by_chance() {
    fastrand::seed(7);
    for weight in [0, 1, 100, 500, 2_500, 5_000, 9_999, 10_000] {
        let mut fleet = fleet(1);
        fleet.weights(&[(1, 10_000 - weight), (2, weight)]);
        let route = web(&fleet.served());
        let by_key =
            (0..USERS).filter(|user| release_of(&route, &format!("user-{user}")) == Some(2)).count() as u64;
        assert!(within_bound(by_key, USERS, weight), "{by_key} of {USERS} users at {}", Weight(weight));
        let nobody = HeaderMap::new();
        let by_chance = (0..USERS)
            .map(|_| route.decide(&view(&nobody), Instant::now()))
            .inspect(|decision| assert_eq!(decision.by, DecidedBy::Chance))
            .filter(|decision| decision.release == Some(ReleaseNumber(2)))
            .count() as u64;
        assert!(
            within_bound(by_chance, USERS, weight),
            "{by_chance} of {USERS} requests at {}",
            Weight(weight)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn raising_a_weight_moves_only_clients_to_it_and_only_as_many_as_must(
        from in 0_u16..=10_000, to in 0_u16..=10_000, newer in any::<bool>(),
    ) {
        let (low, high) = (from.min(to), from.max(to));
        let raised = if newer { 2 } else { 1 };
        let releases = |weight: u16| {
            let mut fleet = fleet(1);
            fleet.weights(&[(raised, weight), (3 - raised, 10_000 - weight)]);
            let route = web(&fleet.served());
            (0..2_000).map(|user| release_of(&route, &format!("user-{user}"))).collect::<Vec<_>>()
        };
        let moved: Vec<_> = releases(low).into_iter().zip(releases(high)).filter(|(before, after)| before != after).collect();
        prop_assert!(moved.iter().all(|(before, after)| *before == Some(3 - raised) && *after == Some(raised)));
        prop_assert!(within_bound(moved.len() as u64, 2_000, high - low), "{} moved by {}", moved.len(), high - low);
    }

    #[test]
    fn the_shares_of_many_releases_lie_side_by_side(weights in prop::collection::vec(0_u16..2_000, 1..5), user in "[a-z0-9]{1,12}") {
        let rest = 10_000 - weights.iter().sum::<u16>();
        let all: Vec<(u64, u16)> = weights.iter().copied().chain([rest]).zip(1..).map(|(weight, release)| (release, weight)).collect();
        let mut fleet = fleet(1);
        fleet.weights(&all);
        let at = point(Salt::new("web", "split").hash(user.as_bytes()));
        let mut end = 0;
        let expect = all.iter().find(|(_, weight)| { end += weight; at < end }).map(|(release, _)| *release);
        prop_assert_eq!(release_of(&web(&fleet.served()), &user), expect);
    }
}

#[test]
fn without_a_split_there_is_no_release() {
    let mut fleet = fleet(1);
    fleet.weights(&[]);
    assert_eq!(release_of(&web(&fleet.served()), "ada"), None);
}

fn rule(conditions: Vec<Condition>, to: u64) -> Rule {
    Rule { conditions, to: ReleaseNumber(to) }
}

fn is(key: Key, value: Option<&str>) -> Condition {
    Condition::Is { key, value: value.map(str::to_owned) }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut fleet = fleet(1);
    fleet.route.rules = vec![
        rule(
            vec![
                is(Key::Header("x-group".to_owned()), Some("staff")),
                Condition::Path { prefix: "/admin/".to_owned() },
            ],
            4,
        ),
        rule(vec![is(Key::Header("x-group".to_owned()), Some("staff"))], 2),
        rule(vec![Condition::Host { name: "preview.test".to_owned() }], 3),
        rule(vec![is(Key::Query("try".to_owned()), None)], 5),
    ];
    let served = fleet.served();
    let route = web(&served);
    let check = |request: RequestView<'_>, release: u64, by: DecidedBy| {
        let decision = route.decide(&request, Instant::now());
        assert_eq!((decision.release, decision.by), (Some(ReleaseNumber(release)), by), "{request:?}");
    };
    let staff = header("x-group", "staff");
    let other = header("x-user", "ada");
    check(RequestView { path: "/admin", ..view(&staff) }, 4, DecidedBy::Rule);
    check(RequestView { path: "/administration", ..view(&staff) }, 2, DecidedBy::Rule);
    check(RequestView { host: Some("Preview.test:8443"), ..view(&other) }, 3, DecidedBy::Rule);
    check(RequestView { query: Some("a=b&try"), ..view(&other) }, 5, DecidedBy::Rule);
    check(RequestView { host: Some("www.test"), ..view(&other) }, 1, DecidedBy::Split);
}

#[test]
fn a_share_of_a_key_is_a_cohort_that_only_grows() {
    let cohort = |share: u16| {
        let mut fleet = fleet(1);
        fleet.route.rules = vec![rule(
            vec![Condition::Share {
                key: Key::Header("x-user".to_owned()),
                share: Weight(share),
                test: RolloutId(1),
            }],
            2,
        )];
        let route = web(&fleet.served());
        (0..USERS / 4).filter(|user| release_of(&route, &user.to_string()) == Some(2)).collect::<Vec<_>>()
    };
    let (small, large) = (cohort(500), cohort(2_500));
    assert!(within_bound(small.len() as u64, USERS / 4, 500), "{}", small.len());
    assert!(within_bound(large.len() as u64, USERS / 4, 2_500), "{}", large.len());
    assert!(small.iter().all(|user| large.contains(user)), "a user fell out of a cohort that grew");
}

#[test]
fn a_cookie_holds_a_client_until_its_border_passes() {
    fastrand::seed(11);
    let mut fleet = fleet(1);
    fleet.route.spec.sticky_cookie = Some("stay".to_owned());
    let served = fleet.served();
    let nobody = HeaderMap::new();
    let mut clients = Vec::new();
    for _ in 0..500 {
        let decision = web(&served).decide(&view(&nobody), Instant::now());
        let cookie = decision.set_cookie.expect("a new client").to_str().expect("text").to_owned();
        assert!(cookie.ends_with("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"), "{cookie}");
        clients.push((header("cookie", cookie.split(';').next().expect("a pair")), ReleaseNumber(1)));
    }
    for weight in [100, 2_500, 2_500, 9_000, 10_000] {
        fleet.weights(&[(1, 10_000 - weight), (2, weight)]);
        fleet.next(&served, Instant::now());
        let route = web(&served);
        for (cookie, before) in &mut clients {
            let decision = route.decide(&view(cookie), Instant::now());
            let release = decision.release.expect("a release");
            assert!(decision.by == DecidedBy::Cookie && decision.set_cookie.is_none());
            assert!(release >= *before, "a client moved back while the weight of the newer release grew");
            *before = release;
        }
        let newer = clients.iter().filter(|(_, release)| *release == ReleaseNumber(2)).count() as u64;
        assert!(within_bound(newer, 500, weight), "{newer} of 500 at {}", Weight(weight));
    }
    let exposures: u64 = web(&served).service().releases().values().map(|it| it.total().exposures).sum();
    assert_eq!(exposures, 500);
}

#[test]
fn a_cookie_that_is_not_ours_is_none() {
    let mut fleet = fleet(1);
    fleet.route.spec.sticky_cookie = Some("stay".to_owned());
    let served = fleet.served();
    for value in ["stay=", "stay=10000", "stay=-1", "stay=1e3", "stay=99999999999999999999", "sta=1"] {
        let headers = header("cookie", value);
        let decision = web(&served).decide(&view(&headers), Instant::now());
        assert!(decision.set_cookie.is_some(), "{value}");
    }
    let ours = header("cookie", "stay=9999");
    let secure = RequestView { secure: true, ..view(&ours) };
    assert_eq!(web(&served).decide(&secure, Instant::now()).set_cookie, None);
}

#[test]
fn copies_are_drawn_in_their_share_of_what_another_release_answers() {
    fastrand::seed(13);
    let mirror = |share| Mirror {
        to: ReleaseNumber(2),
        share: Weight(share),
        body_bytes_max: 1024,
        in_flight_max: 10,
        unsafe_methods: false,
        compare_bodies: false,
    };
    let mut fleet = fleet(1);
    fleet.add(2, 9);
    let copies = |fleet: &crate::fixture::Fleet, method: &Method, requests: u64| {
        let route = web(&fleet.served());
        let headers = header("x-user", "ada");
        let request = RequestView { method, ..view(&headers) };
        (0..requests)
            .filter(|_| route.decide(&request, Instant::now()).mirror == Some(ReleaseNumber(2)))
            .count() as u64
    };
    fleet.route.mirror = Some(mirror(10_000));
    // Whether a copy can be made is looked at later, and counted.
    assert_eq!((copies(&fleet, &Method::GET, 50), copies(&fleet, &Method::POST, 50)), (50, 50));
    fleet.route.mirror = Some(mirror(1_000));
    let some = copies(&fleet, &Method::GET, 10_000);
    assert!(within_bound(some, 10_000, 1_000), "{some}");
    fleet.route.mirror = Some(mirror(10_000));
    fleet.weights(&[(2, 10_000)]);
    assert_eq!(copies(&fleet, &Method::GET, 50), 0, "the release that answers needs no copy");
}

#[test]
fn borders_are_exact() {
    let at = |weights: &[(u64, u16)], point: u16| {
        let mut fleet = fleet(1);
        fleet.route.spec.sticky_cookie = Some("stay".to_owned());
        fleet.weights(weights);
        let headers = header("cookie", &format!("stay={point}"));
        web(&fleet.served()).decide(&view(&headers), Instant::now()).release.map(|it| it.0)
    };
    let check = |weights: &[(u64, u16)], expect: &[(u16, u64)]| {
        for (point, release) in expect {
            assert_eq!(at(weights, *point), Some(*release), "point {point} of {weights:?}");
        }
    };
    check(&[(1, 2_500), (2, 7_500)], &[(0, 1), (2_499, 1), (2_500, 2), (9_999, 2)]);
    check(&[(3, 1), (5, 9_998), (9, 1)], &[(0, 3), (1, 5), (9_998, 5), (9_999, 9)]);
    check(&[(1, 0), (2, 10_000), (3, 0)], &[(0, 2), (9_999, 2)]);
}
