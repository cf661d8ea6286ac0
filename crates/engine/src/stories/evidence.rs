//! Analysis in a rollout: what the evidence of a release does to it, and what operators may do about that.

use super::strategies::{SOON, behind, blue_green, by, canary, course, serves, shares, watching};
use crate::fleet::{Fleet, fleet, service_name};
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::ReleaseNumber;
use baton_model::report::StageState;
use baton_model::rollout::{AnalysisAction, Answer, Metric, RolloutOutcome, Strategy, Threshold};
use baton_model::route::Weight;
use baton_model::time::Millis;

#[test]
fn a_canary_without_evidence_waits_and_says_so() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(5)), metric, AnalysisAction::RollBack));
    fleet.run(SOON);
    assert_eq!((fleet.outcome(), shares(&fleet).as_str()), (Some(RolloutOutcome::Running), "1=95% 2=5%"));
    assert_eq!(fleet.gates(), ["analysis", "evidence"], "{:#?}", fleet.web());
    assert!(waits(&fleet, "evidence").contains("no request for it has come"), "{:#?}", fleet.web());
    serves(&mut fleet, 2, 10, 0);
    fleet.until(RolloutOutcome::Succeeded, SOON);
    let rollout = fleet.web().unwrap().rollout.clone().unwrap();
    for stage in rollout.stages.iter().filter(|stage| stage.weight.is_some()) {
        let verdict = &stage.verdicts[0];
        assert_eq!((verdict.answer, verdict.requests >= 50), (Answer::Pass, true), "{verdict:?}");
    }
}

/// What is said to be waited for at a gate.
fn waits(fleet: &Fleet, gate: &str) -> String {
    let waiting = fleet.web().map(|web| web.waiting.clone()).unwrap_or_default();
    waiting.into_iter().find(|waiting| waiting.gate == gate).map(|it| it.reason).unwrap_or_default()
}

#[test]
fn thresholds_without_a_gateway_are_warned_of_and_their_wait_names_the_cause() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = fleet(2, 2);
    fleet.deploy(by(Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON);
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(5)), metric, AnalysisAction::RollBack));
    fleet.tick();
    assert!(waits(&fleet, "evidence").contains("no gateway serves web: start one"), "{:#?}", fleet.web());
    fleet.run(SOON);
    assert_eq!(fleet.gates(), ["analysis", "evidence"], "{:#?}", fleet.web());
    assert!(waits(&fleet, "evidence").contains("no gateway serves web: start one"), "{:#?}", fleet.web());
    assert_eq!(fleet.count("evidence-missing"), 1, "{}", fleet.journal());

    // One comes, is asked, and falls silent.
    fleet.join_gateway("g1").gateway("g1", |_| {}).run(Millis::secs(20));
    assert!(!waits(&fleet, "evidence").contains("no gateway"), "{:#?}", fleet.web());
    fleet.gateway("g1", |gateway| gateway.silent = true).run(Millis::secs(20));
    assert!(waits(&fleet, "evidence").contains("gateway g1 is silent"), "{:#?}", fleet.web());
    fleet.gateway("g1", |gateway| gateway.silent = false);
    serves(&mut fleet, 2, 10, 0);
    fleet.until(RolloutOutcome::Succeeded, SOON);

    // What agents count needs no gateway.
    fleet.gateway("g1", |gateway| gateway.silent = true).run(Millis::secs(20));
    let restarts = Metric::Restarts { at_most: 0 };
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(5)), restarts, AnalysisAction::RollBack));
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.count("evidence-missing"), 1, "{}", fleet.journal());
}

#[test]
fn a_canary_that_gateways_leave_out_is_given_up_by_what_others_had_to_take() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    // Three answered 503, then it was ejected, and what was its went to the release before.
    let left_out = ReleaseEvidence { diverted: 9, left_out: 1, ..ReleaseEvidence::default() };
    fleet.answers.insert(ReleaseNumber(2), left_out.clone());
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(60)), metric, AnalysisAction::RollBack));
    fleet.until(RolloutOutcome::RolledBack, SOON);

    // A threshold on something else has nothing to go by, and says why.
    let metric = Metric::Latency { quantile: Weight(9_900), at_most: Millis(250) };
    fleet.answers.insert(ReleaseNumber(3), left_out);
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(60)), metric, AnalysisAction::RollBack));
    fleet.run(SOON);
    assert!(waits(&fleet, "evidence").contains("gateways leave its instances out"), "{:#?}", fleet.web());
}

#[test]
fn a_canary_that_is_ready_no_more_is_given_up_without_waiting_for_requests() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    serves(&mut fleet, 2, 10, 0);
    fleet.deploy(watching(canary(&[2_500, 10_000], Millis::secs(600)), metric, AnalysisAction::RollBack));
    fleet.run(Millis::secs(40));
    assert_eq!(shares(&fleet), "1=75% 2=25%");
    let slots = &fleet.progress[&service_name("web")].value.slots;
    let node =
        slots.values().find(|slot| slot.release.0 == 2).map(|slot| slot.node.clone()).expect("the canary");
    // Its node says that it runs and does not answer; what the node before says of it is older than its share.
    fleet.answers.clear();
    fleet.agent(node.as_str(), |agent| agent.sick = Some(ReleaseNumber(2)));
    let begin = fleet.now;
    fleet.until(RolloutOutcome::RolledBack, SOON);
    assert!(fleet.now.since(begin) < Millis::secs(60), "not the ten minutes in which a rollout must get on");
    let told = fleet.events.iter().find(|(_, event)| event.kind == "analysis-failed").expect("told");
    assert!(told.1.message.contains("none of its instances is ready any more"), "{}", told.1.message);
}

