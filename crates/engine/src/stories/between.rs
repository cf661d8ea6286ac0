//! Between two steps: what keeps the next share back, and what does not.

use super::strategies::{SOON, behind, by, canary, serves, shares, watching};
use crate::fleet::Fleet;
use baton_model::id::PortName;
use baton_model::rollout::{AnalysisAction, Metric, RolloutOutcome, Strategy};
use baton_model::route::Weight;
use baton_model::spec::{Amount, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

/// A canary at its first share, whose second stage has just begun.
fn between_steps(weights: &[u16], action: AnalysisAction) -> Fleet {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    serves(&mut fleet, 2, 10, 0);
    let mut spec = watching(canary(weights, Millis::secs(5)), metric, action);
    // Two of four can take everything: the requests need not follow the capacity.
    spec.min_available = Amount::Percent(50);
    fleet.deploy(spec);
    let begun = |fleet: &Fleet| fleet.web()?.rollout.as_ref()?.stages.get(1)?.started_at;
    while begun(&fleet).is_none() {
        fleet.tick();
    }
    fleet
}

#[test]
fn a_broken_bound_keeps_the_next_share_back() {
    let webhook = AnalysisAction::Webhook { url: "https://hooks/".to_owned() };
    for action in [AnalysisAction::Pause, AnalysisAction::Hold, webhook] {
        let mut fleet = between_steps(&[2_500, 5_000, 10_000], action.clone());
        serves(&mut fleet, 2, 0, 90);
        // Longer than a rollout may take to get on: it is kept back, and has not failed.
        fleet.run(Millis::secs(300));
        assert_eq!(
            (shares(&fleet).as_str(), fleet.gates()),
            ("1=75% 2=25%", vec!["analysis"]),
            "{action:?}: {}",
            fleet.journal()
        );
        assert_eq!(fleet.running().matches("=2").count(), 2, "what was being swapped is swapped");
        // A coordinator that starts anew knows nothing of it but that it was bad.
        fleet.answers.clear();
        fleet.evidence.clear();
        fleet.restart_coordinator().run(Millis::secs(20));
        assert_eq!(shares(&fleet), "1=75% 2=25%", "{action:?}: {}", fleet.journal());
        serves(&mut fleet, 2, 10, 0);
        fleet.control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
    }
}

#[test]
fn a_broken_bound_keeps_instances_that_wait_for_budget_from_their_change() {
    let mut fleet = behind(Strategy::Rolling);
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut spec = watching(canary(&[2_500, 10_000], Millis::secs(5)), metric, AnalysisAction::Hold);
    // One at a time, since the port is fixed.
    for agent in 3..=4 {
        fleet.join(&format!("n{agent}"), "a");
    }
    let fixed = |spec: &mut ServiceSpec| {
        let kind = PortKind::Fixed { port: 8080 };
        spec.ports.insert(PortName::new("main").unwrap(), Port { kind });
        spec.rollout.batch = Amount::Number(4);
        spec.rollout.max_unavailable = Amount::Number(1);
    };
    fixed(&mut spec);
    let mut before = by(Strategy::Rolling);
    fixed(&mut before);
    fleet.remove().run(Millis::secs(30));
    fleet.desired.services.clear();
    fleet.tick();
    fleet.deploy(before).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    serves(&mut fleet, 2, 10, 0);
    fleet.deploy(spec);
    let begun = |fleet: &Fleet| fleet.web()?.rollout.as_ref()?.stages.get(1)?.started_at;
    while begun(&fleet).is_none() {
        fleet.tick();
    }
    serves(&mut fleet, 2, 0, 90);
    fleet.run(Millis::secs(300));
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=1 n4=1", "{}", fleet.journal());
    assert_eq!(fleet.gates(), ["analysis"]);
    serves(&mut fleet, 2, 10, 0);
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2 n4=2");
}

#[test]
fn an_operators_pause_holds_the_share_where_it_is() {
    let mut fleet = between_steps(&[2_500, 5_000, 10_000], AnalysisAction::RollBack);
    fleet.control(|control| control.paused = true).run(SOON);
    assert_eq!((shares(&fleet).as_str(), fleet.gates()), ("1=75% 2=25%", vec!["paused"]));
    fleet.control(|control| control.paused = false).until(RolloutOutcome::Succeeded, SOON);
}

#[test]
fn what_an_operator_overruled_does_not_hold_the_next_step() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    for action in [AnalysisAction::Pause, AnalysisAction::Hold] {
        let mut fleet = behind(Strategy::Rolling);
        let mut spec = watching(canary(&[5_000, 10_000], Millis::secs(5)), metric, action.clone());
        spec.rollout.batch = Amount::Number(2);
        serves(&mut fleet, 2, 0, 90);
        fleet.deploy(spec).run(SOON);
        assert_eq!((shares(&fleet).as_str(), fleet.gates()), ("1=50% 2=50%", vec!["analysis"]));
        let told = fleet.count("rollout-paused");
        fleet.control(|control| control.promoted_through = 2).tick();
        assert_eq!(fleet.count("analysis-overruled"), 1, "{}", fleet.journal());
        while fleet.count("traffic-shifted") < 2 {
            fleet.tick();
            assert_eq!(fleet.count("rollout-paused"), told, "{action:?}: {}", fleet.journal());
        }
        // The last step is judged by its own evidence.
        fleet.run(SOON);
        assert_eq!((shares(&fleet).as_str(), fleet.gates()), ("2=100%", vec!["analysis"]));
        assert_eq!(fleet.count("rollout-succeeded"), 0, "{}", fleet.journal());
        serves(&mut fleet, 2, 10, 0);
        fleet.control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
    }
}
