//! The invariants of `ARCHITECTURE.md`, one function or a few for each, by their names there. They judge what was
//! done by what is true and by what the deciding process could know; they share no code with what they judge.

use super::coordinator::Coordinator;
use super::ledger::Ledger;
use super::mutation::Mutation;
use super::node::Node;
use super::store::Store;
use super::workload::Run;
use baton_engine::cycle::PlanRecord;
use baton_engine::outcome::Assignment;
use baton_engine::progress::{RolloutProgress, ServiceProgress, StageProgress};
use baton_model::id::{Generation, InstanceId, NodeName, ReleaseNumber, RunNumber, ServiceName};
use baton_model::observed::{InstanceObserved, InstanceState, SwapPhase};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::report::RolloutReport;
use baton_model::rollout::{RolloutControl, RolloutOutcome};
use baton_model::spec::{Count, PortKind, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// An invariant holds, or its name and what broke it.
pub(crate) type Holds = Result<(), (&'static str, String)>;

/// A node that was not heard for this long is silent.
const SILENT_MS: u64 = 3000;

fn broken(invariant: &'static str, detail: String) -> Holds {
    Err((invariant, detail))
}

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
    let given = |progress: &ServiceProgress, slot: &u64| {
        let slot = progress.slots.get(slot).filter(|slot| !slot.retiring)?;
        Some((slot.node.clone(), Assignment { release: slot.release, attempt: slot.attempt }))
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
        release.is_none_or(|release| {
            release.spec.ports.values().any(|port| matches!(port.kind, PortKind::Fixed { .. }))
        })
    };
    let overlaps = !fixed(&seen.release) && !fixed(&given.release);
    let quiet = match &seen.swap {
        None => seen.release == given.release,
        Some(swap) => match swap.phase {
            SwapPhase::Failed => {
                swap.to == given.release && swap.attempt == given.attempt || seen.release == given.release
            }
            SwapPhase::DrainingOld => seen.release == given.release,
            SwapPhase::Staging | SwapPhase::StoppingOld | SwapPhase::Confirming | SwapPhase::Reverting => {
                false
            }
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
            let kept = progress.slots.values().filter(|slot| !slot.retiring && !drains(&slot.node));
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
    for (name, record) in &store.progress {
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
    let fixed =
        |spec: &ServiceSpec| spec.ports.values().any(|port| matches!(port.kind, PortKind::Fixed { .. }));
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

/// `gate-holds`: a stage ends only when its cohort is healthy, for long enough and as far as is known, and has baked;
/// the next begins only after it, and with an approval where one is asked for.
pub(crate) fn gate_holds(
    decided: &Coordinator,
    name: &ServiceName,
    old: Option<&ServiceProgress>,
    new: Option<&ServiceProgress>,
) -> Holds {
    let Some((progress, rollout)) = new.and_then(|new| Some((new, new.rollout.as_ref()?))) else {
        return Ok(());
    };
    let before = old.and_then(|old| old.rollout.as_ref()).filter(|before| before.id == rollout.id);
    let Some(service) = decided.wanted.services.get(name) else { return Ok(()) };
    let Some(spec) = service.releases.get(&rollout.to).map(|release| &release.spec) else { return Ok(()) };
    let forward = rollout.turned_at.unwrap_or(rollout.stages.len());
    let live = progress.slots.values().filter(|slot| !slot.retiring).count();
    if rollout.from.is_none()
        && rollout.outcome == RolloutOutcome::Succeeded
        && before.is_none_or(|before| !before.outcome.is_final())
        && live == 0
    {
        return broken(
            "gate-holds",
            format!("{name}: rollout {} has succeeded, and there is no instance", rollout.id),
        );
    }
    let turned_now = rollout.turned_at.is_some() && before.is_none_or(|before| before.turned_at.is_none());
    for (index, stage) in rollout.stages.iter().enumerate().take(forward) {
        let was = before.and_then(|before| before.stages.get(index));
        let began = stage.started_at.is_some() && was.is_none_or(|was| was.started_at.is_none());
        if began {
            began_rightly(name, rollout, index, stage, &service.control)?;
        }
        let ended = stage.ended_at.is_some() && was.is_none_or(|was| was.ended_at.is_none());
        if ended
            && !turned_now
            && !matches!(rollout.outcome, RolloutOutcome::Superseded | RolloutOutcome::Failed)
        {
            ended_rightly(decided, name, progress, rollout, stage, spec)?;
        }
    }
    Ok(())
}

fn began_rightly(
    name: &ServiceName,
    rollout: &RolloutProgress,
    index: usize,
    stage: &StageProgress,
    control: &RolloutControl,
) -> Holds {
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let approved = control.rollout == rollout.id && control.approved_through >= number;
    if stage.approval && !approved {
        return broken("gate-holds", format!("{name}: stage {number} began without its approval"));
    }
    if rollout.stages[..index].iter().any(|earlier| earlier.ended_at.is_none()) {
        return broken("gate-holds", format!("{name}: stage {number} began before an earlier one had ended"));
    }
    Ok(())
}

fn ended_rightly(
    decided: &Coordinator,
    name: &ServiceName,
    progress: &ServiceProgress,
    rollout: &RolloutProgress,
    stage: &StageProgress,
    spec: &ServiceSpec,
) -> Holds {
    let baked = stage
        .ended_at
        .zip(stage.healthy_at)
        .is_some_and(|(end, healthy)| end.since(healthy).0 >= stage.bake_ms);
    if !baked {
        return broken("gate-holds", format!("{name}: {} ended before it had baked", stage.title));
    }
    let all_failed =
        !stage.cohort.is_empty() && stage.cohort.iter().all(|slot| stage.failed.contains_key(slot));
    if all_failed && rollout.stages.iter().all(|stage| stage.healthy.is_empty()) {
        return broken("gate-holds", format!("{name}: {} ended, and nothing has ever come up", stage.title));
    }
    for slot in stage.cohort.iter().filter(|slot| !stage.failed.contains_key(slot)) {
        let Some(memory) = progress.slots.get(slot).filter(|memory| !memory.retiring) else { continue };
        let id = InstanceId { service: name.clone(), slot: *slot };
        let last_heard =
            decided.seen.nodes.get(&memory.node).map_or(decided.seen.listening_since, |node| node.last_heard);
        let silent_for = decided.decided_at.since(last_heard);
        let lost =
            silent_for >= spec.placement.lost_after || !decided.wanted.nodes.contains_key(&memory.node);
        let healthy = seen(decided, &memory.node, &id).is_some_and(|seen| {
            let settled = seen
                .ready_since
                .is_some_and(|since| since.plus(spec.rollout.min_healthy) <= decided.decided_at);
            seen.release == rollout.to && seen.state == InstanceState::Ready && settled
        });
        if !healthy && !lost {
            return broken(
                "gate-holds",
                format!("{name}: {} ended while {id} on {} was not healthy", stage.title, memory.node),
            );
        }
    }
    Ok(())
}

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
    let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
    let id = |progress: &ServiceProgress| progress.rollout.as_ref().map(|rollout| rollout.id);
    if id(new) < id(old) {
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

/// `verified-bytes`: what is executed is what the digest says.
pub(crate) fn verified_bytes(node: &NodeName, id: &InstanceId, intact: Option<bool>) -> Holds {
    match intact {
        Some(true) => Ok(()),
        Some(false) => {
            broken("verified-bytes", format!("{node} executes {id} from bytes that are not its release's"))
        }
        None => broken("verified-bytes", format!("{node} executes {id} from nowhere")),
    }
}

/// `no-foreign-kill`: only a run whose shim has proven itself is signalled. The process id of one that is gone may be
/// anybody's by now.
pub(crate) fn no_foreign_kill(
    id: &InstanceId,
    number: RunNumber,
    run: Option<&Run>,
    mutation: Option<Mutation>,
) -> Holds {
    if run.is_none() && mutation == Some(Mutation::IdentityUnproven) {
        return broken(
            "no-foreign-kill",
            format!("{id} run {number} is gone, and its process id was signalled"),
        );
    }
    Ok(())
}
