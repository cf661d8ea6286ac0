//! The invariants of `ARCHITECTURE.md`, one function or a few for each, by their names there. They judge what was
//! done by what is true and by what the deciding process could know; they share no code with what they judge.

mod capacity;
mod durable;
mod gates;
mod generations;
mod hosts;
mod radius;
mod traffic;

pub(crate) use capacity::{acked_drain, capacity_floor, capacity_in_truth};
pub(crate) use durable::{acked_is_durable, memory_grows, published_is_durable, taken_is_durable};
pub(crate) use gates::gate_holds;
pub(crate) use generations::{said_generation_grows, stored_generation_grows, taken_generation_grows};
pub(crate) use hosts::{no_foreign_kill, verified_bytes};
pub(crate) use radius::{blast_radius, note_healthy};
pub(crate) use traffic::{LEASE_MS, capacity_at_gateways, sent_to_the_living, stopped_unknown};

use super::coordinator::Coordinator;
use super::store::Store;
use baton_engine::outcome::Assignment;
use baton_model::id::{InstanceId, NodeName, ServiceName};
use baton_model::observed::InstanceObserved;

/// An invariant holds, or its name and what broke it.
pub(crate) type Holds = Result<(), (&'static str, String)>;

/// A node that was not heard for this long is silent.
const SILENT_MS: u64 = 3000;

fn broken(invariant: &'static str, detail: String) -> Holds {
    Err((invariant, detail))
}

/// All instances of a service in the stored plans.
fn assigned<'a>(
    store: &'a Store,
    name: &'a ServiceName,
) -> impl Iterator<Item = (&'a NodeName, &'a InstanceId, &'a Assignment)> {
    let all = store
        .plans
        .iter()
        .flat_map(|(node, record)| record.value.assignments.iter().map(move |(id, given)| (node, id, given)));
    all.filter(move |(_, id, _)| id.service == *name)
}

fn seen<'a>(decided: &'a Coordinator, node: &NodeName, id: &InstanceId) -> Option<&'a InstanceObserved> {
    let heard = decided.seen.nodes.get(node)?;
    let silent = decided.decided_at.0.saturating_sub(heard.last_heard.0) >= SILENT_MS;
    heard.instances.get(id).filter(|_| !silent)
}
