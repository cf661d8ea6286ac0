//! Why each thing is done, doing, or waiting. The coordinator can always say what it waits for.

use crate::id::{InstanceId, NodeName, ReleaseNumber, RolloutId, ServiceName, Version};
use crate::rollout::{Comparison, RolloutOutcome, Verdict};
use crate::route::Weight;
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The report of one decision, over everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Per service.
    pub services: BTreeMap<ServiceName, ServiceReport>,
}

/// The report on one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// One word for lists.
    pub health: Health,
    /// The release that instances are at, or return to, outside a rollout.
    pub stable: Option<ReleaseNumber>,
    /// Instances wanted.
    pub wanted: u32,
    /// Instances ready.
    pub ready: u32,
    /// The least that our own actions keep ready.
    pub floor: u32,
    /// The current or last rollout.
    pub rollout: Option<RolloutReport>,
    /// What is waited for or held, each with its reason; empty when nothing is.
    pub waiting: Vec<Waiting>,
}

/// One word for the state of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// As wanted.
    Healthy,
    /// Something is under way.
    Changing,
    /// Fewer ready than wanted.
    Degraded,
    /// None ready.
    Down,
}

/// One reason why something waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What waits.
    pub subject: Subject,
    /// The gate, budget or fact that holds it: a stable word (`health`, `bake`, `approval`, `paused`, `budget`,
    /// `zone`, `no-node`, `node-silent`, `swap`, `start`, `crash-loop`, `deadline`, ...).
    pub gate: String,
    /// A sentence for people: what is waited for, and what an operator can do where something can be done.
    pub reason: String,
    /// When it ends by itself at the latest, where that is known.
    pub until: Option<UnixMs>,
}

/// What a reason is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum Subject {
    /// The service as a whole.
    Service,
    /// Its rollout.
    Rollout,
    /// A stage, counted from 1.
    Stage(u32),
    /// One instance.
    Instance(InstanceId),
    /// A node.
    Node(NodeName),
}

/// The state of a rollout, for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// Its number.
    pub id: RolloutId,
    /// From which release; `None` for a first one.
    pub from: Option<ReleaseNumber>,
    /// To which release.
    pub to: ReleaseNumber,
    /// The version of `from`.
    pub from_version: Option<Version>,
    /// The version of `to`.
    pub to_version: Version,
    /// How it stands.
    pub outcome: RolloutOutcome,
    /// Why it stands so, where there is something to say.
    pub reason: String,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// Its stages, in order.
    pub stages: Vec<StageReport>,
}

/// The state of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// Counted from 1.
    pub number: u32,
    /// For people: `batch 1 of 3`, `zone a, batch 2`.
    pub title: String,
    /// How it stands.
    pub state: StageState,
    /// The instances of its cohort and how each stands.
    pub instances: BTreeMap<InstanceId, Step>,
    /// When it began.
    pub started_at: Option<UnixMs>,
    /// When it was done.
    pub ended_at: Option<UnixMs>,
    /// The step of its strategy that it belongs to, counted from 1; zero where stages are all there is.
    #[serde(default)]
    pub step: u32,
    /// The share of the requests that it brings to the new release; `None` where it shares them by instances.
    #[serde(default)]
    pub weight: Option<Weight>,
    /// What the evidence answered, with the data of each answer.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// The two releases compared, where the stage compares them.
    #[serde(default)]
    pub comparison: Option<Comparison>,
}

/// How a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// Not begun.
    Pending,
    /// Its instances are being changed.
    Running,
    /// Its instances are changed and healthy; a gate (bake, approval) is waited for.
    Baking,
    /// Done.
    Done,
    /// Failed.
    Failed,
}

/// How one instance of a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Not begun.
    Pending,
    /// Being changed, or not healthy for long enough yet.
    Changing,
    /// At the new release and healthy.
    Done,
    /// It failed.
    Failed,
    /// Its node is silent; it will follow when it is back.
    Deferred,
}
