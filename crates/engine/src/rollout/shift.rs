//! The moment at which a stage moves the requests: once, when all of its cohort is healthy for the first time; and whether
//! every live gateway has made the move.

use crate::progress::StageProgress;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::RouteRevision;
use baton_model::report::Subject;

/// Brings what the stage does to the traffic into force, and lets the two sets change places where it is a switch.
/// `false` when that would leave less than the floor, which is waited for, and in the round that did it: the next one sees
/// the route that came of it.
pub(super) fn shift(turn: &mut Turn<'_>, index: usize) -> bool {
    let Some(rollout) = turn.rollout() else { return false };
    let stage = &rollout.stages[index];
    if stage.shifted_at.is_some() {
        return true;
    }
    let (switches, traffic, goal) = (stage.switches, stage.traffic.clone(), rollout.goal());
    if switches && !can_serve(turn, index) {
        return false;
    }
    let now = turn.now;
    if switches {
        for slot in turn.memory.slots.values_mut().filter(|slot| !slot.retiring) {
            slot.beside = !(slot.beside && Some(slot.release) == goal);
        }
    }
    let Some(rollout) = turn.memory.rollout.as_mut() else { return false };
    rollout.stages[index].shifted_at = Some(now);
    // Going back, the requests follow the capacity; see the room of routes.
    if let Some(traffic) = traffic.filter(|_| rollout.turned_at.is_none()) {
        rollout.traffic = Some(traffic);
        tell(turn, index);
    }
    false
}

/// Whether every live gateway has acknowledged what the stage did to the traffic; says which has not. Asked in a round after
/// the shift's own, so that the route has been revised meanwhile.
pub(super) fn acknowledged(turn: &mut Turn<'_>, index: usize) -> bool {
    let Some(revision) = revision(turn, index) else { return true };
    let Some((why, until)) = turn.sightings.gateways.behind(turn.name, revision) else { return true };
    turn.wake(Some(until));
    turn.wait(Subject::Stage(u32::try_from(index + 1).unwrap_or(u32::MAX)), "route", why, None);
    false
}

/// The revision by which the stage's traffic is in force; noted once, since the route goes on changing with its instances.
/// `None` where it moves nothing: going back, the requests follow the capacity.
fn revision(turn: &mut Turn<'_>, index: usize) -> Option<RouteRevision> {
    let rollout = turn.rollout()?;
    let stage = &rollout.stages[index];
    if rollout.back() || (stage.traffic.is_none() && !stage.switches) {
        return None;
    }
    if stage.shifted_in.is_some() {
        return stage.shifted_in;
    }
    let revision = turn.memory.route.current.as_ref()?.revision;
    turn.stage_mut(index)?.shifted_in = Some(revision);
    Some(revision)
}

/// Whether the set that is to serve can: the floor is counted in it, as if it served already.
fn can_serve(turn: &mut Turn<'_>, index: usize) -> bool {
    let secure = turn.live_seen().filter(|(_, slot, sight)| slot.beside && turn.secures(sight, slot)).count();
    let (secure, floor) = (u32::try_from(secure).unwrap_or(u32::MAX), turn.budget.floor);
    if secure < floor {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let reason = format!(
            "{secure} of the instances that are to serve are ready, and {floor} must be: it waits for more"
        );
        turn.wait(Subject::Stage(number), "budget", reason, None);
    }
    secure >= floor
}

fn tell(turn: &mut Turn<'_>, index: usize) {
    let Some(rollout) = turn.rollout() else { return };
    let Some(what) = rollout.stages.get(index).and_then(describe) else { return };
    let message = format!("{}: {} gets {what}", turn.name, turn.version(rollout.to));
    let mut event = turn.event(Severity::Info, "traffic-shifted", message);
    event.fields.insert("rollout".to_owned(), rollout.id.to_string());
    event.fields.insert("stage".to_owned(), (index + 1).to_string());
    turn.events.push(event);
}

/// What a stage gives to the new release, for people.
fn describe(stage: &StageProgress) -> Option<String> {
    let traffic = stage.traffic.as_ref()?;
    let mut parts = vec![format!("{} of the requests", traffic.weight)];
    for rule in &traffic.rules {
        let conditions: Vec<String> = rule.conditions.iter().map(ToString::to_string).collect();
        parts.push(format!("those with {}", conditions.join(" and ")));
    }
    parts.extend(traffic.mirror.as_ref().map(|mirror| format!("copies of {}", mirror.share)));
    Some(parts.join(", "))
}
