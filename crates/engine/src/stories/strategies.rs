//! Canary, blue-green, A/B and dark launches: how requests move, what they wait for, and how they come back.

use crate::fleet::{Fleet, fleet, route_spec, service_name, spec};
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::{PortName, ReleaseNumber, RolloutId};
use baton_model::rollout::{
    AbTest, AfterDark, AnalysisAction, BlueGreen, Canary, CanaryStep, DarkLaunch, Metric, Preview,
    RolloutOutcome, Strategy, Threshold,
};
use baton_model::route::{Condition, Key, Weight};
use baton_model::spec::{Count, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

pub(super) const SOON: Millis = Millis::secs(120);

/// `web` behind gateways, rolled out by this strategy.
pub(super) fn by(strategy: Strategy) -> ServiceSpec {
    let mut spec = spec("web", 4);
    spec.ports.insert(PortName::new("main").unwrap(), Port { kind: PortKind::Dynamic });
    spec.route = Some(route_spec());
    spec.rollout.strategy = strategy;
    spec.rollout.max_unavailable = baton_model::spec::Amount::Number(4);
    spec
}

pub(super) fn canary(weights: &[u16], bake: Millis) -> Strategy {
    let step = |weight: &u16| CanaryStep { weight: Weight(*weight), instances: None, bake };
    let steps = weights.iter().map(step).collect();
    Strategy::Canary(Canary { cohort: Vec::new(), cohort_steps: Vec::new(), steps })
}

pub(super) fn blue_green() -> Strategy {
    let preview = Preview { header: Some("baton-preview".to_owned()), host: None };
    Strategy::BlueGreen(BlueGreen { preview, bake: Millis::secs(10), keep_warm: Millis::secs(30) })
}

pub(super) fn watching(strategy: Strategy, metric: Metric, action: AnalysisAction) -> ServiceSpec {
    let mut spec = by(strategy);
    let (name, window) = ("it".to_owned(), Millis::secs(10));
    spec.rollout.analysis = vec![Threshold { name, metric, window, requests_min: 50, action }];
    spec
}

/// Two nodes, two gateways, and a first release that stands, whatever its strategy is.
pub(super) fn behind(strategy: Strategy) -> Fleet {
    let mut fleet = fleet(2, 2);
    fleet.join_gateway("g1").join_gateway("g2");
    fleet.deploy(by(strategy)).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    fleet.events.clear();
    fleet
}

/// How requests are shared now: `1=95% 2=5%`, then what rules and the mirror say.
pub(super) fn shares(fleet: &Fleet) -> String {
    let Some(route) = fleet.route_of_web() else { return String::new() };
    let mut parts: Vec<String> =
        route.split.weights.iter().map(|(release, weight)| format!("{release}={weight}")).collect();
    for rule in &route.rules {
        let conditions: Vec<String> = rule.conditions.iter().map(ToString::to_string).collect();
        parts.push(format!("[{}]={}", conditions.join("+"), rule.to));
    }
    parts.extend(route.mirror.as_ref().map(|mirror| format!("copies={}:{}", mirror.to, mirror.share)));
    parts.join(" ")
}

/// Lets time pass and writes down each change of the shares.
pub(super) fn course(fleet: &mut Fleet, end: RolloutOutcome) -> Vec<String> {
    let mut seen = vec![shares(fleet)];
    for _ in 0..600 {
        fleet.tick();
        let now = shares(fleet);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if fleet.outcome() == Some(end) {
            return seen;
        }
    }
    panic!("no {end:?}: {seen:#?}\n{:#?}\n{}", fleet.web(), fleet.journal());
}

fn answers(good: u64, bad: u64) -> ReleaseEvidence {
    let mut evidence = ReleaseEvidence::default();
    evidence.status.successful = good;
    evidence.status.server_error = bad;
    (0..good + bad).for_each(|_| evidence.latency.record_us(1000));
    evidence
}

pub(super) fn serves(fleet: &mut Fleet, release: u64, good: u64, bad: u64) {
    fleet.answers.insert(ReleaseNumber(release), answers(good, bad));
}

#[test]
fn a_canary_grows_step_by_step() {
    let mut fleet = behind(canary(&[100, 500, 2_500, 10_000], Millis::secs(10)));
    let begin = fleet.now;
    fleet.deploy(by(canary(&[100, 500, 2_500, 10_000], Millis::secs(10))));
    let course = course(&mut fleet, RolloutOutcome::Succeeded);
    let (first, last) = (course.first().unwrap().as_str(), course.last().unwrap().as_str());
    assert_eq!((first, last), ("1=100%", "2=100%"), "{course:?}");
    assert_eq!(course[1..4], ["1=99% 2=1%", "1=95% 2=5%", "1=75% 2=25%"], "{course:?}");
    assert!(fleet.now.since(begin) >= Millis::secs(40), "every step bakes");
    assert_eq!(fleet.count("traffic-shifted"), 4, "{}", fleet.journal());
}

#[test]
fn a_step_gets_its_share_and_no_more_wherever_instances_allow_it() {
    let steps = [1_200, 3_000, 6_000, 10_000];
    let mut fleet = behind(canary(&steps, Millis::secs(5)));
    fleet.deploy(by(canary(&steps, Millis::secs(5))));
    let course = course(&mut fleet, RolloutOutcome::Succeeded);
    assert_eq!(course[1..3], ["1=88% 2=12%", "1=70% 2=30%"], "{course:?}");
    assert!(course.contains(&"1=40% 2=60%".to_owned()), "{course:?}");
}

#[test]
fn the_last_instances_change_while_the_requests_follow_the_capacity() {
    let mut fleet = behind(canary(&[2_500, 10_000], Millis::ZERO));
    fleet.deploy(by(canary(&[2_500, 10_000], Millis::ZERO)));
    let course = course(&mut fleet, RolloutOutcome::Succeeded);
    // Of four instances three are the floor: two old ones take two thirds at most, one takes one.
    assert_eq!(course, ["1=100%", "1=75% 2=25%", "1=66.66% 2=33.34%", "1=33.33% 2=66.67%", "2=100%"]);
}

#[test]
fn a_cohort_comes_first_and_stays() {
    let mut strategy = canary(&[5_000, 10_000], Millis::secs(5));
    if let Strategy::Canary(canary) = &mut strategy {
        canary.cohort = vec!["header:x-staff".parse().unwrap()];
        canary.cohort_steps = [1_000, 10_000]
            .map(|weight| CanaryStep { weight: Weight(weight), instances: None, bake: Millis::secs(5) })
            .to_vec();
    }
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(strategy));
    let course = course(&mut fleet, RolloutOutcome::Succeeded);
    assert_eq!(
        course[..4],
        [
            "1=100%",
            "1=100% [header:x-staff+10% of address]=2",
            "1=100% [header:x-staff]=2",
            "1=66.66% 2=33.34% [header:x-staff]=2",
        ],
        "{course:?}"
    );
    assert_eq!(course[4], "1=50% 2=50% [header:x-staff]=2", "{course:?}");
    assert_eq!(course.last().unwrap(), "2=100%");
}

