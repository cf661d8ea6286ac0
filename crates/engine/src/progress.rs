//! What is remembered between decisions: an input and an output, stored per service.

use baton_model::id::{NodeName, ReleaseNumber, RolloutId, RouteRevision, RunNumber, ServiceName};
use baton_model::report::RolloutReport;
use baton_model::rollout::{Comparison, RolloutOutcome, Verdict};
use baton_model::route::{Between, Mirror, Route, Rule, Trial, UpstreamId, Weight};
use baton_model::time::{Millis, UnixMs};
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
    /// The set of slots that stands beside the one that serves, of which a return takes no start.
    #[serde(default)]
    pub warm: Option<Warm>,
    /// What gateways are told to do with its requests.
    #[serde(default)]
    pub route: RouteProgress,
}

impl ServiceProgress {
    /// What stays of a service that is gone; nothing of one that never had a slot.
    #[must_use]
    pub fn forgotten(&self) -> Option<Self> {
        let route = RouteProgress { revision: self.route.revision, ..RouteProgress::default() };
        (self.last_slot > 0).then(|| Self { last_slot: self.last_slot, route, ..Self::default() })
    }

    /// Whether this is what stays of a service that is gone.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        let Self { stable, last_slot: _, slots, rollout, history, silent, warm, route } = self;
        let remembered = stable.is_none() && rollout.is_none() && history.is_empty() && silent.is_empty();
        remembered && slots.is_empty() && warm.is_none() && route.is_quiet()
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
    /// It belongs to a second set that stands beside the one that serves: it counts neither as wanted nor for the floor.
    #[serde(default)]
    pub beside: bool,
    /// See `InstancePlan::released`.
    #[serde(default)]
    pub released: RunNumber,
    /// What its node is still told: what is wanted of it stops its run, which first leaves the gateways.
    #[serde(default)]
    pub told: Option<Told>,
}

/// What a node was told of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The release.
    pub release: ReleaseNumber,
    /// The attempt.
    pub attempt: u32,
}

/// A set that served until a switch and runs on for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// What it runs.
    pub release: ReleaseNumber,
    /// It retires then.
    pub until: UnixMs,
}

/// The memory of a service's route: what gateways are told now, and since which revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteProgress {
    /// The last revision that was given; only grows, also while there is no route.
    pub revision: RouteRevision,
    /// What gateways are to do now, under [`RouteProgress::revision`]; `None` where nothing is routed. The whole table
    /// of a fleet is the routes of all its services: [`crate::route::routes`].
    pub current: Option<Route>,
    /// The revision since which each run is named, of all that the route names. A run is available once every live
    /// gateway has acknowledged it.
    pub entered: BTreeMap<UpstreamId, RouteRevision>,
    /// Runs that the route named, which may still be sent requests or have some in flight.
    pub left: BTreeMap<UpstreamId, Departure>,
}

impl RouteProgress {
    /// Nothing is routed and nothing is on its way out.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let Self { revision: _, current, entered, left } = self;
        current.is_none() && entered.is_empty() && left.is_empty()
    }
}

/// A run on its way out of the gateways. It may be stopped once every live gateway has acknowledged the revision and
/// has nothing in flight to it, or the time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The first revision that does not name it.
    pub revision: RouteRevision,
    /// When that revision was made.
    pub since: UnixMs,
    /// It is waited for until then: [`Departure::since`] and its release's `stop.drain`.
    pub until: UnixMs,
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
    /// How long the set that served before runs on when it has succeeded by a switch.
    #[serde(default)]
    pub keep_warm: Millis,
    /// What it does to the traffic now, as far as capacity allows; `None` shares it by ready instances.
    #[serde(default)]
    pub traffic: Option<Traffic>,
}

impl RolloutProgress {
    /// The two releases that are compared now.
    pub(crate) fn trial(&self) -> Option<Trial> {
        self.trial_between(self.traffic.as_ref()?.trial.clone()?)
    }

    /// The two releases that a stage compares.
    pub(crate) fn trial_of(&self, stage: &StageProgress) -> Option<Trial> {
        self.trial_between(stage.traffic.as_ref()?.trial.clone()?)
    }

    fn trial_between(&self, between: Between) -> Option<Trial> {
        Some(Trial { rollout: self.id, control: self.from?, treatment: self.to, between })
    }
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
    /// What it does to the traffic once its cohort is healthy; `None` leaves it as it is.
    #[serde(default)]
    pub traffic: Option<Traffic>,
    /// When its cohort was healthy for the first time, and its traffic came into force: the evidence begins here.
    #[serde(default)]
    pub shifted_at: Option<UnixMs>,
    /// The revision of the route by which its traffic is in force; the stage ends once every live gateway has acknowledged it.
    #[serde(default)]
    pub shifted_in: Option<RouteRevision>,
    /// The step of the strategy that it belongs to, counted from 1; zero where stages are all there is.
    #[serde(default)]
    pub step: u32,
    /// Its cohort is the whole set beside the one that serves, and it places what is missing of it.
    #[serde(default)]
    pub second_set: bool,
    /// Once its cohort is healthy, the set beside and the set that serves change places.
    #[serde(default)]
    pub switches: bool,
    /// The thresholds of its policy must be answered well before it is done.
    #[serde(default)]
    pub analysed: bool,
    /// What the evidence answered last, by the order of the thresholds.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    /// Restarts that were counted when an operator had looked at them: they count no more.
    #[serde(default)]
    pub restarts_before: u64,
    /// The evidence was bad for this reason, and the policy wants an operator to look.
    #[serde(default)]
    pub held: Option<String>,
    /// The two releases compared, once the stage no longer compares them.
    #[serde(default)]
    pub comparison: Option<Comparison>,
}

impl StageProgress {
    /// Whether it places in the set that stands beside the one that serves: after a switch, what stands beside is the set that
    /// served before, and of that nothing is missing.
    pub(crate) fn places_beside(&self) -> bool {
        self.second_set && !(self.switches && self.shifted_at.is_some())
    }
}

/// What a stage does to the traffic of its service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// The share of the rollout's new release, in either direction; the release before gets the rest.
    pub weight: Weight,
    /// Requests that go to one release whatever the weight says.
    pub rules: Vec<Rule>,
    /// Copies of requests.
    pub mirror: Option<Mirror>,
    /// New requests wait at the gateways meanwhile.
    pub held: bool,
    /// By what the two releases of the rollout are compared.
    #[serde(default)]
    pub trial: Option<Between>,
}
