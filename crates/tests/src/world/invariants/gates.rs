//! `gate-holds`: no stage begins or ends past a gate that did not pass, or that an operator wanted passed.

use super::{Holds, LEASE_MS, broken, seen};
use crate::world::coordinator::Coordinator;
use baton_engine::progress::{RolloutProgress, ServiceProgress, StageProgress};
use baton_model::id::{GatewayName, InstanceId, ServiceName};
use baton_model::observed::{GatewayObserved, InstanceState};
use baton_model::rollout::{Answer, RolloutControl, RolloutOutcome};
use baton_model::spec::ServiceSpec;

/// `gate-holds`: a stage ends only when its cohort is healthy, for long enough and as far as is known, has baked, and its
/// analysis has passed; the next begins only after it, and with an approval where one is asked for. An operator who goes on
/// to a later stage at once passes the bakes, the analysis and the approvals before it, and never the health.
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
            let ended =
                Ended { rollout, stage, skipped: promoted_through(rollout, &service.control) > index + 1 };
            ended_rightly(decided, name, progress, &ended, spec)?;
        }
    }
    Ok(())
}

/// The stage, counted from 1, that an operator wanted reached at once; zero where nobody did.
fn promoted_through(rollout: &RolloutProgress, control: &RolloutControl) -> usize {
    let asked = if control.rollout == rollout.id { control.promoted_through } else { 0 };
    usize::try_from(asked).unwrap_or(usize::MAX)
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
    if stage.approval && !approved && promoted_through(rollout, control) < index + 1 {
        return broken("gate-holds", format!("{name}: stage {number} began without its approval"));
    }
    if rollout.stages[..index].iter().any(|earlier| earlier.ended_at.is_none()) {
        return broken("gate-holds", format!("{name}: stage {number} began before an earlier one had ended"));
    }
    Ok(())
}

/// A stage that has just ended.
#[derive(Clone, Copy, Debug)]
struct Ended<'a> {
    rollout: &'a RolloutProgress,
    stage: &'a StageProgress,
    /// An operator wanted a later one reached at once.
    skipped: bool,
}

fn ended_rightly(
    decided: &Coordinator,
    name: &ServiceName,
    progress: &ServiceProgress,
    ended: &Ended<'_>,
    spec: &ServiceSpec,
) -> Holds {
    let Ended { rollout, stage, skipped } = *ended;
    let baked = stage
        .ended_at
        .zip(stage.healthy_at)
        .is_some_and(|(end, healthy)| end.since(healthy).0 >= stage.bake_ms);
    if !baked && !skipped {
        return broken("gate-holds", format!("{name}: {} ended before it had baked", stage.title));
    }
    let asked = if stage.analysed { spec.rollout.analysis.len() } else { 0 };
    let passed = stage.verdicts.iter().filter(|verdict| verdict.answer == Answer::Pass).count();
    if passed < asked && !skipped {
        return broken(
            "gate-holds",
            format!("{name}: {} ended and its analysis had not passed", stage.title),
        );
    }
    let seen_of_it = decided.seen.evidence.get(name);
    for threshold in spec.rollout.analysis.iter().filter(|it| it.metric.is_from_gateways()) {
        let since = stage.shifted_at.unwrap_or(decided.decided_at);
        let counted = seen_of_it.map_or(0, |series| series.since(rollout.to, since).asked());
        if stage.analysed && !skipped && counted < u64::from(threshold.requests_min) {
            return broken(
                "gate-holds",
                format!(
                    "{name}: {} ended by {counted} requests, {} must be",
                    stage.title, threshold.requests_min
                ),
            );
        }
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
        if healthy && let Some(gateway) = unable(decided, name, spec) {
            return broken(
                "gate-holds",
                format!("{name}: {} ended while gateway {gateway} could not serve it", stage.title),
            );
        }
        if !healthy && !lost {
            return broken(
                "gate-holds",
                format!("{name}: {} ended while {id} on {} was not healthy", stage.title, memory.node),
            );
        }
    }
    Ok(())
}

/// A gateway that is waited for and said last that it cannot serve the service.
fn unable<'a>(decided: &'a Coordinator, name: &ServiceName, spec: &ServiceSpec) -> Option<&'a GatewayName> {
    let awaited = |gateway: &GatewayObserved| decided.decided_at.since(gateway.last_heard).0 < LEASE_MS;
    let mut gateways = decided.seen.gateways.iter().filter(|_| spec.route.is_some());
    gateways.find(|(_, seen)| awaited(seen) && seen.unserved.contains_key(name)).map(|(gateway, _)| gateway)
}
