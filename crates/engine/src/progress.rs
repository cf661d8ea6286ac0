//! What is remembered between decisions: an input and an output, stored per service.

use baton_model::id::{NodeName, ReleaseNumber, RolloutId, ServiceName};
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use baton_model::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The memory of all services. Of one that was removed and is gone the number of its last slot stays, so that a service
/// that is deployed under its name later does not use one again.
pub type Progress = BTreeMap<ServiceName, ServiceProgress>;

/// The memory of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProgress {
    /// The release that instances are at, or return to, outside a rollout.
    pub stable: Option<ReleaseNumber>,
    /// The next fresh slot number less one: slots are never used again.
    pub last_slot: u64,
    /// Where each instance is and what it should run.
    pub slots: BTreeMap<u64, Slot>,
    /// The rollout under way, or the last one.
    pub rollout: Option<RolloutProgress>,
    /// Rollouts that ended, oldest first, at most [`HISTORY_MAX`]; of their instances only the failed ones are kept.
    pub history: Vec<RolloutReport>,
    /// The nodes of its slots that were silent at the decision before; what changes here is an event.
    #[serde(default)]
    pub silent: BTreeSet<NodeName>,
}

impl ServiceProgress {
    /// What stays of a service that is gone; nothing of one that never had a slot.
    #[must_use]
    pub fn forgotten(&self) -> Option<Self> {
        (self.last_slot > 0).then(|| Self { last_slot: self.last_slot, ..Self::default() })
    }

    /// Whether this is what stays of a service that is gone.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        let Self { stable, last_slot: _, slots, rollout, history, silent } = self;
        stable.is_none() && slots.is_empty() && rollout.is_none() && history.is_empty() && silent.is_empty()
    }
}

/// Ended rollouts kept per service; older ones remain in the event journal.
pub const HISTORY_MAX: usize = 20;

/// One slot: an instance's place and goal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The node it is placed on.
    pub node: NodeName,
    /// The release it should run.
    pub release: ReleaseNumber,
    /// The attempt at that release; see `InstancePlan::attempt`.
    pub attempt: u32,
    /// When it was given this release (or attempt).
    pub assigned_at: UnixMs,
    /// It is to stop: no longer in the node's plan; the slot is dropped once the node no longer reports it.
    pub retiring: bool,
    /// The slot whose place it takes; that one retires once this one is ready.
    #[serde(default)]
    pub replaces: Option<u64>,
}

/// The memory of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutProgress {
    /// Its number, as in the request.
    pub id: RolloutId,
    /// The release to go back to; `None` for a first release.
    pub from: Option<ReleaseNumber>,
    /// The release to reach.
    pub to: ReleaseNumber,
    /// How it stands.
    pub outcome: RolloutOutcome,
    /// Why it stands so.
    pub reason: String,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// When an instance last became healthy (or the rollout began or was resumed): the base of the progress deadline.
    pub progressed_at: UnixMs,
    /// The `retry` number of the control that was last acted upon.
    pub retried: u32,
    /// The stages, compiled once when the rollout began; a rollback drops those that were not begun and adds its own.
    pub stages: Vec<StageProgress>,
    /// It goes back: the index of the first stage that brings instances to `from`.
    #[serde(default)]
    pub turned_at: Option<usize>,
    /// It failed for this reason and is held until an operator acts.
    #[serde(default)]
    pub failure: Option<String>,
}

/// The memory of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProgress {
    /// For people: `batch 1 of 3`.
    pub title: String,
    /// The slots it changes.
    pub cohort: BTreeSet<u64>,
    /// Slots that failed in it.
    pub failed: BTreeMap<u64, String>,
    /// Slots that have been healthy in it at least once.
    #[serde(default)]
    pub healthy: BTreeSet<u64>,
    /// Slots that an operator wants tried again, once the budget allows.
    #[serde(default)]
    pub again: BTreeSet<u64>,
    /// It places the instances that are still missing, and they join its cohort.
    #[serde(default)]
    pub places: bool,
    /// How often it lost its health again while it baked.
    #[serde(default)]
    pub relapses: u32,
    /// Wait for an operator before it begins.
    pub approval: bool,
    /// Wait this long, all healthy, after it is changed.
    pub bake_ms: u64,
    /// When it began.
    pub started_at: Option<UnixMs>,
    /// Since when all of its cohort has been healthy: the base of its bake.
    pub healthy_at: Option<UnixMs>,
    /// When it was done.
    pub ended_at: Option<UnixMs>,
}
