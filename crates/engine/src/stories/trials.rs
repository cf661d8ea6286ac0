//! Two releases compared: what a rollout shows, keeps and tells of it, however it ends.

use super::strategies::shares;
use crate::fleet::{Fleet, fleet, route_spec, service_name, spec};
use baton_model::evidence::StatusCounts;
use baton_model::evidence::trial::{ArmCounts, TrialCounts};
use baton_model::id::{PortName, ReleaseNumber, RolloutId};
use baton_model::observed::TrialObserved;
use baton_model::rollout::{AbTest, Answer, Comparison, RolloutOutcome, Strategy};
use baton_model::route::{Between, Key, Trial, Weight};
use baton_model::spec::{Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

const SOON: Millis = Millis::secs(120);

fn by(strategy: Strategy) -> ServiceSpec {
    let mut spec = spec("web", 4);
    spec.ports.insert(PortName::new("main").unwrap(), Port { kind: PortKind::Dynamic });
    spec.route = Some(route_spec());
    spec.rollout.strategy = strategy;
    spec
}

/// A minute of an A/B test, begun on a release that stands.
fn testing() -> Fleet {
    let test =
        AbTest { key: Key::Cookie("user".to_owned()), share: Weight(5_000), duration: Millis::secs(60) };
    let mut fleet = fleet(2, 2);
    fleet.join_gateway("g1").join_gateway("g2");
    fleet.deploy(by(Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    fleet.events.clear();
    fleet.deploy(by(Strategy::Ab(test))).run(Millis::secs(30));
    fleet
}

/// Gateways have counted so many clients of the release before and of the new one, a request each.
fn count(fleet: &mut Fleet, control: u64, treatment: u64) {
    let arm = |requests| ArmCounts {
        status: StatusCounts { successful: requests, ..StatusCounts::default() },
        ..ArmCounts::default()
    };
    let observed = TrialObserved {
        rollout: RolloutId(2),
        sources: 2,
        counts: TrialCounts { control: arm(control), treatment: arm(treatment), ..TrialCounts::default() },
        control_clients: control,
        treatment_clients: treatment,
    };
    fleet.trials.insert(service_name("web"), observed);
}

/// The comparison that is shown, of the rollout that is or was last.
fn shown(fleet: &Fleet) -> Comparison {
    let rollout = fleet.report.services[&service_name("web")].rollout.clone().expect("a rollout");
    rollout.stages.into_iter().find_map(|stage| stage.comparison).expect("a comparison")
}

fn told(fleet: &Fleet) -> Vec<String> {
    let compared = fleet.events.iter().filter(|(_, event)| event.kind == "releases-compared");
    compared.map(|(_, event)| event.message.clone()).collect()
}

#[test]
fn gateways_are_told_what_to_compare_and_no_longer_when_it_is_decided() {
    let mut fleet = testing();
    let trial = |fleet: &Fleet| fleet.route_of_web().and_then(|route| route.trial.clone());
    let between =
        Between::Clients { key: Key::Cookie("user".to_owned()), share: Weight(5_000), test: RolloutId(2) };
    let expect =
        Trial { rollout: RolloutId(2), control: ReleaseNumber(1), treatment: ReleaseNumber(2), between };
    assert_eq!(trial(&fleet), Some(expect));
    fleet.control(|control| control.abort = true).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(trial(&fleet), None);
}

#[test]
fn who_is_not_in_the_share_gets_the_release_before_whatever_the_share_is() {
    for share in [1_000, 3_000, 5_000, 6_000, 9_000] {
        let test =
            AbTest { key: Key::Cookie("user".to_owned()), share: Weight(share), duration: Millis::secs(20) };
        let mut fleet = fleet(2, 2);
        fleet.join_gateway("g1").join_gateway("g2");
        fleet.deploy(by(Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
        fleet.deploy(by(Strategy::Ab(test))).until(RolloutOutcome::Paused, SOON);
        // Of four instances three are the floor: an instance too many of the new release, and the old ones could not take
        // all the others.
        let expect = format!("1=100% [{} of cookie:user]=2", Weight(share));
        assert_eq!(shares(&fleet), expect, "{}", fleet.journal());
    }
}

#[test]
fn a_comparison_follows_the_counts_until_the_time_is_over_and_stays_then() {
    let mut fleet = testing();
    count(&mut fleet, 500, 510);
    fleet.run(Millis::secs(3));
    assert_eq!((shown(&fleet).control.requests, shown(&fleet).treatment.requests), (500, 510));
    assert_eq!(told(&fleet), Vec::<String>::new());
    fleet.until(RolloutOutcome::Paused, SOON);
    assert_eq!(told(&fleet).len(), 1, "{}", fleet.journal());
    count(&mut fleet, 900, 100);
    fleet.run(Millis::secs(30));
    assert_eq!(shown(&fleet).control.requests, 500, "what is decided by does not move");
    fleet.control(|control| control.abort = true).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!((shown(&fleet).control.requests, told(&fleet).len()), (500, 1));
}

#[test]
fn a_mismatch_is_said_to_whoever_is_to_decide() {
    let mut fleet = testing();
    count(&mut fleet, 500, 300);
    fleet.until(RolloutOutcome::Paused, SOON);
    assert_eq!(shown(&fleet).sample_ratio.map(|ratio| ratio.answer), Some(Answer::Fail));
    let reason = fleet.web().and_then(|web| web.rollout.as_ref()).map(|rollout| rollout.reason.clone());
    assert!(
        reason.is_some_and(|it| it.ends_with("not to be trusted: sample ratio mismatch")),
        "{}",
        fleet.journal()
    );
    assert!(told(&fleet)[0].contains("sample ratio mismatch"), "{:?}", told(&fleet));
}

#[test]
fn what_was_compared_is_kept_when_the_rollout_turns_round_or_another_takes_its_place() {
    let mut fleet = testing();
    count(&mut fleet, 40, 50);
    fleet.control(|control| control.abort = true).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(shown(&fleet).treatment.requests, 50);

    let mut fleet = testing();
    count(&mut fleet, 40, 50);
    fleet.deploy(by(Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON);
    let memory = fleet.memory().remove(&service_name("web")).unwrap();
    let kept = memory.history.iter().flat_map(|rollout| &rollout.stages).find_map(|it| it.comparison.clone());
    assert_eq!(kept.map(|it| it.treatment.requests), Some(50), "{}", fleet.journal());
}