#[test]
fn an_undo_of_a_canary_gives_the_requests_back_at_once() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(canary(&[5_000, 10_000], Millis::secs(3600)))).run(Millis::secs(30));
    assert_eq!(shares(&fleet), "1=50% 2=50%");
    // Two of three old ones that the floor asks for: the third share comes when the others are back.
    fleet.undo(1).tick();
    assert_eq!(shares(&fleet), "1=66.66% 2=33.34%");
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(shares(&fleet), "1=100%");
}

#[test]
fn approvals_are_of_steps_and_an_undo_waits_for_none() {
    let asks = |strategy| {
        let mut spec = by(strategy);
        spec.rollout.approve_before = vec![1, 2];
        spec.rollout.batch = baton_model::spec::Amount::Number(1);
        spec
    };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(asks(canary(&[5_000, 10_000], Millis::secs(5)))).run(SOON);
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["approval"], "1=100%"));
    fleet.control(|control| control.approved_through = 1).run(SOON);
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["approval"], "1=50% 2=50%"));
    let waiting = fleet.web().unwrap().rollout.as_ref().unwrap().stages.iter().position(|it| it.step == 2);
    let number = u32::try_from(waiting.unwrap() + 1).unwrap();
    fleet.control(|control| control.approved_through = number).until(RolloutOutcome::Succeeded, SOON);
    // Its batches are as many as its steps were, and no steps.
    fleet.deploy(asks(blue_green())).run(SOON);
    fleet.undo(2).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!((shares(&fleet).as_str(), fleet.running().as_str()), ("2=100%", "n1=2 n1=2 n2=2 n2=2"));
}

#[test]
fn blue_green_switches_at_once_and_returns_at_once() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(blue_green()));
    let told = course(&mut fleet, RolloutOutcome::Succeeded);
    assert_eq!(told, ["1=100%", "2=100%"]);
    assert_eq!(fleet.running().matches("=1").count(), 4, "the first set is warm: {}", fleet.running());
    assert_eq!((fleet.web().unwrap().wanted, fleet.web().unwrap().ready), (4, 4));
    fleet.run(Millis::secs(10)).undo(1).tick();
    assert_eq!(shares(&fleet), "1=100%", "{}", fleet.journal());
    assert_eq!(fleet.outcome(), Some(RolloutOutcome::Succeeded), "{}", fleet.journal());
    fleet.run(Millis::secs(20));
    assert_eq!(fleet.running().matches("=2").count(), 0, "{}", fleet.running());
}

