//! `blast-radius`: how much changes at once.

use super::{Holds, assigned, broken, seen};
use crate::world::coordinator::Coordinator;
use crate::world::ledger::Ledger;
use crate::world::store::Store;
use baton_engine::cycle::PlanRecord;
use baton_engine::progress::RolloutProgress;
use baton_model::id::{NodeName, ReleaseNumber, ServiceName};
use baton_model::observed::{InstanceState, SwapPhase};
use baton_model::spec::ServiceSpec;
use std::collections::BTreeSet;

/// What was healthy since it was changed no longer counts as being changed, whatever becomes of it later.
pub(crate) fn note_healthy(ledger: &mut Ledger, store: &Store, decided: &Coordinator) {
    for (name, (_, back, slots)) in &mut ledger.changing {
        let rollout = store.progress.get(name).and_then(|record| record.value.rollout.as_ref());
        let goal = rollout.and_then(|rollout| if *back { rollout.from } else { Some(rollout.to) });
        let Some(goal) = goal else { continue };
        slots.retain(|slot| still_changing(store, decided, name, *slot, goal));
    }
}

/// `blast-radius`: no more instances are being changed by a rollout than its batch, and in one zone where so asked.
/// What was healthy since, has failed, or is on a silent node no longer counts.
pub(crate) fn blast_radius(
    ledger: &mut Ledger,
    store: &Store,
    decided: &Coordinator,
    node: &NodeName,
    old: Option<&PlanRecord>,
    new: &PlanRecord,
) -> Holds {
    let services: BTreeSet<&ServiceName> = new.assignments.keys().map(|id| &id.service).collect();
    for name in services {
        let Some(rollout) = store.progress.get(name).and_then(|record| record.value.rollout.as_ref()) else {
            continue;
        };
        let back = rollout.turned_at.is_some();
        let goal = if back { rollout.from } else { Some(rollout.to) };
        let Some((goal, _)) = goal.zip(rollout.from).filter(|_| !rollout.outcome.is_final()) else {
            continue;
        };
        let (id, was_back, slots) = ledger.changing.entry(name.clone()).or_default();
        if (*id, *was_back) != (rollout.id, back) {
            (*id, *was_back) = (rollout.id, back);
            slots.clear();
        }
        for (id, given) in
            new.assignments.iter().filter(|(id, given)| id.service == *name && given.release == goal)
        {
            let changed = old
                .and_then(|old| old.assignments.get(id))
                .is_some_and(|before| before.release != given.release);
            if changed {
                slots.insert(id.slot);
            }
        }
        slots.retain(|slot| still_changing(store, decided, name, *slot, goal));
        let Some(spec) = store
            .desired
            .services
            .get(name)
            .and_then(|service| service.releases.get(&goal))
            .map(|release| &release.spec)
        else {
            continue;
        };
        if spec.rollout.zone_at_a_time && !back {
            one_zone(store, name, rollout, slots, spec)?;
        }
        let whole = u32::try_from(assigned(store, name).count()).unwrap_or(u32::MAX);
        let most = usize::try_from(spec.rollout.batch.floor_of(whole).max(1)).unwrap_or(usize::MAX);
        let tolerated = usize::try_from(spec.rollout.failure_tolerance.floor_of(whole)).unwrap_or(0);
        if slots.len() > most + tolerated {
            let detail =
                format!("{name}: with the plan of {node}, slots {slots:?} change at once, {most} may");
            return broken("blast-radius", detail);
        }
    }
    Ok(())
}

/// `blast-radius`, one zone at a time: what a rollout changes and has not given up is in one zone.
fn one_zone(
    store: &Store,
    name: &ServiceName,
    rollout: &RolloutProgress,
    slots: &BTreeSet<u64>,
    spec: &ServiceSpec,
) -> Holds {
    let label = spec.placement.spread.as_deref().unwrap_or("zone");
    let memory = store.progress.get(name).map(|record| &record.value);
    let zone = |slot: &u64| {
        let node = &memory?.slots.get(slot)?.node;
        Some(store.desired.nodes.get(node)?.labels.get(label).cloned())
    };
    let given_up = |slot: &&u64| rollout.stages.iter().any(|stage| stage.failed.contains_key(slot));
    let zones: BTreeSet<Option<String>> =
        slots.iter().filter(|slot| !given_up(slot)).filter_map(zone).collect();
    if zones.len() > 1 {
        return broken("blast-radius", format!("{name}: slots {slots:?} change at once, in zones {zones:?}"));
    }
    Ok(())
}

fn still_changing(
    store: &Store,
    decided: &Coordinator,
    name: &ServiceName,
    slot: u64,
    goal: ReleaseNumber,
) -> bool {
    let Some((node, id, _)) =
        assigned(store, name).find(|(_, id, given)| id.slot == slot && given.release == goal)
    else {
        return false;
    };
    // A decision that takes a slot away and lets the next one change writes its plans one by one.
    let kept = store
        .progress
        .get(name)
        .and_then(|record| record.value.slots.get(&slot))
        .is_some_and(|slot| !slot.retiring);
    match seen(decided, node, id).filter(|_| kept) {
        None => false,
        Some(seen) => match &seen.swap {
            Some(swap) => {
                swap.to == goal && swap.phase != SwapPhase::Failed && swap.phase != SwapPhase::DrainingOld
                    || seen.release != goal && swap.phase != SwapPhase::Failed
            }
            None => {
                seen.release != goal
                    || seen.state == InstanceState::Starting && seen.ready_since.is_none() && !seen.crash_loop
            }
        },
    }
}
