//! How a rollout reaches its goal.

use super::{compile, stop};
use crate::progress::{RolloutProgress, Warm};
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::ReleaseNumber;
use baton_model::report::Subject;
use baton_model::rollout::RolloutOutcome;
use baton_model::time::Millis;

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
    if back && leaving(turn) {
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
    keep_warm(turn, from);
    let reason = if failed.is_empty() {
        String::new()
    } else {
        format!("failed and tolerated: {}", failed.join(", "))
    };
    stop::end(turn, RolloutOutcome::Succeeded, reason);
}

/// What stands beside the release that it went back to must be gone before everything is as it was (`exact-rollback`). A
/// node that is silent is not waited for: its plan names nothing of it any more.
fn leaving(turn: &mut Turn<'_>) -> bool {
    let beside: Vec<u64> = turn.beside().map(|(number, _)| number).collect();
    beside.into_iter().for_each(|number| turn.retire(number));
    let left =
        turn.slots_seen().filter(|(_, slot, sight)| slot.beside && slot.retiring && sight.heard).count();
    if left > 0 {
        let reason = format!("{left} instances of the release that was given up are being stopped");
        turn.wait(Subject::Rollout, "stop", reason, None);
    }
    left > 0
}

/// The set that served before a switch runs on for as long as the policy says, so that a return takes no start.
fn keep_warm(turn: &mut Turn<'_>, from: Option<ReleaseNumber>) {
    let kept = turn.rollout().map(|rollout| rollout.keep_warm).filter(|kept| *kept > Millis::ZERO);
    let (Some(kept), Some(release), true) = (kept, from, turn.beside().next().is_some()) else { return };
    let until = turn.now.plus(kept);
    turn.memory.warm = Some(Warm { release, until });
    let message = format!(
        "{}: {} is kept warm for {kept}: until then `baton rollout undo {}` returns at once",
        turn.name,
        turn.version(release),
        turn.name
    );
    turn.tell(Severity::Info, "set-kept-warm", message);
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
        turn.serving().filter(|(_, slot)| slot.release != goal).map(|(number, _)| number).collect();
    for number in behind {
        turn.assign(number, goal);
    }
}