/// `web` with so many replicas.
fn of(replicas: u32, strategy: Strategy) -> ServiceSpec {
    let mut spec = by(strategy);
    spec.placement.count = Count::Replicas(replicas);
    spec
}

#[test]
fn a_larger_second_set_is_as_large_as_it_is_wanted() {
    for (before, after) in [(2, 4), (3, 5), (4, 2)] {
        let mut fleet = fleet(3, 1);
        fleet.join_gateway("g1");
        fleet.deploy(of(before, Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON);
        let count = |fleet: &Fleet, release| {
            let slots = fleet.progress[&service_name("web")].value.slots.values();
            u32::try_from(slots.filter(|slot| slot.release == ReleaseNumber(release)).count()).unwrap()
        };
        fleet.run(Millis::secs(5)).deploy(of(after, blue_green()));
        let deployed = |fleet: &Fleet| fleet.web()?.rollout.as_ref().map(|rollout| rollout.to.0);
        while deployed(&fleet) != Some(2) || fleet.outcome() != Some(RolloutOutcome::Succeeded) {
            fleet.tick();
            assert!(count(&fleet, 1) == before && count(&fleet, 2) <= after, "{}", fleet.journal());
        }
        // The set that is warm is the one that served, and serves again.
        fleet.run(Millis::secs(5)).undo(1).run(Millis::secs(20));
        assert_eq!(fleet.outcome(), Some(RolloutOutcome::Succeeded), "{}", fleet.journal());
        let serving: Vec<u64> = fleet.progress[&service_name("web")].value.slots.keys().copied().collect();
        assert_eq!(serving, (1..=u64::from(before)).collect::<Vec<_>>(), "{}", fleet.journal());

        // A return while it bakes, too.
        fleet.deploy(of(after, blue_green()));
        while shares(&fleet) != "3=100%" {
            fleet.tick();
        }
        fleet.run(Millis::secs(3)).control(|control| control.abort = true);
        fleet.until(RolloutOutcome::RolledBack, SOON);
        assert_eq!((count(&fleet, 1), count(&fleet, 3)), (before, 0), "{}", fleet.journal());
    }
}

#[test]
fn a_second_set_is_spread_by_itself() {
    let mut fleet = fleet(3, 1);
    fleet.join_gateway("g1");
    fleet.node("n3", |node| node.cordoned = true).deploy(spec("other", 2)).run(Millis::secs(10));
    fleet.deploy(of(2, Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    assert_eq!(fleet.running(), "n1=1 n2=1");
    // The node that has none of anything takes one, and not both: after the switch they are all there is.
    fleet.node("n3", |node| node.cordoned = false).deploy(of(2, blue_green())).run(SOON);
    assert_eq!(fleet.running(), "n1=2 n3=2");
}

#[test]
fn a_switch_is_done_when_every_gateway_has_made_it() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(blue_green())).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    fleet.gateway("g2", |gateway| gateway.deaf = true).undo(1).run(Millis::secs(20));
    assert_eq!((shares(&fleet).as_str(), fleet.gates()), ("1=100%", vec!["route"]), "{}", fleet.journal());
    assert_eq!(fleet.outcome(), Some(RolloutOutcome::Running), "g2 still sends to the green set");
    fleet.gateway("g2", |gateway| gateway.deaf = false).until(RolloutOutcome::Succeeded, Millis::secs(2));
    // One that is silent is waited for until its lease is over.
    fleet.run(Millis::secs(30)).deploy(by(blue_green())).until(RolloutOutcome::Succeeded, SOON);
    fleet.run(Millis::secs(5)).gateway("g2", |gateway| gateway.silent = true).undo(1).run(Millis::secs(8));
    assert_eq!(fleet.outcome(), Some(RolloutOutcome::Running), "{}", fleet.journal());
    fleet.until(RolloutOutcome::Succeeded, Millis::secs(5));
}

#[test]
fn the_warm_set_cools_down() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(blue_green())).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(25));
    assert_eq!(fleet.running().matches("=1").count(), 4);
    fleet.run(Millis::secs(20));
    assert_eq!(fleet.running(), "n1=2 n1=2 n2=2 n2=2");
    // Then an undo takes a start, as any other rollout.
    fleet.undo(1).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=1 n1=1 n2=1 n2=1");
}

#[test]
fn a_bad_green_set_is_never_switched_to() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.bad(2).deploy(by(blue_green()));
    let told = course(&mut fleet, RolloutOutcome::RolledBack);
    assert!(told.iter().all(|shares| shares.starts_with("1=100%")), "{told:?}");
    assert_eq!(fleet.running(), "n1=1 n1=1 n2=1 n2=1");
}

