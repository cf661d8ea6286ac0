//! Rollout policies and outcomes.

use super::field::{WireError, choice, each, required};
use super::strategy;
use crate::v1;
use baton_model::rollout::{OnFailure, RolloutOutcome, RolloutPolicy};
use baton_model::time::Millis;

impl From<RolloutPolicy> for v1::RolloutPolicy {
    fn from(policy: RolloutPolicy) -> Self {
        let (choice, shape) = strategy::to_wire(policy.strategy);
        let on_failure = match policy.on_failure {
            OnFailure::RollBack => v1::OnFailure::RollBack,
            OnFailure::Pause => v1::OnFailure::Pause,
        };
        Self {
            strategy: choice.into(),
            shape,
            batch: Some(policy.batch.into()),
            max_unavailable: Some(policy.max_unavailable.into()),
            zone_at_a_time: policy.zone_at_a_time,
            first_zone_bake_ms: policy.first_zone_bake.0,
            min_healthy_ms: policy.min_healthy.0,
            healthy_deadline_ms: policy.healthy_deadline.0,
            progress_deadline_ms: policy.progress_deadline.0,
            failure_tolerance: Some(policy.failure_tolerance.into()),
            on_failure: on_failure.into(),
            approve_before: policy.approve_before,
            analysis: policy.analysis.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::RolloutPolicy> for RolloutPolicy {
    type Error = WireError;
    fn try_from(wire: v1::RolloutPolicy) -> Result<Self, WireError> {
        let strategy = strategy::from_wire(wire.strategy, wire.shape)?;
        let on_failure = match choice("on_failure", wire.on_failure)? {
            v1::OnFailure::Unspecified => return Err(WireError::unset("on_failure")),
            v1::OnFailure::RollBack => OnFailure::RollBack,
            v1::OnFailure::Pause => OnFailure::Pause,
        };
        Ok(Self {
            strategy,
            batch: required("batch", wire.batch)?,
            max_unavailable: required("max_unavailable", wire.max_unavailable)?,
            zone_at_a_time: wire.zone_at_a_time,
            first_zone_bake: Millis(wire.first_zone_bake_ms),
            min_healthy: Millis(wire.min_healthy_ms),
            healthy_deadline: Millis(wire.healthy_deadline_ms),
            progress_deadline: Millis(wire.progress_deadline_ms),
            failure_tolerance: required("failure_tolerance", wire.failure_tolerance)?,
            on_failure,
            approve_before: wire.approve_before,
            analysis: each("analysis", wire.analysis)?,
        })
    }
}

impl From<RolloutOutcome> for v1::RolloutOutcome {
    fn from(outcome: RolloutOutcome) -> Self {
        match outcome {
            RolloutOutcome::Running => Self::Running,
            RolloutOutcome::Paused => Self::Paused,
            RolloutOutcome::RollingBack => Self::RollingBack,
            RolloutOutcome::Succeeded => Self::Succeeded,
            RolloutOutcome::RolledBack => Self::RolledBack,
            RolloutOutcome::Superseded => Self::Superseded,
            RolloutOutcome::Failed => Self::Failed,
        }
    }
}

pub(super) fn outcome(field: &str, wire: i32) -> Result<RolloutOutcome, WireError> {
    match choice(field, wire)? {
        v1::RolloutOutcome::Unspecified => Err(WireError::unset(field)),
        v1::RolloutOutcome::Running => Ok(RolloutOutcome::Running),
        v1::RolloutOutcome::Paused => Ok(RolloutOutcome::Paused),
        v1::RolloutOutcome::RollingBack => Ok(RolloutOutcome::RollingBack),
        v1::RolloutOutcome::Succeeded => Ok(RolloutOutcome::Succeeded),
        v1::RolloutOutcome::RolledBack => Ok(RolloutOutcome::RolledBack),
        v1::RolloutOutcome::Superseded => Ok(RolloutOutcome::Superseded),
        v1::RolloutOutcome::Failed => Ok(RolloutOutcome::Failed),
    }
}
