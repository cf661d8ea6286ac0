//! Operators' holds: a pause of the whole rollout, and the approval of a stage.

use crate::progress::{RolloutProgress, StageProgress};
use baton_model::rollout::RolloutControl;

/// Whether an operator holds the rollout. An abort goes on through a pause: it was asked for later or more urgently.
pub(crate) fn paused(control: &RolloutControl, rollout: &RolloutProgress) -> bool {
    control.rollout == rollout.id && control.paused && !control.abort
}

/// Whether the stage (counted from 1) must wait for an approval that has not been given.
pub(crate) fn unapproved(
    control: &RolloutControl,
    rollout: &RolloutProgress,
    stage: &StageProgress,
    number: u32,
) -> bool {
    let through = control.approved_through.max(control.promoted_through);
    let approved = if control.rollout == rollout.id { through } else { 0 };
    stage.approval && stage.started_at.is_none() && approved < number
}

/// Whether an operator wants a later stage reached without this one's (counted from 1) bake and analysis.
pub(crate) fn promoted(control: &RolloutControl, rollout: &RolloutProgress, number: u32) -> bool {
    control.rollout == rollout.id && control.promoted_through > number
}
