//! A policy compiles once into stages. Rolling: batches of slots, the unhealthy ones first, a zone at a time where
//! asked, a longer bake after the first zone (or the first batch, without zones), approvals where asked, and at the
//! end the instances that are still missing. A rollback: batches only, since it must not wait for anybody.

use crate::nodes::zone_label;
use crate::progress::StageProgress;
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{RolloutPolicy, Strategy};
use baton_model::spec::{Amount, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// The stages that bring the service to a release.
pub(crate) fn forward(turn: &Turn<'_>, to: ReleaseNumber, spec: &ServiceSpec) -> Vec<StageProgress> {
    let mut stages = match spec.rollout.strategy {
        Strategy::Rolling => rolling(turn, spec, &ordered(turn, to)),
    };
    let live = u32::try_from(turn.live().count()).unwrap_or(u32::MAX);
    let wanted = turn.wanted(spec);
    if wanted > live {
        let title = if live == 0 { format!("first {wanted}") } else { format!("{} more", wanted - live) };
        stages.push(StageProgress { places: true, ..stage(title, BTreeSet::new()) });
    }
    for number in &spec.rollout.approve_before {
        let index = usize::try_from(*number).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(stage) = stages.get_mut(index) {
            stage.approval = true;
        }
    }
    stages
}

/// The stages that bring the service back to a release, at the pace of that release's own policy.
pub(crate) fn backward(turn: &Turn<'_>, to: ReleaseNumber, policy: &RolloutPolicy) -> Vec<StageProgress> {
    batches(policy, &ordered(turn, to), "back")
}

/// The stages for slots that no stage of the rollout holds and that can be told their release: the place of one was
/// taken by a fresh slot while it still serves, or it was placed when the stages were already made.
pub(crate) fn left_behind(turn: &Turn<'_>, to: ReleaseNumber, policy: &RolloutPolicy) -> Vec<StageProgress> {
    let behind = turn.live().filter(|(number, slot)| slot.release != to && turn.heard(*number));
    let slots: Vec<u64> = behind.map(|(number, _)| number).collect();
    // Zones are told apart by stages of one.
    let policy = if policy.zone_at_a_time {
        &RolloutPolicy { batch: Amount::Number(1), ..policy.clone() }
    } else {
        policy
    };
    batches(policy, &slots, "left behind")
}

fn batches(policy: &RolloutPolicy, slots: &[u64], what: &str) -> Vec<StageProgress> {
    let size = batch_size(policy, slots.len());
    let batches = slots.chunks(size).len();
    let numbered = slots.chunks(size).enumerate();
    let title = |index: usize| format!("{what}, batch {} of {batches}", index + 1);
    numbered.map(|(index, batch)| stage(title(index), batch.iter().copied().collect())).collect()
}

fn rolling(turn: &Turn<'_>, spec: &ServiceSpec, slots: &[u64]) -> Vec<StageProgress> {
    let size = batch_size(&spec.rollout, slots.len());
    let mut stages = Vec::new();
    if !spec.rollout.zone_at_a_time {
        let batches = slots.chunks(size).len();
        for (i, batch) in slots.chunks(size).enumerate() {
            stages.push(stage(format!("batch {} of {batches}", i + 1), batch.iter().copied().collect()));
        }
        if let Some(first) = stages.first_mut() {
            first.bake_ms = spec.rollout.first_zone_bake.0;
        }
        return stages;
    }
    for (index, (zone, slots)) in by_zone(turn, spec, slots).into_iter().enumerate() {
        let batches = slots.chunks(size).len();
        for (i, batch) in slots.chunks(size).enumerate() {
            stages.push(stage(
                format!("zone {zone}, batch {} of {batches}", i + 1),
                batch.iter().copied().collect(),
            ));
        }
        if let Some(last) = stages.last_mut().filter(|_| index == 0) {
            last.bake_ms = spec.rollout.first_zone_bake.0;
        }
    }
    stages
}

/// The slots that are not at `to` yet, those out of service first: they have nothing to lose.
fn ordered(turn: &Turn<'_>, to: ReleaseNumber) -> Vec<u64> {
    let changing = turn.live().filter(|(number, slot)| slot.release != to || !runs(turn, *number, to));
    let mut slots: Vec<(bool, u64)> =
        changing.map(|(number, slot)| (turn.secure(number, slot), number)).collect();
    slots.sort_unstable();
    slots.into_iter().map(|(_, number)| number).collect()
}

fn runs(turn: &Turn<'_>, number: u64, release: ReleaseNumber) -> bool {
    turn.available(number) && turn.seen(number).is_some_and(|seen| seen.release == release)
}

/// Groups slots by the zone of their node, in the order of the zones' names; nodes without the label come last.
fn by_zone(turn: &Turn<'_>, spec: &ServiceSpec, slots: &[u64]) -> Vec<(String, Vec<u64>)> {
    let label = zone_label(&spec.placement);
    let mut zones: BTreeMap<(bool, String), Vec<u64>> = BTreeMap::new();
    for number in slots {
        let zone = turn.node(*number).and_then(|view| view.zone(label)).map(str::to_owned);
        let key = zone.map_or_else(|| (true, "unknown".to_owned()), |zone| (false, zone));
        zones.entry(key).or_default().push(*number);
    }
    zones.into_iter().map(|((_, zone), slots)| (zone, slots)).collect()
}

fn batch_size(policy: &RolloutPolicy, slots: usize) -> usize {
    let whole = u32::try_from(slots).unwrap_or(u32::MAX);
    usize::try_from(policy.batch.floor_of(whole)).unwrap_or(usize::MAX).max(1)
}

fn stage(title: String, cohort: BTreeSet<u64>) -> StageProgress {
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
    }
}
