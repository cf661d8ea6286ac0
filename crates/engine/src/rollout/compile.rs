//! A policy compiles once into stages. Rolling: batches of slots, the unhealthy ones first, a zone at a time where
//! asked, a longer bake after the first zone (or the first batch, without zones), approvals where asked, and at the
//! end the instances that are still missing. A rollback: batches only, since it must not wait for anybody.

use super::plan::{Plan, batch_size, ordered, stage};
use super::{sets, steps};
use crate::nodes::zone_label;
use crate::progress::{StageProgress, Traffic};
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{RolloutKind, RolloutPolicy, Strategy};
use baton_model::route::Weight;
use baton_model::spec::{Amount, ServiceSpec};
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// How the service is brought to a release: as its policy says, where something serves already. An undo does not try out
/// what has served before: it goes by batches, or where the set that ran it is still warm, by one switch.
pub(crate) fn forward(turn: &Turn<'_>, kind: RolloutKind, to: ReleaseNumber, spec: &ServiceSpec) -> Plan {
    let none = Plan { stages: Vec::new(), traffic: None, keep_warm: Millis::ZERO };
    let fresh = turn.memory.stable.is_none() || turn.serving().next().is_none();
    let has_traffic = turn.rollout().is_some_and(|rollout| rollout.traffic.is_some());
    let mut plan = if sets::is_warm(turn, to) {
        sets::switch_back(turn, to)
    } else if kind == RolloutKind::Undo && has_traffic {
        // What was being tried out loses its requests at once, as far as the rest can take them.
        let traffic = Some(Traffic { weight: Weight::ALL, ..Traffic::default() });
        Plan { stages: rolling(turn, spec, &ordered(turn, to)), traffic, ..none }
    } else if kind == RolloutKind::Undo || fresh {
        Plan { stages: rolling(turn, spec, &ordered(turn, to)), ..none }
    } else if spec.route.is_none() {
        // By what agents report of it: no gateway counts its requests.
        Plan { stages: watched(turn, spec, to), ..none }
    } else {
        match &spec.rollout.strategy {
            Strategy::Rolling => Plan { stages: watched(turn, spec, to), ..none },
            Strategy::Canary(canary) => steps::canary(turn, canary, to, spec),
            Strategy::Ab(test) => steps::ab(turn, test, to, spec),
            Strategy::BlueGreen(it) => sets::blue_green(it, to, spec),
            Strategy::Dark(it) => sets::dark(it, to, spec),
        }
    };
    let has_second_set = plan.stages.iter().any(|stage| stage.second_set);
    let live = u32::try_from(turn.serving().count()).unwrap_or(u32::MAX);
    let wanted = turn.wanted(spec);
    if wanted > live && !has_second_set {
        let title = if live == 0 { format!("first {wanted}") } else { format!("{} more", wanted - live) };
        plan.stages.push(StageProgress { places: true, ..stage(title, BTreeSet::new()) });
    }
    approve(&mut plan.stages, &spec.rollout);
    plan
}

/// Marks the stages that wait for an operator: by their number, or where the strategy has steps, by their step's. A first
/// release and an undo have no steps.
fn approve(stages: &mut [StageProgress], policy: &RolloutPolicy) {
    let in_steps = policy.strategy != Strategy::Rolling;
    for number in &policy.approve_before {
        let index = if in_steps {
            stages.iter().position(|stage| stage.step == *number)
        } else {
            usize::try_from(*number).ok().and_then(|number| number.checked_sub(1))
        };
        if let Some(stage) = index.and_then(|index| stages.get_mut(index)) {
            stage.approval = true;
        }
    }
}

/// The stages that bring the service back to a release, at the pace of that release's own policy.
pub(crate) fn backward(turn: &Turn<'_>, to: ReleaseNumber, policy: &RolloutPolicy) -> Vec<StageProgress> {
    if sets::is_warm(turn, to) {
        return sets::switch_back(turn, to).stages;
    }
    batches(policy, &ordered(turn, to), "back")
}

/// The stages for slots that no stage of the rollout holds and that can be told their release: the place of one was
/// taken by a fresh slot while it still serves, or it was placed when the stages were already made.
pub(crate) fn left_behind(turn: &Turn<'_>, to: ReleaseNumber, policy: &RolloutPolicy) -> Vec<StageProgress> {
    let behind = turn.serving().filter(|(number, slot)| slot.release != to && turn.heard(*number));
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

/// Batches, each of which its thresholds are asked about.
fn watched(turn: &Turn<'_>, spec: &ServiceSpec, to: ReleaseNumber) -> Vec<StageProgress> {
    let stages = rolling(turn, spec, &ordered(turn, to)).into_iter();
    stages.map(|stage| StageProgress { analysed: true, ..stage }).collect()
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
