//! What a rollout may not do in one decision: pass a gate that is shut, or change more than its stage.

use super::{Change, Violation, reassigned, violation};
use crate::gate::analysis;
use crate::gate::bake;
use crate::gate::health::{self, Health};
use crate::gate::hold;
use crate::nodes::zone_label;
use crate::progress::{RolloutProgress, ServiceProgress, Slot, StageProgress};
use baton_model::time::Millis;
use std::collections::BTreeSet;

/// Invariant 4: no stage begins or ends past a gate that did not pass.
pub(super) fn gate_holds(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let Some(rollout) = change.after.rollout().or(change.after.memory.rollout.as_ref()) else { return };
    let before = change.before.memory.rollout.as_ref().filter(|before| before.id == rollout.id);
    let turned_now = rollout.back() && !before.is_some_and(RolloutProgress::back);
    for (index, stage) in rollout.stages.iter().enumerate() {
        let old = before.and_then(|before| before.stages.get(index)).filter(|old| old.title == stage.title);
        let started_now = stage.started_at.is_some() && old.is_none_or(|old| old.started_at.is_none());
        let ended_now = stage.ended_at.is_some() && old.is_none_or(|old| old.ended_at.is_none());
        let mut say = |what: &str| {
            let detail = format!("{}: rollout {}, {}: {what}", change.after.name, rollout.id, stage.title);
            violations.push(violation("gate-holds", detail));
        };
        if started_now && rollout.stages[..index].iter().any(|earlier| earlier.ended_at.is_none()) {
            say("begins before the stage before it ended");
        }
        if started_now {
            check_start(change, rollout, stage, index, &mut say);
        }
        // Turning round ends the forward stages as they stand; that is no gate passed.
        let cut_short = turned_now && rollout.turned_at.is_some_and(|turn| index < turn);
        if ended_now && !cut_short {
            check_end(change, rollout, stage, index, &mut say);
        }
    }
}

fn check_start(
    change: &Change<'_>,
    rollout: &RolloutProgress,
    stage: &StageProgress,
    index: usize,
    say: &mut impl FnMut(&str),
) {
    let control = &change.after.service.control;
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let unstarted = StageProgress { started_at: None, ..stage.clone() };
    if hold::unapproved(control, rollout, &unstarted, number) {
        say("begins without approval");
    }
    if hold::paused(control, rollout) {
        say("begins in a pause");
    }
}

fn check_end(
    change: &Change<'_>,
    rollout: &RolloutProgress,
    stage: &StageProgress,
    index: usize,
    say: &mut impl FnMut(&str),
) {
    let (after, now) = (&change.after, change.after.now);
    let goal = rollout.goal().and_then(|goal| after.release(goal));
    let Some(policy) = goal.map(|release| &release.spec.rollout) else { return };
    let failed = u32::try_from(stage.failed.len()).unwrap_or(u32::MAX);
    let whole = u32::try_from(stage.cohort.len()).unwrap_or(u32::MAX);
    if !rollout.back() {
        if failed > policy.failure_tolerance.floor_of(whole) {
            say("ends with more failures than tolerated");
        }
        let baked =
            stage.healthy_at.is_some_and(|at| bake::bakes_until(at, Millis(stage.bake_ms), now).is_none());
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let skipped = hold::promoted(&after.service.control, rollout, number);
        if !baked && !skipped {
            say("ends before it has baked");
        }
        let moves = stage.switches || stage.traffic.is_some();
        let known = stage.shifted_in.or(after.memory.route.current.as_ref().map(|route| route.revision));
        let gateways = &after.sightings.gateways;
        if moves && known.is_some_and(|revision| gateways.behind(after.name, revision).is_some()) {
            say("ends before every gateway has acknowledged what it did to the traffic");
        }
        // Asked of what was there before and of what is there after: in between, the decision may have moved on.
        let analysed = || {
            [&change.before, after]
                .iter()
                .any(|turn| analysis::passed(&analysis::of(turn, rollout.to, stage, &policy.analysis)))
        };
        if stage.analysed && !skipped && !analysed() {
            say("ends although its analysis has not passed");
        }
    }
    for number in stage.cohort.iter().filter(|number| !stage.failed.contains_key(number)) {
        let Some(slot) = after.memory.slots.get(number).filter(|slot| !slot.retiring) else { continue };
        let health = health::ask(after, *number, slot, policy.min_healthy);
        let told = |slot: &Slot| (slot.release, slot.attempt);
        let told_now = change.before.memory.slots.get(number).map(told) != Some(told(slot));
        if health != Health::Lost && (health != Health::Healthy || told_now) {
            say(&format!("ends although slot {number} is not healthy: {health:?}"));
        }
    }
}

