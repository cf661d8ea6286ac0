//! `generation-grows`: plans only go forward.

use super::{Holds, broken};
use crate::world::ledger::Ledger;
use baton_engine::cycle::PlanRecord;
use baton_model::id::{Generation, InstanceId, NodeName, ReleaseNumber};
use baton_model::plan::NodePlan;
use std::collections::BTreeMap;

/// `generation-grows`, in the store.
pub(crate) fn stored_generation_grows(node: &NodeName, old: Option<&PlanRecord>, new: &PlanRecord) -> Holds {
    match old {
        Some(old) if new.generation <= old.generation => broken(
            "generation-grows",
            format!("{node}: stored plan {} is followed by {}", old.generation, new.generation),
        ),
        Some(_) | None => Ok(()),
    }
}

/// `generation-grows`, on a node: it never takes an older plan, nor another one of the same generation.
pub(crate) fn taken_generation_grows(ledger: &mut Ledger, has: Generation, plan: &NodePlan) -> Holds {
    let (node, generation) = (plan.node.clone(), plan.generation);
    if generation < has {
        return broken("generation-grows", format!("{node} has plan {has} and takes {generation}"));
    }
    let wanted: BTreeMap<InstanceId, (ReleaseNumber, u32)> =
        plan.instances.iter().map(|(id, plan)| (id.clone(), (plan.release, plan.attempt))).collect();
    let first = ledger.taken.entry((node.clone(), generation)).or_insert_with(|| wanted.clone());
    if *first == wanted {
        return Ok(());
    }
    broken("generation-grows", format!("{node}: there are two plans {generation}: {first:?} and {wanted:?}"))
}

/// `generation-grows`, in what an agent says.
pub(crate) fn said_generation_grows(node: &NodeName, highest: Generation, generation: Generation) -> Holds {
    if generation >= highest {
        return Ok(());
    }
    broken(
        "generation-grows",
        format!("{node} said that it has plan {highest}, and now that it has {generation}"),
    )
}
