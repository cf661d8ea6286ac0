//! Thresholds on what instances use of their nodes.

use super::strategies::{SOON, by, canary, watching};
use crate::fleet::{Fleet, fleet};
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{AnalysisAction, Answer, Measured, Metric, RolloutOutcome, Strategy};
use baton_model::spec::ServiceSpec;
use baton_model::time::Millis;

const MIB: u64 = 1 << 20;
const MEMORY: Metric = Metric::Memory { at_most: 100 * MIB };
const CPU: Metric = Metric::Cpu { at_most_percent: 50 };

/// Two nodes with a first release, and a second one whose instances use this much.
fn rolling(metric: Metric, uses: Option<(u64, u64)>) -> Fleet {
    let mut fleet = fleet(2, 2);
    fleet.deploy(by(Strategy::Rolling)).until(RolloutOutcome::Succeeded, SOON);
    // The release before may use what it wants.
    fleet.uses.insert(ReleaseNumber(1), (9_000, 900 * MIB));
    fleet.uses.extend(uses.map(|uses| (ReleaseNumber(2), uses)));
    fleet.deploy(watching(canary(&[500, 10_000], Millis::secs(5)), metric, AnalysisAction::RollBack));
    fleet
}

fn last_verdict(fleet: &Fleet) -> (Answer, Option<Measured>, String) {
    let rollout = fleet.web().and_then(|web| web.rollout.clone()).expect("a rollout");
    let verdicts = rollout.stages.iter().flat_map(|stage| &stage.verdicts);
    let last = verdicts.last().expect("a verdict");
    (last.answer, last.measured, last.text.clone())
}

#[test]
fn a_release_that_uses_more_than_its_bound_is_rolled_back_by_what_was_measured() {
    let mut fleet = rolling(MEMORY, Some((0, 101 * MIB)));
    fleet.until(RolloutOutcome::RolledBack, SOON);
    let reason = fleet.web().unwrap().rollout.as_ref().unwrap().reason.clone();
    assert!(
        reason.starts_with("it (memory of an instance at most 100.0 MiB) is broken: 101.0 MiB of web."),
        "{reason}"
    );

    let mut fleet = rolling(CPU, Some((501, 0)));
    fleet.until(RolloutOutcome::RolledBack, SOON);
    let reason = fleet.web().unwrap().rollout.as_ref().unwrap().reason.clone();
    assert!(
        reason.contains("processor time of an instance at most 50%) is broken: 50.1% of web."),
        "{reason}"
    );
    // An average is one over the whole window.
    assert!(reason.ends_with("over 10s"), "{reason}");
}

#[test]
fn a_release_within_its_bound_goes_on_and_its_verdict_has_the_measure() {
    for (metric, measured) in [(MEMORY, Measured::Bytes(100 * MIB)), (CPU, Measured::MilliCores(500))] {
        let mut fleet = rolling(metric, Some((500, 100 * MIB)));
        fleet.until(RolloutOutcome::Succeeded, SOON);
        let (answer, stored, text) = last_verdict(&fleet);
        assert_eq!((answer, stored), (Answer::Pass, Some(measured)), "{text}");
        assert!(text.contains(" holds: ") && text.contains(", the most, over 10s"), "{text}");
    }
}

#[test]
fn what_is_not_measured_does_not_pass() {
    for metric in [MEMORY, CPU] {
        let mut fleet = rolling(metric, None);
        fleet.run(SOON);
        assert_eq!(fleet.outcome(), Some(RolloutOutcome::Running), "{}", fleet.journal());
        let waits = fleet.web().unwrap().waiting.iter().map(|wait| wait.reason.clone()).collect::<Vec<_>>();
        assert!(waits.iter().any(|why| why.contains("were measured for 10s yet")), "{waits:?}");
        // Measures that come count from then on, and what came before the gap does not fill it.
        fleet.uses.insert(ReleaseNumber(2), (1, MIB));
        fleet.until(RolloutOutcome::Succeeded, SOON);
    }
}

#[test]
fn a_service_without_a_route_is_watched_by_what_agents_report() {
    let deploy = |metric: Metric, uses: (u64, u64)| {
        let mut fleet = fleet(2, 2);
        let without_route = |spec: ServiceSpec| ServiceSpec { route: None, ..spec };
        fleet.deploy(without_route(by(Strategy::Rolling))).until(RolloutOutcome::Succeeded, SOON);
        fleet.uses.insert(ReleaseNumber(2), uses);
        fleet.deploy(without_route(watching(Strategy::Rolling, metric, AnalysisAction::RollBack)));
        fleet
    };
    let mut fleet = deploy(MEMORY, (0, 101 * MIB));
    fleet.until(RolloutOutcome::RolledBack, SOON);
    let mut fleet = deploy(Metric::Restarts { at_most: 0 }, (0, 0));
    fleet.until(RolloutOutcome::Succeeded, SOON);
    let (answer, stored, text) = last_verdict(&fleet);
    assert_eq!((answer, stored), (Answer::Pass, Some(Measured::Count(0))), "{text}");
}