#[test]
fn a_bad_canary_loses_its_requests_at_once_and_goes_back() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    let strategy = canary(&[500, 2_500, 10_000], Millis::secs(30));
    fleet.deploy(watching(strategy, metric, AnalysisAction::RollBack));
    serves(&mut fleet, 2, 9, 1);
    let course = course(&mut fleet, RolloutOutcome::RolledBack);
    assert_eq!(course, ["1=100%", "1=95% 2=5%", "1=100%"]);
    let failed: Vec<_> = fleet.events.iter().filter(|(_, it)| it.kind == "analysis-failed").collect();
    let turned: Vec<_> = fleet.events.iter().filter(|(_, it)| it.kind == "rollback-started").collect();
    assert_eq!((failed.len(), turned.len(), failed[0].0), (1, 1, turned[0].0), "{}", fleet.journal());
    assert!(fleet.running().split(' ').all(|it| it.ends_with("=1")), "{}", fleet.running());
    let history = &fleet.progress[&service_name("web")].value.history;
    let verdicts = &history.last().unwrap().stages[0].verdicts;
    assert_eq!(verdicts[0].answer, Answer::Fail, "{verdicts:?}");
}

#[test]
fn analysis_can_hold_and_pause() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let strategy = || canary(&[500, 10_000], Millis::secs(5));
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(watching(strategy(), metric, AnalysisAction::Hold));
    serves(&mut fleet, 2, 9, 1);
    fleet.run(SOON);
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["analysis"], "1=95% 2=5%"));
    serves(&mut fleet, 2, 10, 0);
    fleet.until(RolloutOutcome::Succeeded, SOON);

    serves(&mut fleet, 3, 9, 1);
    fleet.deploy(watching(strategy(), metric, AnalysisAction::Pause)).run(SOON);
    serves(&mut fleet, 3, 10, 0);
    fleet.run(SOON);
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["analysis"], "2=95% 3=5%"));
    assert_eq!(fleet.outcome(), Some(RolloutOutcome::Paused));
    fleet.control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
}

#[test]
fn a_retry_between_two_steps_looks_at_what_comes_after_it() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    let strategy = canary(&[2_500, 5_000, 10_000], Millis::secs(5));
    serves(&mut fleet, 2, 10, 0);
    fleet.deploy(watching(strategy, metric, AnalysisAction::Pause));
    let begun = |fleet: &Fleet| fleet.web()?.rollout.as_ref()?.stages.get(1)?.started_at;
    while begun(&fleet).is_none() {
        fleet.tick();
    }
    // What the first step's share counts is bad while the second step's instance is swapped.
    serves(&mut fleet, 2, 0, 90);
    fleet.until(RolloutOutcome::Paused, SOON);
    assert_eq!(shares(&fleet), "1=75% 2=25%");
    serves(&mut fleet, 2, 10, 0);
    fleet.control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.count("rollout-paused"), 1, "{}", fleet.journal());
}

#[test]
fn a_bake_goes_on_through_a_restart_of_the_coordinator() {
    let strategy = canary(&[2_500, 10_000], Millis::secs(60));
    let mut fleet = behind(Strategy::Rolling);
    let begin = fleet.now;
    fleet.deploy(by(strategy)).run(Millis::secs(30));
    let silence = |fleet: &mut Fleet, silent| {
        for node in ["n1", "n2"] {
            fleet.agent(node, |agent| agent.silent = silent);
        }
    };
    // It starts, and the nodes need a moment to find it.
    silence(&mut fleet, true);
    fleet.restart_coordinator().run(Millis::secs(3));
    silence(&mut fleet, false);
    fleet.run(Millis::secs(2));
    let stage = &fleet.web().unwrap().rollout.as_ref().unwrap().stages[0];
    assert_eq!((stage.state, shares(&fleet).as_str()), (StageState::Baking, "1=75% 2=25%"));
    fleet.until(RolloutOutcome::Succeeded, Millis::secs(150));
    let took = fleet.now.since(begin);
    assert!(took < Millis::secs(140), "two bakes of 60 s, and not one of them twice: {took}");
}

