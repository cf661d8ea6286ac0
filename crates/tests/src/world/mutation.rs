//! Guards broken on purpose, one at a time. Those of the engine are broken from outside: it is told a lower floor, a
//! larger batch, or healthier nodes than there are, and decides by that; what it does is judged by the truth.

use baton_engine::cycle::{Snapshot, Write};
use baton_model::desired::Desired;
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::{NodeName, RunNumber};
use baton_model::observed::{InstanceObserved, InstanceState, LogDrops, NodeFacts, NodeObserved, Observed};
use baton_model::plan::NodePlan;
use baton_model::rollout::RolloutOutcome;
use baton_model::spec::Amount;
use baton_model::time::UnixMs;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One broken guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The store writes whatever the revision.
    CompareAndSetSkipped,
    /// Plans are sent when their writes are handed over, not when they are durable.
    SentBeforeCommit,
    /// Agents take any plan, older ones too.
    GenerationIgnored,
    /// The floor is one instance lower than the operator asked for.
    FloorOffByOne,
    /// A silent or unknown instance counts as healthy.
    SilenceIsHealth,
    /// The old process of a swap is stopped without waiting for its connections.
    DrainSkipped,
    /// Agents act, and tell, before they persist.
    PersistedLate,
    /// A rollback is called done as soon as it begins.
    RollbackStopsEarly,
    /// Slot numbers are given again.
    SlotReused,
    /// All instances change at once.
    BatchIgnored,
    /// Zones change together though they should one after the other.
    ZonesIgnored,
    /// Bytes are executed without a look at their digest.
    VerifySkipped,
    /// Signals go to whatever has the process id now.
    IdentityUnproven,
    /// Operators are told "done" before their word is durable.
    ToldBeforeDurable,
    /// Every gateway counts as having acknowledged what was stored.
    AcksIgnored,
    /// No gateway counts as busy.
    InFlightIgnored,
    /// A gateway is waited for no longer than it takes to miss it.
    LeaseCutShort,
    /// Agents take every run for let go of.
    ReleaseIgnored,
    /// Gateways take any table, older ones too.
    OldTableTaken,
    /// What a gateway cannot serve counts as served.
    UnservedIgnored,
    /// Where gateways have counted nothing, all is taken to be well.
    EvidenceInvented,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::CompareAndSetSkipped,
        Self::SentBeforeCommit,
        Self::GenerationIgnored,
        Self::FloorOffByOne,
        Self::SilenceIsHealth,
        Self::DrainSkipped,
        Self::PersistedLate,
        Self::RollbackStopsEarly,
        Self::SlotReused,
        Self::BatchIgnored,
        Self::ZonesIgnored,
        Self::VerifySkipped,
        Self::IdentityUnproven,
        Self::ToldBeforeDurable,
        Self::AcksIgnored,
        Self::InFlightIgnored,
        Self::LeaseCutShort,
        Self::ReleaseIgnored,
        Self::OldTableTaken,
        Self::UnservedIgnored,
        Self::EvidenceInvented,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CompareAndSetSkipped => "compare-and-set-skipped",
            Self::SentBeforeCommit => "sent-before-commit",
            Self::GenerationIgnored => "generation-ignored",
            Self::FloorOffByOne => "floor-off-by-one",
            Self::SilenceIsHealth => "silence-is-health",
            Self::DrainSkipped => "drain-skipped",
            Self::PersistedLate => "persisted-late",
            Self::RollbackStopsEarly => "rollback-stops-early",
            Self::SlotReused => "slot-reused",
            Self::BatchIgnored => "batch-ignored",
            Self::ZonesIgnored => "zones-ignored",
            Self::VerifySkipped => "verify-skipped",
            Self::IdentityUnproven => "identity-unproven",
            Self::ToldBeforeDurable => "told-before-durable",
            Self::AcksIgnored => "acks-ignored",
            Self::InFlightIgnored => "in-flight-ignored",
            Self::LeaseCutShort => "lease-cut-short",
            Self::ReleaseIgnored => "release-ignored",
            Self::OldTableTaken => "old-table-taken",
            Self::UnservedIgnored => "unserved-ignored",
            Self::EvidenceInvented => "evidence-invented",
        }
    }

    /// Changes what the engine is told is wanted and remembered.
    pub(crate) fn distort_snapshot(self, snapshot: &mut Snapshot) {
        match self {
            Self::FloorOffByOne => for_each_spec(&mut snapshot.desired, |spec| {
                if let Amount::Number(floor) = &mut spec.min_available {
                    *floor = floor.saturating_sub(1);
                }
            }),
            Self::BatchIgnored => {
                for_each_spec(&mut snapshot.desired, |spec| spec.rollout.batch = Amount::Percent(100))
            }
            Self::ZonesIgnored => {
                for_each_spec(&mut snapshot.desired, |spec| spec.rollout.zone_at_a_time = false)
            }
            Self::SlotReused => {
                for record in snapshot.progress.values_mut() {
                    record.value.last_slot = record.value.slots.keys().next_back().copied().unwrap_or(0);
                }
            }
            Self::LeaseCutShort => snapshot.desired.gateways.clear(),
            Self::AcksIgnored
            | Self::InFlightIgnored
            | Self::ReleaseIgnored
            | Self::OldTableTaken
            | Self::UnservedIgnored
            | Self::EvidenceInvented => {}
            Self::CompareAndSetSkipped
            | Self::SentBeforeCommit
            | Self::GenerationIgnored
            | Self::SilenceIsHealth
            | Self::DrainSkipped
            | Self::PersistedLate
            | Self::RollbackStopsEarly
            | Self::VerifySkipped
            | Self::IdentityUnproven
            | Self::ToldBeforeDurable => {}
        }
    }

    /// Changes what the engine is told is seen.
    pub(crate) fn distort_observed(self, snapshot: &Snapshot, observed: &mut Observed, now: UnixMs) {
        self.distort_gateways(snapshot, observed, now);
        if self != Self::SilenceIsHealth {
            return;
        }
        for (name, plan) in &snapshot.plans {
            let generation = plan.value.generation;
            let node = observed.nodes.entry(name.clone()).or_insert_with(|| unknown_node(name, now));
            node.last_heard = now;
            node.generation = node.generation.max(generation);
            for (id, assignment) in &plan.value.assignments {
                let seen =
                    node.instances.entry(id.clone()).or_insert_with(|| healthy(assignment.release, now));
                if seen.state != InstanceState::Ready || seen.release != assignment.release {
                    *seen = healthy(assignment.release, now);
                }
            }
        }
    }

    fn distort_gateways(self, snapshot: &Snapshot, observed: &mut Observed, now: UnixMs) {
        if self == Self::LeaseCutShort {
            observed.gateways.retain(|_, gateway| now.since(gateway.last_heard).0 < 1500);
        }
        if self == Self::EvidenceInvented {
            for (name, record) in &snapshot.progress {
                let Some(rollout) = &record.value.rollout else { continue };
                let mut good = ReleaseEvidence::default();
                good.status.successful = 1000;
                let series = observed.evidence.entry(name.clone()).or_default();
                series.push(now, now, BTreeMap::from([(rollout.to, good)]));
            }
        }
        for gateway in observed.gateways.values_mut() {
            if self == Self::UnservedIgnored {
                gateway.unserved.clear();
            }
            if self == Self::InFlightIgnored {
                gateway.busy.clear();
            }
            if self == Self::AcksIgnored {
                let stored = snapshot.progress.iter();
                gateway.routes =
                    stored.map(|(name, record)| (name.clone(), record.value.route.revision)).collect();
            }
        }
    }

    /// Changes what an agent is told.
    pub(crate) fn distort_plan(self, plan: &mut NodePlan) {
        if self == Self::ReleaseIgnored {
            plan.instances.values_mut().for_each(|instance| instance.released = RunNumber(u64::MAX));
        }
    }

    /// Changes what is written.
    pub(crate) fn distort_write(self, write: &mut Write) {
        if let (Self::RollbackStopsEarly, Write::Progress(_, _, Some(progress))) = (self, write)
            && let Some(rollout) = &mut progress.rollout
            && rollout.outcome == RolloutOutcome::RollingBack
        {
            rollout.outcome = RolloutOutcome::RolledBack;
        }
    }
}

fn for_each_spec(desired: &mut Desired, change: impl Fn(&mut baton_model::spec::ServiceSpec)) {
    for service in desired.services.values_mut() {
        service.releases.values_mut().for_each(|release| change(&mut release.spec));
    }
}

fn unknown_node(_name: &NodeName, now: UnixMs) -> NodeObserved {
    let (generation, instances) = (baton_model::id::Generation(0), BTreeMap::new());
    NodeObserved { last_heard: now, generation, instances, facts: NodeFacts::default() }
}

fn healthy(release: baton_model::id::ReleaseNumber, now: UnixMs) -> InstanceObserved {
    InstanceObserved {
        release,
        state: InstanceState::Ready,
        ready_since: Some(UnixMs(now.0.saturating_sub(3_600_000))),
        run: baton_model::id::RunNumber(1),
        pid: Some(1),
        ports: BTreeMap::new(),
        restarts: 0,
        crash_loop: false,
        last_exit: None,
        reason: String::new(),
        swap: None,
        status: String::new(),
        reload: None,
        log_drops: LogDrops::default(),
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|mutation| mutation.name() == text);
        found.ok_or_else(|| format!("`{text}` is not a mutation; there are: {}", names()))
    }
}
