//! What happens when instances fail, and when nobody is there.

use crate::choose::{Decision, Picked};
use crate::evidence::Reporter;
use crate::fixture::{fail, fleet, header, pick, sent, service, slot, spread, view, web};
use crate::upstream::{Purpose, Serial};
use baton_model::id::ReleaseNumber;
use baton_model::route::{Mirror, Weight};
use http::StatusCode;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

#[test]
fn failures_in_a_row_eject_and_each_time_for_longer() {
    let (served, now) = (fleet(4).served(), Instant::now());
    let route = web(&served);
    let is_out = |now: Instant| !spread(&route, 200, now).contains_key(&1);
    let after = |seconds: u64| now + Duration::from_secs(seconds);
    fail(&route, 1, 2, now);
    assert!(!is_out(now), "two are not three");
    fail(&route, 1, 3, now);
    assert!(is_out(now) && is_out(after(9)) && !is_out(after(11)), "ten seconds the first time");
    fail(&route, 1, 3, after(11));
    assert!(is_out(after(30)) && !is_out(after(32)), "twenty the second");
    fail(&route, 1, 3, after(100));
    assert!(is_out(after(109)) && !is_out(after(111)), "it was well for long, and all is forgiven");
}

#[test]
fn a_success_ends_the_row_and_an_error_of_the_release_is_no_reason() {
    let mut fleet = fleet(2);
    fleet.route.spec.ejection.share_max = Weight::ALL;
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    let answer = |status: StatusCode, times: usize| {
        for _ in 0..times {
            sent(&route, "x", now).answered(status, MS, now);
        }
    };
    let well = || route.upstreams().filter(|it| it.is_well(now)).count();
    for _ in 0..5 {
        fail(&route, 1, 2, now);
        // Until both have answered.
        answer(StatusCode::OK, 40);
    }
    assert_eq!(well(), 2);
    answer(StatusCode::INTERNAL_SERVER_ERROR, 100);
    assert_eq!(well(), 2, "500 is what the release answers");
    answer(StatusCode::SERVICE_UNAVAILABLE, 100);
    assert_eq!(well(), 0, "503 is an instance that cannot");
}

