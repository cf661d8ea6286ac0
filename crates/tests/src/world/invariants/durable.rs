//! `acked-is-durable`: what anybody was told is in the store.

use super::{Holds, broken};
use crate::world::ledger::Ledger;
use crate::world::store::Store;
use baton_engine::progress::{RolloutProgress, ServiceProgress};
use baton_model::id::{Generation, InstanceId, ServiceName};
use baton_model::plan::NodePlan;
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;

/// `acked-is-durable`: what operators were told is wanted is in the store, or something newer is.
pub(crate) fn acked_is_durable(ledger: &Ledger, store: &Store) -> Holds {
    for (name, (request, control)) in &ledger.told {
        let stored = store
            .desired
            .services
            .get(name)
            .and_then(|service| Some((service.request.as_ref()?, &service.control)));
        let kept =
            stored.is_some_and(|(has, with)| has.id > request.id || (has == request && with == control));
        if !kept {
            let id = request.id;
            return broken(
                "acked-is-durable",
                format!("{name}: an operator was told that rollout {id} is taken; the store has not got it"),
            );
        }
    }
    Ok(())
}

/// `acked-is-durable`: a report says nothing of a rollout that the store does not say.
pub(crate) fn published_is_durable(
    name: &ServiceName,
    told: &RolloutReport,
    stored: Option<&RolloutProgress>,
) -> Holds {
    let kept = stored.is_some_and(|stored| {
        stored.id > told.id || (stored.id == told.id && stored.outcome == told.outcome)
    });
    if kept {
        return Ok(());
    }
    let has = stored.map(|stored| (stored.id, stored.outcome));
    broken(
        "acked-is-durable",
        format!("{name}: rollout {} was published as {:?}, the store has {has:?}", told.id, told.outcome),
    )
}

/// `acked-is-durable` and `generation-grows`, for the memory of a service: rollouts and slot numbers only grow, what
/// has ended stays ended, a slot never moves and never comes again.
pub(crate) fn memory_grows(
    ledger: &mut Ledger,
    name: &ServiceName,
    old: Option<&ServiceProgress>,
    new: Option<&ServiceProgress>,
) -> Holds {
    if new.is_none_or(ServiceProgress::is_forgotten) {
        // It was removed and is forgotten; a later deploy makes another service of the same name. Its slots go on.
        ledger.ended.remove(name);
    }
    let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
    let id = |progress: &ServiceProgress| progress.rollout.as_ref().map(|rollout| rollout.id);
    if id(new) < id(old) && !ledger.removed.contains(name) {
        return broken(
            "acked-is-durable",
            format!("{name}: rollout {:?} is followed by rollout {:?}", id(old), id(new)),
        );
    }
    if let Some((ended, outcome)) = ledger.ended.get(name)
        && let Some(rollout) = new.rollout.as_ref().filter(|rollout| rollout.id == *ended)
        && rollout.outcome != *outcome
        && *outcome != RolloutOutcome::Failed
    {
        let detail =
            format!("{name}: rollout {ended} was told to be {outcome:?} and is now {:?}", rollout.outcome);
        return broken("acked-is-durable", detail);
    }
    for slot in old.slots.keys().filter(|slot| !new.slots.contains_key(slot)) {
        ledger.dropped.insert(InstanceId { service: name.clone(), slot: *slot });
    }
    for (slot, memory) in &new.slots {
        let id = InstanceId { service: name.clone(), slot: *slot };
        let first = ledger.slots.entry(id.clone()).or_insert_with(|| memory.node.clone());
        if *first != memory.node || ledger.dropped.contains(&id) {
            return broken(
                "generation-grows",
                format!("{id} was on {first} before and is given again, on {}", memory.node),
            );
        }
    }
    Ok(())
}

/// `acked-is-durable`, on a node: what it is told to do is stored. A plan that is not could be lost in a crash, and its
/// number given to another one.
pub(crate) fn taken_is_durable(store: &Store, plan: &NodePlan) -> Holds {
    let stored = store.plans.get(&plan.node).map_or(Generation(0), |record| record.value.generation);
    if plan.generation <= stored {
        return Ok(());
    }
    let (node, generation) = (&plan.node, plan.generation);
    broken("acked-is-durable", format!("{node} takes plan {generation}, and the store has {stored}"))
}
