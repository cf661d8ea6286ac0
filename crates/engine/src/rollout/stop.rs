//! How a rollout stops: for good, or until an operator acts.

use super::comparison;
use super::describe::describe;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::rollout::RolloutOutcome;

/// Ends the rollout, keeps its report and says so.
pub(super) fn end(turn: &mut Turn<'_>, outcome: RolloutOutcome, reason: String) {
    comparison::keep(turn);
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

/// Holds a rollout that failed until an operator acts.
pub(super) fn hold(turn: &mut Turn<'_>, reason: &str) {
    let Some(rollout) = turn.memory.rollout.as_mut() else { return };
    rollout.outcome = RolloutOutcome::Paused;
    rollout.failure = Some(reason.to_owned());
    rollout.reason = reason.to_owned();
    let message = format!("{}: rollout {} is held: {reason}", turn.name, rollout.id);
    turn.tell(Severity::Error, "rollout-paused", message);
}
