//! How a rollout ends, and how it is described.

use super::{begin, compile};
use crate::progress::RolloutProgress;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::Version;
use baton_model::report::{RolloutReport, StageReport, StageState, Step};
use baton_model::rollout::RolloutOutcome;
use std::collections::BTreeMap;

/// Every stage has ended: the goal is reached, or as much of it as could be.
pub(super) fn complete(turn: &mut Turn<'_>) {
    let Some(rollout) = turn.rollout() else { return };
    let (back, to, from) = (rollout.back(), rollout.to, rollout.from);
    let failed: Vec<String> =
        failed_slots(rollout).into_iter().map(|number| turn.id(number).to_string()).collect();
    if back && !failed.is_empty() {
        begin::hold(turn, &format!("could not restore {}", failed.join(", ")));
        return;
    }
    if take_along(turn) {
        return;
    }
    if back {
        settle(turn, from);
        let reason = turn.rollout().map(|rollout| rollout.reason.clone()).unwrap_or_default();
        end(turn, RolloutOutcome::RolledBack, reason);
        return;
    }
    settle(turn, Some(to));
    turn.memory.stable = Some(to);
    let reason = if failed.is_empty() {
        String::new()
    } else {
        format!("failed and tolerated: {}", failed.join(", "))
    };
    end(turn, RolloutOutcome::Succeeded, reason);
}

/// Adds stages for slots that can be reached and are not at the goal: they too pass the gates and the budget.
/// `true` when there are any. Each is in a stage then, and a stage brings its slots to the goal or fails, so this ends.
fn take_along(turn: &mut Turn<'_>) -> bool {
    let (Some(goal), Some(spec)) = (turn.goal(), turn.spec()) else { return false };
    let stages = compile::left_behind(turn, goal, &spec.rollout);
    let Some(rollout) = turn.memory.rollout.as_mut().filter(|_| !stages.is_empty()) else { return false };
    rollout.stages.extend(stages);
    true
}

/// Going back, only the stages of the way back count.
fn failed_slots(rollout: &RolloutProgress) -> Vec<u64> {
    rollout.stages[rollout.turned_at.unwrap_or(0)..]
        .iter()
        .flat_map(|stage| stage.failed.keys().copied())
        .collect()
}

/// Gives the goal to the slots that no stage waited for: those that cannot be reached, which follow when they are back.
fn settle(turn: &mut Turn<'_>, goal: Option<baton_model::id::ReleaseNumber>) {
    let Some(goal) = goal else { return };
    let behind: Vec<u64> =
        turn.live().filter(|(_, slot)| slot.release != goal).map(|(number, _)| number).collect();
    for number in behind {
        turn.assign(number, goal);
    }
}

/// Ends the rollout, keeps its report and says so.
pub(super) fn end(turn: &mut Turn<'_>, outcome: RolloutOutcome, reason: String) {
    let now = turn.now;
    let Some(rollout) = turn.memory.rollout.as_mut() else { return };
    rollout.outcome = outcome;
    rollout.reason.clone_from(&reason);
    rollout.ended_at = Some(now);
    rollout.failure = None;
    let id = rollout.id;
    let to = turn.memory.rollout.as_ref().map(|rollout| turn.version(rollout.to)).unwrap_or_default();
    let (severity, kind, text) = match outcome {
        RolloutOutcome::Succeeded => {
            (Severity::Info, "rollout-succeeded", format!("every instance runs {to}"))
        }
        RolloutOutcome::RolledBack => {
            (Severity::Warning, "rolled-back", format!("every instance is back from {to}"))
        }
        RolloutOutcome::Superseded => (Severity::Info, "rollout-superseded", String::new()),
        RolloutOutcome::Failed => (Severity::Error, "rollout-ended", "it failed".to_owned()),
        RolloutOutcome::Running | RolloutOutcome::Paused | RolloutOutcome::RollingBack => return,
    };
    let joint = if text.is_empty() || reason.is_empty() { "" } else { ": " };
    let message = format!("{}: rollout {id} has ended: {text}{joint}{reason}", turn.name);
    turn.tell(severity, kind, message);
    let report = turn.memory.rollout.as_ref().and_then(|rollout| describe(turn, rollout, false));
    turn.ended.extend(report);
}

/// A rollout for people. `whole`: with every instance, not the failed ones alone.
pub(crate) fn describe(turn: &Turn<'_>, rollout: &RolloutProgress, whole: bool) -> Option<RolloutReport> {
    let stages = rollout.stages.iter().enumerate().map(|(index, stage)| {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let state = match (stage.started_at, stage.healthy_at, stage.ended_at) {
            _ if !stage.failed.is_empty() && stage.ended_at.is_some() => StageState::Failed,
            (_, _, Some(_)) if stage.healthy_at.is_none() => StageState::Failed,
            (_, _, Some(_)) => StageState::Done,
            (Some(_), Some(_), None) => StageState::Baking,
            (Some(_), None, None) => StageState::Running,
            (None, _, None) => StageState::Pending,
        };
        let slots = stage.cohort.iter().filter(|number| whole || stage.failed.contains_key(number));
        let instances: BTreeMap<_, _> =
            slots.map(|number| (turn.id(*number), step(turn, rollout, index, *number))).collect();
        let title = stage.title.clone();
        StageReport {
            number,
            title,
            state,
            instances,
            started_at: stage.started_at,
            ended_at: stage.ended_at,
        }
    });
    Some(RolloutReport {
        id: rollout.id,
        from: rollout.from,
        to: rollout.to,
        from_version: rollout.from.and_then(|from| turn.release(from)).map(|release| release.version.clone()),
        to_version: turn
            .release(rollout.to)
            .map(|release| release.version.clone())
            .or_else(|| Version::new(rollout.to.to_string()).ok())?,
        outcome: rollout.outcome,
        reason: rollout.reason.clone(),
        started_at: rollout.started_at,
        ended_at: rollout.ended_at,
        stages: stages.collect(),
    })
}

fn step(turn: &Turn<'_>, rollout: &RolloutProgress, index: usize, number: u64) -> Step {
    let stage = &rollout.stages[index];
    let Some(slot) = turn.memory.slots.get(&number) else { return Step::Done };
    if stage.failed.contains_key(&number) {
        Step::Failed
    } else if stage.started_at.is_none() {
        Step::Pending
    } else if stage.ended_at.is_some() {
        Step::Done
    } else if !turn.heard(number) {
        Step::Deferred
    } else if Some(slot.release) != rollout.goal() {
        Step::Pending
    } else if stage.healthy.contains(&number) {
        Step::Done
    } else {
        Step::Changing
    }
}