#[test]
fn to_be_outrun_in_a_row_ejects_and_to_be_cancelled_does_not() {
    let (served, now) = (fleet(4).served(), Instant::now());
    let route = web(&served);
    let first = || route.upstreams().next().expect("an instance").clone();
    let in_flight = || {
        first().enter(u32::MAX).expect("room");
        crate::upstream::InFlight::new(first(), Purpose::First, now)
    };
    (0..10).for_each(|_| drop(in_flight()));
    assert!(first().is_well(now));
    (0..3).for_each(|_| in_flight().outrun(now + 100 * MS));
    assert!(!first().is_well(now + 100 * MS), "a stopped process takes connections and never answers");
    assert_eq!(first().in_flight(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_more_than_the_share_is_ejected(instances in 1_u64..12, share in 0_u16..=10_000, order in prop::collection::vec(1_u64..12, 0..30)) {
        let mut fleet = fleet(instances);
        fleet.route.spec.ejection.share_max = Weight(share);
        let (served, now) = (fleet.served(), Instant::now());
        let route = web(&served);
        for slot in order {
            fail(&route, 1 + slot % instances, 5, now);
        }
        let ejected = route.upstreams().filter(|it| !it.is_well(now)).count();
        let most = if share == 0 { 0 } else { (usize::try_from(instances).unwrap() * usize::from(share) / 10_000).max(1) };
        prop_assert!(ejected <= most, "{ejected} of {instances} at {}", Weight(share));
        let picked = pick(&route, "x", &[], Purpose::First, now);
        prop_assert!(matches!(picked, Picked::Upstream(_)), "a request found nobody: {picked:?}");
    }
}

#[test]
fn when_none_is_well_all_are_used() {
    let mut fleet = fleet(3);
    fleet.route.spec.ejection.share_max = Weight::ALL;
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    (1..=3).for_each(|slot| fail(&route, slot, 3, now));
    assert!(route.upstreams().all(|it| !it.is_well(now)));
    let held: Vec<_> = (0..3).map(|_| sent(&route, "x", now)).collect();
    let held: BTreeSet<u64> = held.iter().map(slot).collect();
    assert_eq!(held, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_release_without_anybody_is_answered_by_another_and_counted() {
    let mut fleet = fleet(1);
    fleet.add(3, 3);
    fleet.weights(&[(1, 1_000), (2, 8_000), (3, 1_000)]);
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    let got = spread(&route, 1_000, now);
    assert_eq!(got.values().sum::<u64>(), 1_000);
    let fallbacks = route.service().counters.total().fallbacks;
    assert!((700..900).contains(&fallbacks), "{fallbacks}");
}

#[test]
fn the_well_of_another_release_before_the_unwell_of_its_own() {
    let mut fleet = fleet(1);
    fleet.add(2, 2);
    fleet.weights(&[(2, 10_000)]);
    fleet.route.spec.ejection.share_max = Weight::ALL;
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    fail(&route, 2, 3, now);
    assert_eq!(slot(&sent(&route, "x", now)), 2, "release 1 has no share: it takes no requests");
    fleet.weights(&[(1, 1), (2, 9_999)]);
    fleet.next(&served, now);
    assert_eq!(slot(&sent(&web(&served), "x", now)), 1);
    fail(&web(&served), 1, 3, now);
    assert_eq!(slot(&sent(&web(&served), "x", now)), 2, "nobody is well: its own release");
}

#[test]
fn a_retry_goes_elsewhere_if_it_can_and_a_hedge_only_elsewhere() {
    let (served, now) = (fleet(2).served(), Instant::now());
    let route = web(&served);
    let all: Vec<Serial> = route.upstreams().map(|it| it.serial()).collect();
    for _ in 0..50 {
        let first = sent(&route, "x", now);
        let tried = [first.upstream().serial()];
        for purpose in [Purpose::Retry, Purpose::Hedge] {
            let Picked::Upstream(second) = pick(&route, "x", &tried, purpose, now) else { panic!("nobody") };
            assert_ne!(second.upstream().serial(), tried[0]);
        }
    }
    assert!(matches!(pick(&route, "x", &all, Purpose::Retry, now), Picked::Upstream(_)));
    assert!(matches!(pick(&route, "x", &all, Purpose::Hedge, now), Picked::Nobody));
    let counted = route.service().release(ReleaseNumber(1)).total();
    assert_eq!((counted.retries, counted.hedges), (51, 50));
}

#[test]
fn a_copy_goes_to_its_release_or_nowhere_and_no_more_than_its_limit() {
    let mut fleet = fleet(1);
    let mirror = Mirror {
        to: ReleaseNumber(2),
        share: Weight::ALL,
        body_bytes_max: 0,
        in_flight_max: 2,
        unsafe_methods: false,
        compare_bodies: false,
    };
    fleet.route.mirror = Some(mirror);
    let (served, now) = (fleet.served(), Instant::now());
    let copy = || {
        let headers = header("x-user", "ada");
        let route = web(&served);
        let decision = route.decide(&view(&headers), now);
        route.pick(&decision, &view(&headers), &[], Purpose::Mirror, now)
    };
    assert!(matches!(copy(), Picked::Nobody), "release 2 has nobody, and release 1 must not get it twice");
    fleet.add(2, 2);
    fleet.next(&served, now);
    let held = [copy(), copy()];
    assert!(held.iter().all(|it| matches!(it, Picked::Upstream(it) if slot(it) == 2)), "{held:?}");
    assert!(matches!(copy(), Picked::Busy));
    drop(held);
    assert!(matches!(copy(), Picked::Upstream(_)));
    assert_eq!(web(&served).service().release(ReleaseNumber(2)).total().mirrored, 3);
}

#[test]
fn without_anybody_there_is_nobody() {
    let (served, now) = (fleet(0).served(), Instant::now());
    assert!(matches!(pick(&web(&served), "x", &[], Purpose::First, now), Picked::Nobody));
}

#[test]
fn what_hung_and_came_back_is_sent_requests_again() {
    fastrand::seed(5);
    let mut fleet = fleet(2);
    fleet.route.spec.ejection.failures = 0;
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    assert_eq!(spread(&route, 200, now).len(), 2, "both are known to be fast");
    let hung = route.upstreams().next().expect("an instance").clone();
    hung.enter(u32::MAX).expect("room");
    crate::upstream::InFlight::new(hung.clone(), Purpose::First, now).outrun(now + 500 * MS);
    hung.checked(false, now + 600 * MS);
    let back = now + Duration::from_secs(5);
    assert_eq!(spread(&route, 200, back).len(), 1);
    hung.checked(true, back);
    let share = |at: Instant| spread(&route, 400, at).get(&slot_of(&hung)).copied().unwrap_or(0);
    assert!(share(back) > 0, "it is asked at once");
    assert!(share(back + Duration::from_secs(60)) > 100, "and has its share after the slow start");
}

fn slot_of(upstream: &crate::upstream::UpstreamState) -> u64 {
    upstream.id().instance.slot
}

#[test]
fn what_others_take_for_a_release_that_is_left_out_counts_against_it() {
    let mut fleet = fleet(3);
    fleet.add(2, 9);
    fleet.weights(&[(1, 7_500), (2, 2_500)]);
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    let counted = |release| route.service().release(ReleaseNumber(release)).total();
    let _ = spread(&route, 400, now);
    assert_eq!((counted(1).diverted, counted(2).diverted), (0, 0), "it answers for itself");
    let its_own = counted(2).ended();

    fail(&route, 9, 3, now);
    let _ = spread(&route, 400, now);
    let after = counted(2);
    assert_eq!(
        (after.diverted, after.failures),
        (its_own, 3),
        "the same users, answered by the release before"
    );
    assert_eq!(after.failed(), its_own + 3);
    assert_eq!(counted(1).diverted, 0);
    let left_out =
        |now| Reporter::new(now).next(&served.load(), now).services[&service("web")].releases.clone();
    assert_eq!(left_out(now)[&ReleaseNumber(2)].left_out, 1);

    // A try that failed there and is made again elsewhere has counted as that.
    let headers = header("x-user", "7");
    let decision = Decision { release: Some(ReleaseNumber(2)), ..route.decide(&view(&headers), now) };
    let retried = route.pick(&decision, &view(&headers), &[], Purpose::Retry, now);
    assert!(matches!(retried, Picked::Upstream(_)) && counted(2).diverted == its_own);
    // Back after its time, it has its own again; and one that no route names is not to blame.
    let later = now + Duration::from_secs(11);
    let _ = spread(&route, 400, later);
    assert_eq!((counted(2).diverted, counted(2).ended()), (its_own, 2 * its_own + 3));
    assert_eq!(left_out(later)[&ReleaseNumber(2)].left_out, 0);
    fleet.remove(9);
    fleet.next(&served, later);
    let _ = spread(&web(&served), 400, later);
    assert_eq!(counted(2).diverted, its_own);
}
