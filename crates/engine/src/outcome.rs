//! What a decision is.

use crate::progress::ServiceProgress;
use baton_model::event::Severity;
use baton_model::id::{InstanceId, NodeName, ReleaseNumber, RolloutId, RunNumber, ServiceName};
use baton_model::report::Report;
use baton_model::rollout::Verdict;
use baton_model::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The result of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The memory that changed: the new value, or `None` for a service that is gone.
    pub progress: BTreeMap<ServiceName, Option<ServiceProgress>>,
    /// Who runs what now: the complete assignments of **every** node that has any, or had any in its stored plan.
    pub assignments: BTreeMap<NodeName, Assignments>,
    /// What happened, for the journal; recorded after the commit.
    pub events: Vec<EventDraft>,
    /// Why everything stands as it stands.
    pub report: Report,
    /// When to decide again at the latest, though nothing changes.
    pub wake_at: Option<UnixMs>,
}

/// The instances of one node.
pub type Assignments = BTreeMap<InstanceId, Assignment>;

/// What one instance should run: the light form of `InstancePlan`, which the dispatcher fills in from the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The release.
    pub release: ReleaseNumber,
    /// The attempt.
    pub attempt: u32,
    /// The reloads that were asked for; see `InstancePlan::reload`.
    #[serde(default)]
    pub reload: u64,
    /// The last run that is out of every live gateway's routes; see `InstancePlan::released`.
    #[serde(default)]
    pub released: RunNumber,
}

/// An event before it has its place and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word.
    pub kind: &'static str,
    /// A sentence for people.
    pub message: String,
    /// About which service.
    pub service: Option<ServiceName>,
    /// About which node.
    pub node: Option<NodeName>,
    /// About which instance.
    pub instance: Option<InstanceId>,
    /// Figures and facts.
    pub fields: BTreeMap<String, String>,
    /// Whom somebody wants to be told of it.
    pub webhook: Option<Box<WebhookCall>>,
}

/// A verdict that is to be posted to a URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookCall {
    /// Where.
    pub url: String,
    /// Of which rollout.
    pub rollout: RolloutId,
    /// Of which of its stages, counted from 1.
    pub stage: u32,
    /// Of which threshold of its policy, counted from 1.
    pub threshold: u32,
    /// The release before; `None` for a first one.
    pub from: Option<ReleaseNumber>,
    /// The release that was judged.
    pub to: ReleaseNumber,
    /// The verdict, with the data that it was made from.
    pub verdict: Verdict,
}
