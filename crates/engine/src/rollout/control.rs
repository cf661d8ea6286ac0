//! What an operator has set about the current rollout: retry, abort, pause and resume.

use super::{back, stop};
use crate::gate::{analysis, hold};
use crate::progress::RolloutProgress;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::report::Subject;
use baton_model::rollout::{RolloutControl, RolloutOutcome};
use baton_model::time::UnixMs;

/// A first release that failed goes on when an operator says `retry`: there was nothing to go back to, so its
/// instances stayed.
pub(super) fn reopen(turn: &mut Turn<'_>) {
    let control = &turn.service.control;
    let retried = |rollout: &RolloutProgress| {
        let failed = rollout.outcome == RolloutOutcome::Failed && !control.abort;
        failed && control.rollout == rollout.id && control.retry > rollout.retried
    };
    if !turn.memory.rollout.as_ref().is_some_and(retried) {
        return;
    }
    if let Some(rollout) = &mut turn.memory.rollout {
        rollout.outcome = RolloutOutcome::Running;
        rollout.ended_at = None;
    }
}

/// Acts on the control where it is about this rollout.
pub(super) fn obey(turn: &mut Turn<'_>) {
    let control = &turn.service.control;
    let Some(rollout) = turn.rollout().filter(|rollout| rollout.id == control.rollout) else { return };
    if control.retry > rollout.retried {
        retry(turn, control);
    }
    let Some(rollout) = turn.rollout() else { return };
    if control.abort && !rollout.back() {
        abort(turn);
    }
    let Some(rollout) = turn.rollout() else { return };
    if hold::paused(control, rollout) {
        pause(turn);
    } else {
        resume(turn);
    }
}

fn retry(turn: &mut Turn<'_>, control: &RolloutControl) {
    let now = turn.now;
    let restarts = turn.rollout().and_then(|rollout| analysis::restarts(turn, rollout.to));
    let Some(rollout) = turn.memory.rollout.as_mut() else { return };
    rollout.retried = control.retry;
    rollout.failure = None;
    rollout.reason = String::new();
    rollout.progressed_at = now;
    rollout.outcome = direction(rollout);
    if let Some(index) = rollout.current().filter(|_| !rollout.back()) {
        look_again(rollout, index, restarts, now);
    }
    let stages = &mut rollout.stages[rollout.turned_at.unwrap_or(0)..];
    let mut count = 0;
    for stage in stages {
        stage.relapses = 0;
        if stage.failed.is_empty() {
            continue;
        }
        count += stage.failed.len();
        stage.again.extend(std::mem::take(&mut stage.failed).into_keys());
        stage.healthy_at = None;
        stage.ended_at = None;
    }
    let message = format!("{}: rollout {} tries {count} failed instances again", turn.name, rollout.id);
    turn.tell(Severity::Info, "rollout-retried", message);
}

/// What was measured until now was looked at; what counts is what is measured from now on. Between two steps that is the
/// evidence of the step before.
fn look_again(rollout: &mut RolloutProgress, index: usize, restarts: Option<u64>, now: UnixMs) {
    if rollout.stages[index].held.take().is_none() {
        return;
    }
    let Some(watched) = super::analysis::watched(rollout, index) else { return };
    let stage = &mut rollout.stages[watched];
    stage.shifted_at = Some(now);
    stage.restarts_before = restarts.unwrap_or(stage.restarts_before);
    stage.verdicts.clear();
}

fn abort(turn: &mut Turn<'_>) {
    let Some(rollout) = turn.rollout() else { return };
    if rollout.from.is_some() {
        back::turn_round(turn, "an operator aborted it");
        return;
    }
    let live: Vec<u64> = turn.live().map(|(number, _)| number).collect();
    for number in live {
        turn.retire(number);
    }
    let reason = "an operator aborted it; there is no release before it, so its instances are removed";
    stop::end(turn, RolloutOutcome::Failed, reason.to_owned());
}

fn pause(turn: &mut Turn<'_>) {
    let Some(rollout) = turn.rollout().filter(|rollout| rollout.failure.is_none()) else { return };
    let reason = "an operator paused it: nothing new begins until `baton rollout resume`";
    if rollout.outcome != RolloutOutcome::Paused || rollout.reason != reason {
        let message = format!("{}: rollout {} is paused by an operator", turn.name, rollout.id);
        if let Some(rollout) = &mut turn.memory.rollout {
            rollout.outcome = RolloutOutcome::Paused;
            rollout.reason = reason.to_owned();
        }
        turn.tell(Severity::Info, "rollout-paused", message);
    }
    turn.wait(Subject::Rollout, "paused", reason.to_owned(), None);
}

/// Goes on after a pause or an approval; a rollout that failed stays held until `retry` or `abort`.
fn resume(turn: &mut Turn<'_>) {
    let now = turn.now;
    let paused = |rollout: &&RolloutProgress| {
        let held = rollout.failure.is_some()
            || waits_for_approval(turn.service, rollout)
            || held_by_analysis(turn.service, rollout);
        rollout.outcome == RolloutOutcome::Paused && !held
    };
    let Some(rollout) = turn.rollout().filter(paused) else { return };
    let message = format!("{}: rollout {} goes on", turn.name, rollout.id);
    if let Some(rollout) = &mut turn.memory.rollout {
        rollout.outcome = direction(rollout);
        rollout.reason = String::new();
        rollout.progressed_at = now;
    }
    turn.tell(Severity::Info, "rollout-resumed", message);
}

fn waits_for_approval(service: &baton_model::desired::Service, rollout: &RolloutProgress) -> bool {
    let Some(index) = rollout.current() else { return false };
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    hold::unapproved(&service.control, rollout, &rollout.stages[index], number)
}

/// The evidence was bad and an operator is to look, and has not said to go on all the same.
fn held_by_analysis(service: &baton_model::desired::Service, rollout: &RolloutProgress) -> bool {
    let Some(index) = rollout.current().filter(|_| !rollout.back()) else { return false };
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    rollout.stages[index].held.is_some() && !hold::promoted(&service.control, rollout, number)
}

fn direction(rollout: &RolloutProgress) -> RolloutOutcome {
    if rollout.back() { RolloutOutcome::RollingBack } else { RolloutOutcome::Running }
}
