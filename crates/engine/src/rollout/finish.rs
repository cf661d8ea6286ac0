//! How a rollout reaches its goal.

use super::{compile, stop};
use crate::progress::RolloutProgress;
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::RolloutOutcome;

/// Every stage has ended: the goal is reached, or as much of it as could be.
pub(super) fn complete(turn: &mut Turn<'_>) {
    let Some(rollout) = turn.rollout() else { return };
    let (back, to, from) = (rollout.back(), rollout.to, rollout.from);
    let failed: Vec<String> =
        failed_slots(rollout).into_iter().map(|number| turn.id(number).to_string()).collect();
    if back && !failed.is_empty() {
        stop::hold(turn, &format!("could not restore {}", failed.join(", ")));
        return;
    }
    if take_along(turn) {
        return;
    }
    if back {
        settle(turn, from);
        let reason = turn.rollout().map(|rollout| rollout.reason.clone()).unwrap_or_default();
        stop::end(turn, RolloutOutcome::RolledBack, reason);
        return;
    }
    settle(turn, Some(to));
    turn.memory.stable = Some(to);
    let reason = if failed.is_empty() {
        String::new()
    } else {
        format!("failed and tolerated: {}", failed.join(", "))
    };
    stop::end(turn, RolloutOutcome::Succeeded, reason);
}

/// Adds stages for slots that can be reached and are not at the goal: they too pass the gates and the budget.
/// `true` when there are any. Each is in a stage then, and a stage brings its slots to the goal or fails, so this ends.
fn take_along(turn: &mut Turn<'_>) -> bool {
    let (Some(goal), Some(spec)) = (turn.goal(), turn.spec()) else { return false };
    let stages = compile::left_behind(turn, goal, &spec.rollout);
    if stages.is_empty() {
        return false;
    }
    if let Some(rollout) = &mut turn.memory.rollout {
        rollout.stages.extend(stages);
    }
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
fn settle(turn: &mut Turn<'_>, goal: Option<ReleaseNumber>) {
    let Some(goal) = goal else { return };
    let behind: Vec<u64> =
        turn.live().filter(|(_, slot)| slot.release != goal).map(|(number, _)| number).collect();
    for number in behind {
        turn.assign(number, goal);
    }
}
