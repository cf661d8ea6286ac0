//! What a policy compiles to, and what all strategies make it of: stages over slots, in an order and in batches.

use crate::progress::{StageProgress, Traffic};
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::RolloutPolicy;
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// What a rollout will do.
#[derive(Debug)]
pub(super) struct Plan {
    /// Its stages, in order.
    pub(super) stages: Vec<StageProgress>,
    /// What it does to the traffic before the first of them is reached.
    pub(super) traffic: Option<Traffic>,
    /// How long the set that served before runs on.
    pub(super) keep_warm: Millis,
}

/// The slots that are not at `to` yet, those out of service first: they have nothing to lose.
pub(super) fn ordered(turn: &Turn<'_>, to: ReleaseNumber) -> Vec<u64> {
    let changing = turn.serving().filter(|(number, slot)| slot.release != to || !runs(turn, *number, to));
    let mut slots: Vec<(bool, u64)> =
        changing.map(|(number, slot)| (turn.secure(number, slot), number)).collect();
    slots.sort_unstable();
    slots.into_iter().map(|(_, number)| number).collect()
}

fn runs(turn: &Turn<'_>, number: u64, release: ReleaseNumber) -> bool {
    turn.available(number) && turn.seen(number).is_some_and(|seen| seen.release == release)
}

pub(super) fn batch_size(policy: &RolloutPolicy, slots: usize) -> usize {
    let whole = u32::try_from(slots).unwrap_or(u32::MAX);
    usize::try_from(policy.batch.floor_of(whole)).unwrap_or(usize::MAX).max(1)
}

/// A stage that changes these slots, and nothing else.
pub(super) fn stage(title: String, cohort: BTreeSet<u64>) -> StageProgress {
    StageProgress {
        title,
        cohort,
        failed: BTreeMap::new(),
        healthy: BTreeSet::new(),
        again: BTreeSet::new(),
        places: false,
        relapses: 0,
        approval: false,
        bake_ms: 0,
        started_at: None,
        healthy_at: None,
        ended_at: None,
        traffic: None,
        shifted_at: None,
        shifted_in: None,
        step: 0,
        second_set: false,
        switches: false,
        analysed: false,
        comparison: None,
        verdicts: Vec::new(),
        restarts_before: 0,
        held: None,
    }
}