#[test]
fn an_abort_before_the_switch_leaves_nothing_of_the_second_set() {
    let mut fleet = behind(Strategy::Rolling);
    let mut spec = by(blue_green());
    spec.rollout.approve_before = vec![2];
    fleet.deploy(spec).run(Millis::secs(30));
    assert_eq!(
        (fleet.gates(), shares(&fleet).as_str()),
        (vec!["approval"], "1=100% [header:baton-preview]=2")
    );
    fleet.control(|control| control.abort = true).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n1=1 n2=1 n2=1");
}

#[test]
fn a_newer_release_takes_the_place_of_a_second_set() {
    let mut fleet = behind(Strategy::Rolling);
    let mut spec = by(blue_green());
    spec.rollout.approve_before = vec![2];
    fleet.deploy(spec).run(Millis::secs(30));
    fleet.deploy(by(blue_green())).until(RolloutOutcome::Succeeded, SOON).run(SOON);
    assert_eq!(fleet.running(), "n1=3 n1=3 n2=3 n2=3");
}

#[test]
fn an_instance_of_the_green_set_that_is_lost_is_replaced_before_the_switch() {
    let mut fleet = behind(Strategy::Rolling);
    fleet.join("n3", "a");
    fleet.tick();
    let mut spec = by(blue_green());
    spec.rollout.approve_before = vec![2];
    fleet.deploy(spec).run(Millis::secs(30));
    fleet.faulty = true;
    fleet.agent("n3", |agent| agent.silent = true).run(Millis::secs(5));
    fleet.control(|control| control.approved_through = 2).run(Millis::secs(10));
    assert_eq!(shares(&fleet), "1=100% [header:baton-preview]=2", "{}", fleet.journal());
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(shares(&fleet), "2=100%");
}

#[test]
fn an_ab_test_waits_for_an_operator_whatever_time_passes() {
    let test =
        AbTest { key: Key::Cookie("user".to_owned()), share: Weight(5_000), duration: Millis::secs(60) };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(Strategy::Ab(test))).run(Millis::secs(600));
    assert_eq!(shares(&fleet), "1=100% [50% of cookie:user]=2");
    assert_eq!((fleet.gates(), fleet.outcome()), (vec!["approval"], Some(RolloutOutcome::Paused)));
    assert_eq!(fleet.running().matches("=2").count(), 2, "{}", fleet.running());
    let stage = fleet.web().unwrap().rollout.as_ref().unwrap().stages.iter().position(|it| it.step == 2);
    let number = u32::try_from(stage.unwrap() + 1).unwrap();
    fleet.control(|control| control.approved_through = number).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!((shares(&fleet).as_str(), fleet.running().as_str()), ("2=100%", "n1=2 n1=2 n2=2 n2=2"));
}

#[test]
fn a_dark_launch_serves_nobody_until_it_is_promoted() {
    let dark = DarkLaunch {
        share: Weight(1_000),
        duration: Millis::secs(30),
        body_bytes_max: 1024,
        in_flight_max: 10,
        unsafe_methods: false,
        compare_bodies: true,
        then: AfterDark::Wait,
        preview: Preview::default(),
        keep_warm: Millis::ZERO,
    };
    let mut fleet = behind(Strategy::Rolling);
    fleet.deploy(by(Strategy::Dark(dark.clone()))).run(Millis::secs(90));
    assert_eq!((fleet.gates(), shares(&fleet).as_str()), (vec!["approval"], "1=100% copies=2:10%"));
    fleet.control(|control| control.approved_through = 3).until(RolloutOutcome::Succeeded, SOON).run(SOON);
    assert_eq!((shares(&fleet).as_str(), fleet.running().as_str()), ("2=100%", "n1=2 n1=2 n2=2 n2=2"));

    // By rule: the answers must be the same.
    let metric = Metric::Differing { at_most: Weight(100) };
    let by_rule = Strategy::Dark(DarkLaunch { then: AfterDark::Promote, ..dark });
    let copies =
        |differing| ReleaseEvidence { mirrored: 10, compared: 10, differing, ..ReleaseEvidence::default() };
    fleet.answers.insert(ReleaseNumber(3), copies(1));
    fleet.deploy(watching(by_rule.clone(), metric, AnalysisAction::RollBack));
    assert_eq!(course(&mut fleet, RolloutOutcome::RolledBack), ["2=100%", "2=100% copies=3:10%", "2=100%"]);
    fleet.answers.insert(ReleaseNumber(4), copies(0));
    fleet.deploy(watching(by_rule, metric, AnalysisAction::RollBack)).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(shares(&fleet), "4=100%");
}

#[test]
fn what_is_compared_by_a_key_is_a_share_of_those_who_have_it() {
    let rule =
        Condition::Share { key: Key::Cookie("user".to_owned()), share: Weight(5_000), test: RolloutId(1) };
    assert_eq!(rule.to_string(), "50% of cookie:user");
}
