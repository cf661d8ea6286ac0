//! `capacity-floor` and `acked-drain`: what our own actions leave in service, and how they take something out.

use super::{Holds, broken, seen};
use crate::world::coordinator::Coordinator;
use crate::world::ledger::Ledger;
use crate::world::node::Node;
use crate::world::store::Store;
use crate::world::workload::Run;
use baton_engine::outcome::Assignment;
use baton_engine::progress::ServiceProgress;
use baton_model::id::{InstanceId, NodeName, ReleaseNumber, ServiceName};
use baton_model::observed::{InstanceState, SwapPhase};
use baton_model::plan::InstancePlan;
use baton_model::spec::{Count, ServiceSpec};
use std::collections::BTreeMap;

/// `capacity-floor`, by what the deciding process knew: a decision that takes a ready instance out of service leaves at
/// least the floor in service. The decision is the memory it writes; plans follow from that.
pub(crate) fn capacity_floor(
    store: &Store,
    decided: &Coordinator,
    name: &ServiceName,
    old: Option<&ServiceProgress>,
    new: Option<&ServiceProgress>,
) -> Holds {
    let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
    // What stands beside the set that serves is in nobody's service: a switch takes the one set and gives the other.
    let given = |progress: &ServiceProgress, slot: &u64| {
        let slot = progress.slots.get(slot).filter(|slot| !slot.retiring && !slot.beside)?;
        let (release, attempt, released) = (slot.release, slot.attempt, slot.released);
        Some((slot.node.clone(), Assignment { release, attempt, reload: 0, released }))
    };
    let in_service = |progress: &ServiceProgress, slot: &u64| {
        let id = InstanceId { service: name.clone(), slot: *slot };
        given(progress, slot)
            .is_some_and(|(node, given)| stays_in_service(store, decided, &node, &id, &given))
    };
    let taken: Vec<u64> =
        old.slots.keys().copied().filter(|slot| in_service(old, slot) && !in_service(new, slot)).collect();
    let Some(floor) = floor(decided, name, new).filter(|_| !taken.is_empty()) else { return Ok(()) };
    let stay = new.slots.keys().filter(|slot| in_service(new, slot)).count();
    if stay < floor {
        return broken(
            "capacity-floor",
            format!("{name}: taking slots {taken:?} leaves {stay} in service, {floor} must stay"),
        );
    }
    Ok(())
}

/// Ready as far as the process knew, and what it is told to run does not take it out of service.
fn stays_in_service(
    store: &Store,
    decided: &Coordinator,
    node: &NodeName,
    id: &InstanceId,
    given: &Assignment,
) -> bool {
    let Some(seen) = seen(decided, node, id) else { return false };
    let fixed = |number: &ReleaseNumber| {
        let release =
            store.desired.services.get(&id.service).and_then(|service| service.releases.get(number));
        release.is_none_or(|release| release.spec.ports.values().any(|port| port.kind.is_exclusive()))
    };
    let overlaps = !fixed(&seen.release) && !fixed(&given.release);
    let quiet = match &seen.swap {
        None => seen.release == given.release,
        Some(swap) => match swap.phase {
            SwapPhase::Failed => {
                swap.to == given.release && swap.attempt == given.attempt || seen.release == given.release
            }
            SwapPhase::DrainingOld => seen.release == given.release,
            SwapPhase::Staging
            | SwapPhase::StoppingOld
            | SwapPhase::Confirming
            | SwapPhase::Refreshing
            | SwapPhase::Reverting => false,
        },
    };
    seen.state == InstanceState::Ready && (quiet || overlaps)
}

/// What must stay in service; `None` while nothing is promised: before a first release stands, or once it is removed.
fn floor(decided: &Coordinator, name: &ServiceName, progress: &ServiceProgress) -> Option<usize> {
    let service = decided.wanted.services.get(name).filter(|service| !service.removed)?;
    let stable = progress.stable?;
    let spec = &service.releases.get(&stable)?.spec;
    let wanted = match spec.placement.count {
        Count::Replicas(replicas) => replicas,
        Count::PerNode => {
            // An operator who drains a node asks for one less.
            let drains = |node| decided.wanted.nodes.get(node).is_none_or(|node| node.draining);
            let serving = progress.slots.values().filter(|slot| !slot.retiring && !slot.beside);
            let kept = serving.filter(|slot| !drains(&slot.node));
            u32::try_from(kept.count()).unwrap_or(u32::MAX)
        }
    };
    usize::try_from(spec.min_available.ceil_of(wanted)).ok()
}

/// `capacity-floor`, in truth: where nothing fails but releases at their start, a service that once had its floor
/// never falls below it.
pub(crate) fn capacity_in_truth(
    ledger: &mut Ledger,
    store: &Store,
    nodes: &BTreeMap<NodeName, Node>,
) -> Holds {
    for (name, record) in store.progress.iter().filter(|(name, _)| !ledger.removed.contains(*name)) {
        let spec = record
            .value
            .stable
            .and_then(|stable| Some(&store.desired.services.get(name)?.releases.get(&stable)?.spec));
        let Some((Count::Replicas(replicas), spec)) = spec.map(|spec| (spec.placement.count, spec)) else {
            continue;
        };
        let floor = usize::try_from(spec.min_available.ceil_of(replicas)).unwrap_or(0);
        let runs = nodes.values().flat_map(|host| host.runs.iter());
        let ready = runs.filter(|((id, _), run)| id.service == *name && run.ready && run.serving).count();
        if ready < floor && ledger.armed.contains(name) {
            return broken(
                "capacity-floor",
                format!("{name}: {ready} are ready, {floor} must stay, and nothing had failed"),
            );
        }
        if ready >= floor && !ledger.armed.contains(name) {
            ledger.armed.insert(name.clone());
        }
    }
    Ok(())
}

/// `acked-drain`: a run that serves is not stopped while its connections are open, short of its drain's end. A removal
/// and a fixed port are said to cut them.
pub(crate) fn acked_drain(id: &InstanceId, run: &Run, planned: Option<&InstancePlan>, now: u64) -> Holds {
    let fixed = |spec: &ServiceSpec| spec.ports.values().any(|port| port.kind.is_exclusive());
    let Some(planned) = planned.filter(|planned| !fixed(&planned.spec)) else { return Ok(()) };
    let early = match run.drain {
        Some((ends, until)) => now < ends.min(until),
        None => run.serving && run.ready,
    };
    // A run in a crash loop may have come up since it was last asked.
    let settled = run.pid.is_some() && !run.stopping && !run.crash_loop();
    if early && settled {
        let number = run.number;
        return broken(
            "acked-drain",
            format!(
                "{id} run {number} is stopped with open connections; release {} follows",
                planned.release
            ),
        );
    }
    Ok(())
}