#[test]
fn a_rate_waits_for_evidence_after_a_restart_of_the_coordinator() {
    let mut fleet = behind(Strategy::Rolling);
    serves(&mut fleet, 2, 10, 0);
    let metric = Metric::RequestRate { at_least: 5 };
    fleet.deploy(watching(canary(&[2_500, 10_000], Millis::secs(60)), metric, AnalysisAction::RollBack));
    fleet.run(Millis::secs(40));
    assert_eq!((shares(&fleet).as_str(), fleet.count("analysis-passed")), ("1=75% 2=25%", 1));
    fleet.evidence.clear();
    fleet.restart_coordinator();
    fleet.until(RolloutOutcome::Succeeded, Millis::secs(180));
    assert_eq!(fleet.count("analysis-failed"), 0, "{}", fleet.journal());
}

#[test]
fn analysis_can_tell_somebody_each_time_a_bound_breaks_and_holds_meanwhile() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let action = AnalysisAction::Webhook { url: "https://hooks/".to_owned() };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(5)), metric, action));
    let calls = |fleet: &Fleet| -> Vec<_> {
        fleet.events.iter().filter_map(|(_, event)| event.webhook.as_deref().cloned()).collect()
    };
    serves(&mut fleet, 2, 9, 1);
    fleet.run(SOON);
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["analysis"], "1=95% 2=5%"));
    let told = calls(&fleet);
    assert_eq!(told.len(), 1, "once, however long it is broken: {told:?}");
    let call = &told[0];
    assert_eq!((call.stage, call.threshold, call.from, call.to.0), (1, 1, Some(ReleaseNumber(1)), 2));
    assert_eq!((call.verdict.answer, call.url.as_str()), (Answer::Fail, "https://hooks/"));
    serves(&mut fleet, 2, 10, 0);
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(calls(&fleet).len(), 1);
}

#[test]
fn of_two_broken_bounds_the_one_that_asks_for_more_is_acted_upon() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut spec = watching(canary(&[500, 10_000], Millis::secs(5)), metric, AnalysisAction::RollBack);
    let action = AnalysisAction::Webhook { url: "https://hooks/".to_owned() };
    spec.rollout.analysis.insert(0, Threshold { action, ..spec.rollout.analysis[0].clone() });
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(spec);
    serves(&mut fleet, 2, 9, 1);
    fleet.until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.events.iter().filter(|(_, event)| event.webhook.is_some()).count(), 1);
}

#[test]
fn an_operator_can_go_on_without_bake_and_evidence() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    let strategy = canary(&[100, 500, 2_500, 10_000], Millis::secs(3600));
    fleet.deploy(watching(strategy, metric, AnalysisAction::RollBack)).run(Millis::secs(20));
    assert_eq!(shares(&fleet), "1=99% 2=1%");
    fleet.control(|control| control.promoted_through = 3).run(Millis::secs(2));
    assert_eq!(shares(&fleet), "1=75% 2=25%");
    fleet.run(SOON);
    assert_eq!((shares(&fleet).as_str(), fleet.outcome()), ("1=75% 2=25%", Some(RolloutOutcome::Running)));
}

#[test]
fn a_last_step_that_is_held_ends_by_a_persons_decision() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    for action in [AnalysisAction::Pause, AnalysisAction::Hold] {
        let mut fleet = behind(Strategy::Rolling);
        serves(&mut fleet, 2, 10, 0);
        fleet.deploy(watching(canary(&[2_500, 10_000], Millis::secs(5)), metric, action));
        let begun = |fleet: &Fleet| {
            let rollout = fleet.web()?.rollout.as_ref().filter(|rollout| rollout.to.0 == 2)?;
            rollout.stages.last().and_then(|stage| stage.started_at)
        };
        while begun(&fleet).is_none() || fleet.count("traffic-shifted") < 2 {
            fleet.tick();
        }
        serves(&mut fleet, 2, 0, 900);
        fleet.run(SOON);
        assert_eq!(
            (shares(&fleet).as_str(), fleet.gates()),
            ("2=100%", vec!["analysis"]),
            "{}",
            fleet.journal()
        );
        let stages = fleet.web().unwrap().rollout.as_ref().unwrap().stages.len();
        fleet.control(|control| control.promoted_through = u32::try_from(stages).unwrap() + 1);
        fleet.until(RolloutOutcome::Succeeded, SOON);
        assert_eq!(fleet.count("analysis-overruled"), 1, "{}", fleet.journal());
        let history = &fleet.progress[&service_name("web")].value.history;
        let kept = history.last().unwrap().stages.last().unwrap().verdicts.clone();
        assert_eq!(kept[0].answer, Answer::Fail, "what was known when it was decided: {kept:?}");
    }
}

#[test]
fn a_green_set_that_turns_out_bad_is_left_at_once() {
    let metric = Metric::ErrorShare { at_most: Weight(100) };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(watching(blue_green(), metric, AnalysisAction::RollBack));
    serves(&mut fleet, 2, 9, 1);
    let told = course(&mut fleet, RolloutOutcome::RolledBack);
    assert_eq!(told, ["1=100%", "2=100%", "1=100%"]);
    assert_eq!(fleet.running(), "n1=1 n1=1 n2=1 n2=1");
    let serving: Vec<u64> = fleet.progress[&service_name("web")].value.slots.keys().copied().collect();
    assert_eq!(
        serving,
        [1, 2, 3, 4],
        "the set that served before the switch serves again: nothing is started"
    );
}
