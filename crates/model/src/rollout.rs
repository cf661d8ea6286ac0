//! How a release replaces another: the policy a person writes and the request an operator makes.
//!
//! The stages a policy compiles into, and the machine that runs them, are the engine's.

mod analysis;
mod comparison;
mod strategy;

pub use analysis::{AnalysisAction, Answer, Measured, Metric, Threshold, Verdict};
pub use comparison::{ArmReport, Comparison, Estimate, LatencyEffect, Percent, SampleRatio};
pub use strategy::{AbTest, AfterDark, BlueGreen, Canary, CanaryStep, DarkLaunch, Preview, Strategy};

use crate::amount::Amount;
use crate::id::{ReleaseNumber, RolloutId};
use crate::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};

/// How a service is rolled out. A strategy is data; the engine compiles it once into stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    /// The shape of the stages.
    pub strategy: Strategy,
    /// Instances swapped at a time.
    pub batch: Amount,
    /// Instances that may be out of service at a time because of us.
    pub max_unavailable: Amount,
    /// Only one value of the placement's spread label at a time.
    pub zone_at_a_time: bool,
    /// A longer bake after the first zone (or the first batch, without zones).
    pub first_zone_bake: Millis,
    /// A new instance must have been ready this long to count as healthy.
    pub min_healthy: Millis,
    /// A new instance must be healthy within this time, or it has failed.
    pub healthy_deadline: Millis,
    /// Some instance must have become healthy within this time, or the rollout has failed.
    pub progress_deadline: Millis,
    /// Failed instances that each batch tolerates.
    pub failure_tolerance: Amount,
    /// What happens when a rollout fails.
    pub on_failure: OnFailure,
    /// Wait for an operator's `promote` before each of these stages (counted from 1); the rest go on by themselves.
    ///
    /// Of a strategy in steps it is the steps that are counted.
    pub approve_before: Vec<u32>,
    /// What is asked of the evidence while a new release is watched.
    #[serde(default)]
    pub analysis: Vec<Threshold>,
}

/// What happens when a rollout fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Go back to the previous release, by the same machine.
    RollBack,
    /// Hold where it is and call an operator.
    Pause,
}

/// What an operator asked for: bring the service to a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRequest {
    /// Its number; a higher one supersedes a lower one.
    pub id: RolloutId,
    /// The release to reach.
    pub to: ReleaseNumber,
    /// Deploy or undo; both run in the same machine.
    pub kind: RolloutKind,
    /// When it was asked.
    pub requested_at: UnixMs,
    /// Which operator asked.
    pub requested_by: String,
}

/// Why a rollout was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutKind {
    /// A release was deployed.
    Deploy,
    /// An operator went back to an earlier release.
    Undo,
}

/// What an operator has set about the current rollout. Whole state, never "do this once".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutControl {
    /// The rollout this is about; control of another rollout has no effect.
    pub rollout: RolloutId,
    /// Start nothing new.
    pub paused: bool,
    /// Approval was given for every stage up to this one (counted from 1).
    pub approved_through: u32,
    /// An operator wants the stages up to this one (counted from 1) passed without bake, analysis or approval; health is
    /// waited for all the same.
    #[serde(default)]
    pub promoted_through: u32,
    /// Go back to the release before.
    pub abort: bool,
    /// Grows with each `retry`; failed instances are tried again when it grows.
    pub retry: u32,
}

/// How a rollout ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutOutcome {
    /// It goes on (it may be waiting).
    Running,
    /// Held: by an operator, for an approval, or because it failed and the policy says pause.
    Paused,
    /// Going back to the release before.
    RollingBack,
    /// Every instance runs the new release.
    Succeeded,
    /// Every instance runs the release before, after a failure or an abort.
    RolledBack,
    /// A newer request took its place.
    Superseded,
    /// It failed and there is nothing to go back to (a first release).
    Failed,
}

impl RolloutOutcome {
    /// Whether nothing more will happen in this rollout.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::RolledBack | Self::Superseded | Self::Failed => true,
            Self::Running | Self::Paused | Self::RollingBack => false,
        }
    }
}
