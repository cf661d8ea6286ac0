//! How a rollout turns round, and goes back to the release before.

use super::{comparison, compile, stop};
use crate::progress::Traffic;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::rollout::RolloutOutcome;

/// Turns a rollout round: the stages that were not begun are dropped, the one under way ends, and new ones bring every
/// changed slot back.
pub(super) fn turn_round(turn: &mut Turn<'_>, reason: &str) {
    let now = turn.now;
    let Some(from) = turn.rollout().filter(|rollout| !rollout.back()).and_then(|rollout| rollout.from) else {
        return;
    };
    let Some(release) = turn.release(from) else {
        stop::hold(turn, &format!("{reason}; the release before is not kept any more: deploy a good one"));
        return;
    };
    comparison::keep(turn);
    let Some(rollout) = turn.memory.rollout.as_mut() else { return };
    rollout.stages.retain(|stage| stage.started_at.is_some());
    for stage in &mut rollout.stages {
        stage.ended_at.get_or_insert(now);
    }
    rollout.turned_at = Some(rollout.stages.len());
    rollout.outcome = RolloutOutcome::RollingBack;
    rollout.reason = reason.to_owned();
    rollout.progressed_at = now;
    rollout.failure = None;
    // What was tried out loses its requests at once, as far as the release before can take them.
    rollout.traffic = rollout.traffic.take().map(|_| Traffic::default());
    let back = compile::backward(turn, from, &release.spec.rollout);
    let message = format!("{}: going back to {}: {reason}", turn.name, release.version);
    if let Some(rollout) = turn.memory.rollout.as_mut() {
        rollout.stages.extend(back);
    }
    turn.tell(Severity::Warning, "rollback-started", message);
}
