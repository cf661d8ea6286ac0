//! What operators set about a rollout: pause, resume, promote, abort, retry, undo, and a newer request.

use super::three;
use crate::fleet::{Fleet, fleet, spec};
use baton_model::report::StageState;
use baton_model::rollout::{OnFailure, RolloutOutcome};
use baton_model::spec::ServiceSpec;
use baton_model::time::Millis;

const SOON: Millis = Millis::secs(60);

fn changed(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = spec("web", 3);
    change(&mut spec);
    spec
}

#[test]
fn a_pause_starts_nothing_new_and_resume_goes_on() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis::secs(1));
    fleet.control(|control| control.paused = true).run(SOON);
    assert_eq!((fleet.outcome(), fleet.running().as_str()), (Some(RolloutOutcome::Paused), "n1=2 n2=1 n3=1"));
    assert_eq!(fleet.gates(), ["paused"]);
    fleet.control(|control| control.paused = false).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
    assert_eq!(
        (fleet.count("rollout-paused"), fleet.count("rollout-resumed")),
        (1, 1),
        "{}",
        fleet.journal()
    );
}

#[test]
fn a_stage_waits_for_its_approval() {
    let mut fleet = three();
    fleet.deploy(changed(|spec| spec.rollout.approve_before = vec![2])).run(SOON);
    assert_eq!((fleet.outcome(), fleet.running().as_str()), (Some(RolloutOutcome::Paused), "n1=2 n2=1 n3=1"));
    assert_eq!(fleet.gates(), ["approval"]);
    fleet.control(|control| control.approved_through = 2).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
}

#[test]
fn an_abort_goes_back_through_a_pause() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis::secs(6));
    fleet
        .control(|control| (control.paused, control.abort) = (true, true))
        .until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn an_abort_in_the_middle_of_a_swap_ends_exactly_at_the_release_before() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis(500));
    fleet.control(|control| control.abort = true).until(RolloutOutcome::RolledBack, SOON).run(SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn an_aborted_first_release_leaves_nothing() {
    let mut fleet = fleet(3, 1);
    fleet.bad(1).deploy(spec("web", 3)).run(Millis(500));
    fleet.control(|control| control.abort = true).until(RolloutOutcome::Failed, SOON).run(SOON);
    assert_eq!(fleet.running(), "");
    assert_eq!(stopped_with_its_stage(&fleet), StageState::Failed);
}

/// How the stage stands in whose middle the rollout ended; its time is over then.
fn stopped_with_its_stage(fleet: &Fleet) -> StageState {
    let rollout = fleet.web().unwrap().rollout.clone().unwrap();
    let stage = rollout.stages.iter().rfind(|stage| stage.started_at.is_some()).unwrap();
    assert!(rollout.ended_at.is_some() && stage.ended_at == rollout.ended_at, "{stage:#?}");
    stage.state
}

#[test]
fn a_failure_that_pauses_waits_for_an_operator_and_can_be_retried() {
    let mut fleet = three();
    fleet.bad(2).deploy(changed(|spec| spec.rollout.on_failure = OnFailure::Pause)).run(SOON);
    assert_eq!((fleet.outcome(), fleet.running().as_str()), (Some(RolloutOutcome::Paused), "n1=1 n2=1 n3=1"));
    assert!(fleet.gates().contains(&"failed"), "{:?}", fleet.gates());
    fleet.mend().control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
}

#[test]
fn a_first_release_that_failed_can_be_retried() {
    let mut fleet = fleet(3, 1);
    fleet.bad(1).deploy(spec("web", 3)).until(RolloutOutcome::Failed, SOON).run(SOON);
    assert_eq!(stopped_with_its_stage(&fleet), StageState::Failed);
    fleet.mend().control(|control| control.retry = 1).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
    let history = &fleet.progress[&crate::fleet::service_name("web")].value.history;
    assert_eq!(history.iter().map(|report| report.outcome).collect::<Vec<_>>(), [RolloutOutcome::Succeeded]);
}

#[test]
fn an_undo_is_a_rollout_of_an_earlier_release() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, SOON);
    fleet.undo(1).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn a_newer_request_takes_over_from_wherever_the_slots_are() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis::secs(6));
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=3 n2=3 n3=3");
    assert_eq!(fleet.count("rollout-superseded"), 1);
}

#[test]
fn a_newer_request_over_a_bad_one_goes_back_to_the_stable_release() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis::secs(6));
    fleet.bad(3).deploy(spec("web", 3)).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn tolerated_failures_do_not_stop_the_others() {
    let mut fleet = three();
    fleet.agent("n2", |agent| {
        agent.bad.insert((crate::fleet::service_name("web"), baton_model::id::ReleaseNumber(2)));
    });
    let tolerant = changed(|spec| spec.rollout.failure_tolerance = baton_model::spec::Amount::Number(1));
    fleet.deploy(tolerant).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=2");
    assert!(fleet.web().unwrap().rollout.as_ref().unwrap().reason.contains("web.2"));
    fleet.run(SOON);
    assert_eq!(fleet.gates(), ["swap"]);
}

#[test]
fn a_rollback_that_cannot_restore_is_held_with_a_reason_and_can_be_retried() {
    let mut fleet = three();
    fleet.faulty = true;
    fleet.deploy(spec("web", 3)).run(Millis::secs(6));
    fleet.bad(1).control(|control| control.abort = true).until(RolloutOutcome::Paused, SOON);
    assert!(fleet.web().unwrap().rollout.as_ref().unwrap().reason.contains("could not restore"));
    fleet.mend().control(|control| control.retry = 1).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}
