//! Two releases compared: who takes part, who is counted, and for how long.

use crate::choose::decide::Experiment;
use crate::choose::{Arm, Picked, RouteState};
use crate::evidence::Reporter;
use crate::fixture::{Fleet, fleet, header, pick, slot, view, web};
use crate::table::Served;
use crate::upstream::Purpose;
use baton_model::evidence::trial::TrialEvidence;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::route::{Between, Condition, Key, Rule, Trial, Weight};
use http::{HeaderMap, StatusCode};
use std::time::{Duration, Instant};

const SHARE: Weight = Weight(3_000);

fn user() -> Key {
    Key::Header("x-user".to_owned())
}

/// Release 2 for three of ten users, and both compared.
fn compared() -> Fleet {
    let mut fleet = fleet(1);
    fleet.add(2, 2);
    let condition = Condition::Share { key: user(), share: SHARE, test: RolloutId(7) };
    fleet.route.rules = vec![Rule { conditions: vec![condition], to: ReleaseNumber(2) }];
    fleet.route.trial = Some(Trial {
        rollout: RolloutId(7),
        control: ReleaseNumber(1),
        treatment: ReleaseNumber(2),
        between: Between::Clients { key: user(), share: SHARE, test: RolloutId(7) },
    });
    fleet
}

/// A request of each of these users, answered; gives how many got the new release.
fn ask(route: &RouteState, users: std::ops::Range<u32>) -> u64 {
    let mut new = 0;
    for user in users {
        let headers = header("x-user", &format!("user-{user}"));
        let decision = route.decide(&view(&headers), Instant::now());
        let arm = decision.arm.expect("it has the key");
        assert_eq!(
            arm == Arm::Treatment,
            decision.release == Some(ReleaseNumber(2)),
            "the arm is the release"
        );
        new += u64::from(arm == Arm::Treatment);
        route.part(&decision).expect("it takes part").answered(StatusCode::OK, Duration::from_millis(1));
    }
    new
}

fn reported(served: &Served) -> Option<TrialEvidence> {
    let evidence = Reporter::new(Instant::now()).next(&served.load(), Instant::now());
    evidence.trials.into_values().next()
}

#[test]
fn every_user_counts_once_in_the_arm_of_its_release_and_every_request_once() {
    let served = compared().served();
    let new = ask(&web(&served), 0..2_000);
    ask(&web(&served), 0..2_000);
    let counted = reported(&served).expect("two are compared");
    assert_eq!(counted.rollout, RolloutId(7));
    assert_eq!(counted.counts.treatment.requests(), 2 * new);
    assert_eq!(counted.counts.control.requests(), 2 * (2_000 - new));
    let about = |found: u64, known: u64| found.abs_diff(known) <= known / 30;
    assert!(about(counted.treatment.count(), new), "{} of {new}", counted.treatment.count());
    assert!(about(counted.control.count(), 2_000 - new), "{} of {}", counted.control.count(), 2_000 - new);
    let other = compared().served();
    assert_eq!(ask(&web(&other), 0..2_000), new, "another gateway splits alike");
    let both = reported(&other).expect("two are compared");
    assert_ne!(both.source, counted.source);
    let mut merged = counted.treatment.clone();
    merged.merge(&both.treatment);
    assert_eq!(merged, counted.treatment, "the same users, at two gateways, count once");
}

#[test]
fn without_the_key_there_is_no_part_in_it() {
    let served = compared().served();
    let decision = web(&served).decide(&view(&HeaderMap::new()), Instant::now());
    assert_eq!((decision.arm, decision.release), (None, Some(ReleaseNumber(1))));
    assert!(web(&served).part(&decision).is_none());
    assert_eq!(reported(&served).map(|it| it.control.count()), Some(0));
}

#[test]
fn counts_go_on_over_revisions_and_end_with_the_comparison() {
    let mut fleet = compared();
    let served = fleet.served();
    ask(&web(&served), 0..10);
    let before = reported(&served).expect("two are compared");
    fleet.add(1, 3);
    fleet.next(&served, Instant::now());
    assert_eq!(reported(&served), Some(before.clone()), "the same counts under the same number");
    if let Some(trial) = &mut fleet.route.trial {
        trial.rollout = RolloutId(8);
    }
    fleet.next(&served, Instant::now());
    let next = reported(&served).expect("two are compared");
    assert_eq!(next.counts.control.requests() + next.counts.treatment.requests(), 0, "another comparison");
    assert_ne!(next.source, before.source);
    fleet.route.trial = None;
    fleet.next(&served, Instant::now());
    assert_eq!(reported(&served), None);
}

/// Who is in the treatment of a test of this service, by this rollout.
fn treated(service: &str, test: u64, share: u16) -> Vec<bool> {
    let between = Between::Clients { key: user(), share: Weight(share), test: RolloutId(test) };
    let (control, treatment) = (ReleaseNumber(1), ReleaseNumber(2));
    let trial = Trial { rollout: RolloutId(test), control, treatment, between };
    let experiment = Experiment::new(&trial, service).expect("of clients");
    let arm = |user: u32| {
        let headers = header("x-user", &format!("user-{user}"));
        experiment.arm(&view(&headers)).expect("it has the key").0 == Arm::Treatment
    };
    (0..20_000).map(arm).collect()
}

#[test]
fn who_was_in_one_test_is_as_likely_as_others_to_be_in_the_next() {
    let first = treated("web", 7, 5_000);
    for (what, other) in [
        ("the next test of the service", treated("web", 8, 5_000)),
        ("a test of another service", treated("api", 7, 5_000)),
        ("a test of before there was a salt for each", treated("web", 0, 5_000)),
    ] {
        let both = first.iter().zip(&other).filter(|(one, two)| **one && **two).count();
        // A quarter of 20,000, six standard deviations of the binomial.
        assert!((4_633..5_367).contains(&both), "{both} of 20,000 are in both arms of {what}");
    }
    let more = treated("web", 7, 6_000);
    assert!(first.iter().zip(&more).all(|(now, then)| !now || *then), "a share that grows takes nobody back");
}

#[test]
fn a_hedge_stays_with_its_release() {
    let mut fleet = fleet(1);
    fleet.add(2, 2);
    fleet.weights(&[(1, 5_000), (2, 5_000)]);
    let (served, now) = (fleet.served(), Instant::now());
    let route = web(&served);
    for user in 0..50 {
        let user = user.to_string();
        let Picked::Upstream(first) = pick(&route, &user, &[], Purpose::First, now) else { panic!("nobody") };
        let tried = [first.upstream().serial()];
        assert!(matches!(pick(&route, &user, &tried, Purpose::Hedge, now), Picked::Nobody));
        let Picked::Upstream(other) = pick(&route, &user, &tried, Purpose::Retry, now) else {
            panic!("nobody")
        };
        assert_ne!(slot(&other), slot(&first), "a retry would fail otherwise");
    }
}