/// Invariant 6: one decision changes the release of slots of one stage only, and a stage is no larger than the batch.
/// What ends may also tell slots on nodes that cannot be reached; they follow when they are back.
pub(super) fn blast_radius(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let after = &change.after;
    let Some(rollout) = &after.memory.rollout else { return };
    let reachable: Vec<u64> = reassigned(change).into_keys().filter(|number| after.heard(*number)).collect();
    let one = rollout.stages.iter().any(|stage| reachable.iter().all(|number| stage.cohort.contains(number)));
    if !reachable.is_empty() && !one {
        let detail = format!("{}: slots {reachable:?} change and are not of one stage", after.name);
        violations.push(violation("blast-radius", detail));
    }
    let goal = rollout.goal().and_then(|goal| after.release(goal));
    let Some(spec) = goal.map(|release| &release.spec) else { return };
    if spec.rollout.zone_at_a_time && !rollout.back() && !reachable.is_empty() {
        one_zone(change, &reachable, zone_label(&spec.placement), violations);
    }
    let policy = &spec.rollout;
    let whole = u32::try_from(rollout.stages.iter().map(|stage| stage.cohort.len()).sum::<usize>())
        .unwrap_or(u32::MAX);
    let batch = policy.batch.floor_of(whole).max(1);
    let current = rollout.current().map(|index| &rollout.stages[index]);
    let in_batches = |stage: &StageProgress| !stage.places && !stage.second_set;
    let too_many = |stage: &StageProgress| stage.cohort.len() > usize::try_from(batch).unwrap_or(usize::MAX);
    if let Some(stage) = current.filter(|stage| in_batches(stage) && too_many(stage)) {
        let detail = format!(
            "{}: {} changes {} slots, the batch is {batch}",
            after.name,
            stage.title,
            stage.cohort.len()
        );
        violations.push(violation("blast-radius", detail));
    }
}

/// Invariant 6, one zone at a time where asked: what begins to change is in the zone of what was changing before.
fn one_zone(change: &Change<'_>, begins: &[u64], label: &str, violations: &mut Vec<Violation>) {
    let zone = |number: &u64| change.after.node(*number).and_then(|view| view.zone(label));
    let (before, after) = (&change.before, &change.after.memory);
    let rollout = |memory: &ServiceProgress| memory.rollout.as_ref().map(|rollout| rollout.id);
    let same = rollout(&before.memory) == rollout(after);
    let stages = || after.rollout.iter().flat_map(|rollout| &rollout.stages);
    // What this decision takes for healthy or failed, or lets go, was changing until now; and a newer rollout waits only
    // for what is under way of the one before it.
    let done = |number: &u64| {
        let slot = after.slots.get(number).filter(|slot| !slot.retiring);
        let counted =
            |stage: &StageProgress| stage.healthy.contains(number) || stage.failed.contains_key(number);
        slot.is_none_or(|slot| {
            (!same || stages().any(counted)) && before.sight(*number).is_some_and(|sight| sight.settled(slot))
        })
    };
    let changing: Vec<u64> = before.changing().into_iter().filter(|number| !done(number)).collect();
    let zones: BTreeSet<Option<&str>> = begins.iter().chain(&changing).map(zone).collect();
    if zones.len() > 1 {
        let detail = format!(
            "{}: slots {begins:?} begin to change while {changing:?} do, in zones {zones:?}",
            change.after.name
        );
        violations.push(violation("blast-radius", detail));
    }
}
