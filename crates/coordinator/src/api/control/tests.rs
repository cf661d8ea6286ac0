use super::*;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{RolloutKind, RolloutRequest, Verdict};
use serde_json::json;
use std::collections::BTreeMap;

fn service() -> Service {
    let request = RolloutRequest {
        id: RolloutId(3),
        to: ReleaseNumber(2),
        kind: RolloutKind::Deploy,
        requested_at: UnixMs(0),
        requested_by: "ann".to_owned(),
    };
    Service {
        name: "web".parse().unwrap(),
        releases: BTreeMap::new(),
        request: Some(request),
        control: RolloutControl { rollout: RolloutId(3), ..RolloutControl::default() },
        removed: false,
        reload: 0,
    }
}

/// A rollout of three stages, the second of which asks for an approval; so many are done.
fn progress(outcome: RolloutOutcome, done: usize) -> ServiceProgress {
    let stage = |number: usize| {
        let at = |time: u64| (number < done).then_some(time);
        json!({
            "title": "", "cohort": [], "failed": {}, "approval": number == 1, "bake_ms": 0,
            "started_at": at(1), "healthy_at": at(1), "ended_at": at(2),
        })
    };
    let rollout = json!({
        "id": 3, "from": 1, "to": 2, "outcome": outcome, "reason": "", "started_at": 0, "ended_at": null,
        "progressed_at": 0, "retried": 0, "stages": (0..3).map(stage).collect::<Vec<_>>(),
    });
    let rollout: RolloutProgress = serde_json::from_value(rollout).unwrap();
    ServiceProgress { rollout: Some(rollout), ..ServiceProgress::default() }
}

/// When it is asked.
const NOW: UnixMs = UnixMs(1_000);

fn asked(action: RolloutAction, step: Option<u32>) -> Asked {
    Asked { rollout: None, action, step }
}

fn set(outcome: RolloutOutcome, done: usize, action: RolloutAction) -> Result<RolloutControl, Refusal> {
    controlled(&service(), Some(&progress(outcome, done)), asked(action, None), NOW)
}

#[test]
fn only_the_stage_that_waits_is_approved() {
    use RolloutAction::Promote;
    assert!(set(RolloutOutcome::Running, 0, Promote).is_err(), "it is not reached yet");
    assert_eq!(set(RolloutOutcome::Paused, 1, Promote).unwrap().approved_through, 2);
    assert!(set(RolloutOutcome::Running, 2, Promote).is_err(), "the third goes on by itself");
    let mut approved = service();
    approved.control.approved_through = 2;
    let again = controlled(&approved, Some(&progress(RolloutOutcome::Paused, 1)), asked(Promote, None), NOW);
    assert!(again.is_err(), "a second click approves nothing further");
}

#[test]
fn a_step_ahead_can_be_reached_at_once_and_no_other() {
    let to = |done, step| {
        let progress = progress(RolloutOutcome::Running, done);
        controlled(&service(), Some(&progress), asked(RolloutAction::Promote, Some(step)), NOW)
    };
    let promoted = to(1, 3).unwrap();
    assert_eq!((promoted.promoted_through, promoted.approved_through), (3, 0));
    assert!(to(1, 1).is_err(), "it has begun");
    assert!(to(1, 4).is_err(), "there is none");
    let mut turned = progress(RolloutOutcome::RollingBack, 1);
    turned.rollout.as_mut().unwrap().turned_at = Some(3);
    assert!(controlled(&service(), Some(&turned), asked(RolloutAction::Promote, Some(3)), NOW).is_err());
}

#[test]
fn a_person_may_take_a_held_stage_past_its_analysis_and_end_the_last_step() {
    let control = |held: Option<usize>, begun: usize, step| {
        let mut progress = progress(RolloutOutcome::Paused, begun - 1);
        let rollout = progress.rollout.as_mut().unwrap();
        rollout.stages[begun - 1].started_at = Some(UnixMs(1));
        if let Some(held) = held {
            rollout.stages[held].held = Some("errors: broken".to_owned());
        }
        controlled(&service(), Some(&progress), asked(RolloutAction::Promote, step), NOW)
    };
    assert_eq!(control(Some(0), 1, None).unwrap().promoted_through, 2, "to the next one");
    assert_eq!(control(Some(2), 3, None).unwrap().promoted_through, 4, "past the last one");
    assert_eq!(control(Some(2), 3, Some(3)).unwrap().promoted_through, 4);
    assert_eq!(
        control(None, 3, Some(3)).unwrap().promoted_through,
        4,
        "the last one, though nothing holds it"
    );
    assert!(control(None, 3, None).is_err(), "a second approval ends no bake");
    assert!(control(None, 1, Some(1)).is_err(), "it has begun, and is not the last");
}

fn verdict(answer: Answer) -> Verdict {
    let verdict = json!({
        "name": "errors", "answer": answer, "at": 2, "since": 1, "requests": 0, "measured": null, "text": "",
    });
    serde_json::from_value(verdict).unwrap()
}

#[test]
fn what_analysis_holds_goes_on_and_what_only_bakes_does_not() {
    /// The first stage has begun and bakes for so long; this is what its evidence says.
    fn promote(bake_ms: u64, answer: Answer) -> Result<RolloutControl, Refusal> {
        let mut progress = progress(RolloutOutcome::Running, 0);
        let stage = &mut progress.rollout.as_mut().unwrap().stages[0];
        (stage.started_at, stage.healthy_at) = (Some(UnixMs(1)), Some(UnixMs(1)));
        (stage.shifted_at, stage.analysed, stage.bake_ms) = (Some(UnixMs(1)), true, bake_ms);
        stage.verdicts = vec![verdict(answer)];
        controlled(&service(), Some(&progress), asked(RolloutAction::Promote, None), NOW)
    }
    for bake_ms in [0, 999, 1_000_000] {
        assert_eq!(promote(bake_ms, Answer::Fail).unwrap().promoted_through, 2, "broken, bakes {bake_ms}");
        assert!(promote(bake_ms, Answer::Pass).is_err(), "analysis holds nothing, bakes {bake_ms}");
    }
    assert_eq!(promote(999, Answer::Inconclusive).unwrap().promoted_through, 2, "no evidence");
    assert!(promote(1_000, Answer::Inconclusive).is_err(), "evidence may come while it bakes");
}

#[test]
fn what_an_operator_took_a_step_past_holds_not_the_next_one() {
    let mut progress = progress(RolloutOutcome::Running, 2);
    let [_, before, stage] = &mut progress.rollout.as_mut().unwrap().stages[..] else { panic!("three") };
    (before.analysed, before.shifted_at, before.verdicts) =
        (true, Some(UnixMs(1)), vec![verdict(Answer::Fail)]);
    (stage.analysed, stage.started_at) = (true, Some(UnixMs(3)));
    let again = controlled(&service(), Some(&progress), asked(RolloutAction::Promote, None), NOW);
    assert!(matches!(&again, Err(Refusal::NotNow(why)) if why.contains("--to STEP")), "{again:?}");
}

/// What an operator has aborted, and what is asked of it then.
fn aborted(
    from: Option<u64>,
    outcome: RolloutOutcome,
    action: RolloutAction,
) -> Result<RolloutControl, Refusal> {
    let (mut service, mut progress) = (service(), progress(outcome, 1));
    service.control.abort = true;
    progress.rollout.as_mut().unwrap().from = from.map(ReleaseNumber);
    controlled(&service, Some(&progress), asked(action, None), NOW)
}

#[test]
fn a_pause_does_not_hold_an_abort() {
    let pause = aborted(Some(1), RolloutOutcome::RollingBack, RolloutAction::Pause);
    assert!(
        matches!(&pause, Err(Refusal::NotNow(why)) if why.contains("a pause does not hold")),
        "{pause:?}"
    );
}

#[test]
fn a_first_release_that_was_aborted_is_deployed_again_and_not_tried_again() {
    for outcome in [RolloutOutcome::Running, RolloutOutcome::Failed] {
        let retry = aborted(None, outcome, RolloutAction::Retry);
        assert!(matches!(&retry, Err(Refusal::NotNow(why)) if why.contains("deploy it again")), "{retry:?}");
    }
    let back = aborted(Some(1), RolloutOutcome::RollingBack, RolloutAction::Retry).unwrap();
    assert_eq!(back.retry, 1, "going back, failed instances are tried again");
}

#[test]
fn control_is_whole_state() {
    let paused = set(RolloutOutcome::Running, 1, RolloutAction::Pause).unwrap();
    assert!(paused.paused && !paused.abort);
    assert!(set(RolloutOutcome::Running, 1, RolloutAction::Abort).unwrap().abort);
    assert_eq!(set(RolloutOutcome::Paused, 1, RolloutAction::Retry).unwrap().retry, 1);
    let mut other = service();
    other.control =
        RolloutControl { rollout: RolloutId(2), paused: true, abort: true, ..RolloutControl::default() };
    let fresh = controlled(&other, None, asked(RolloutAction::Retry, None), NOW).unwrap();
    assert_eq!(
        fresh,
        RolloutControl { rollout: RolloutId(3), retry: 1, ..RolloutControl::default() },
        "of another rollout"
    );
}

#[test]
fn what_is_over_or_held_by_something_else_is_said() {
    for over in [
        RolloutOutcome::Succeeded,
        RolloutOutcome::RolledBack,
        RolloutOutcome::Superseded,
        RolloutOutcome::Failed,
    ] {
        assert!(matches!(set(over, 3, RolloutAction::Pause), Err(Refusal::NotNow(_))), "{over:?}");
    }
    assert!(
        set(RolloutOutcome::Paused, 1, RolloutAction::Resume).is_err(),
        "an approval is what it waits for"
    );
    assert!(!set(RolloutOutcome::Running, 1, RolloutAction::Resume).unwrap().paused);
    assert!(matches!(set(RolloutOutcome::Running, 1, RolloutAction::Unspecified), Err(Refusal::Invalid(_))));
}
