//! The stage machine: it runs the stages of a rollout in order, forward and back.
//!
//! ```text
//!   Pending ──approved──► Running ──all healthy──► Baking ──bake over──► Done
//!                            ▲  │                     │
//!                            │  └─more failed than tolerated, or a deadline──► Failed (the rollout turns round or holds)
//!                            └──────────health lost───┘
//! ```
//! Going back, nothing is waited for but health, and an instance that fails does not stop the others.

use super::analysis::Opinion;
use super::failure::failure;
use super::tally::{Tally, tally};
use super::zone::OneZone;
use super::{analysis, back, comparison, finish, shift, stop};
use crate::gate::health::{self, Health};
use crate::gate::{bake, hold};
use crate::progress::{RolloutProgress, StageProgress};
use crate::turn::{Turn, Wish};
use baton_model::event::Severity;
use baton_model::id::ReleaseNumber;
use baton_model::report::Subject;
use baton_model::rollout::{OnFailure, RolloutOutcome, RolloutPolicy};
use baton_model::time::{Millis, UnixMs};

/// Takes the current stage one step further.
pub(super) fn step(turn: &mut Turn<'_>) {
    let Some(rollout) = turn.rollout() else { return };
    let Some(goal) = rollout.goal() else { return };
    if let Some(reason) = rollout.failure.clone() {
        wait_held(turn, reason);
        return;
    }
    let Some(index) = rollout.current() else {
        finish::complete(turn);
        return;
    };
    let held = hold::paused(&turn.service.control, rollout);
    let started = rollout.stages[index].started_at.is_some();
    if !started {
        if !held {
            start(turn, index);
        }
        return;
    }
    let Some(policy) = turn.spec().map(|spec| spec.rollout.clone()) else { return };
    let opinion = analysis::watch(turn, index, &policy);
    let gates = match opinion {
        Opinion::Open => Gates { held, broken: false, shut: false },
        Opinion::Shut => Gates { held, broken: false, shut: true },
        Opinion::Broken => Gates { held, broken: true, shut: true },
        Opinion::Acted => return,
    };
    if !gates.keep_back() {
        assign(turn, index, goal);
    }
    let tally = tally(turn, index, &policy, !gates.broken);
    advance(turn, index, &policy, &tally, gates);
}

/// What keeps a stage from going on, beside its health and its bake.
#[derive(Clone, Copy, Debug)]
struct Gates {
    /// An operator holds the rollout.
    held: bool,
    /// A threshold is broken, and the policy wants the rollout to stay where it is.
    broken: bool,
    /// Analysis is not content, or a gateway has not acknowledged the stage's traffic: the stage does not end.
    shut: bool,
}

impl Gates {
    /// What is under way is ended, but nothing further is changed, and no further share is given.
    const fn keep_back(self) -> bool {
        self.held || self.broken
    }
}

fn wait_held(turn: &mut Turn<'_>, reason: String) {
    let Some(rollout) = turn.rollout() else { return };
    let advice = if rollout.back() {
        "`baton rollout retry`, or deploy another release"
    } else {
        "`baton rollout retry`, `abort`, or deploy another release"
    };
    turn.wait(Subject::Rollout, "failed", format!("{reason}: {advice}"), None);
}

/// Begins a stage once its gate is open; the next round works on it.
fn start(turn: &mut Turn<'_>, index: usize) {
    let now = turn.now;
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let control = &turn.service.control;
    let Some(rollout) = turn.rollout() else { return };
    let stage = &rollout.stages[index];
    let title = stage.title.clone();
    if hold::unapproved(control, rollout, stage, number) {
        let service = turn.name;
        let advice = format!("`baton rollout promote {service}`, or `baton rollout abort {service}`");
        let caution = comparison::caution(rollout, index);
        let reason = format!("stage {number} ({title}) waits for an operator: {advice}{caution}");
        wait_for_approval(turn, number, reason);
        return;
    }
    // What stands beside and was begun for another release is changed to this one; a return takes what is there of its own.
    let (back, goal) = (rollout.back(), rollout.goal());
    let set = turn.beside().filter(|(_, slot)| !back || Some(slot.release) == goal);
    let set: Vec<u64> = set.map(|(number, _)| number).collect();
    if let Some(rollout) = &mut turn.memory.rollout {
        let stage = &mut rollout.stages[index];
        stage.started_at = Some(now);
        if stage.second_set {
            stage.cohort.extend(set);
        }
        rollout.progressed_at = now;
    }
    let message = format!("{}: stage {number} begins: {title}", turn.name);
    turn.tell(Severity::Info, "stage-started", message);
}

fn wait_for_approval(turn: &mut Turn<'_>, number: u32, reason: String) {
    let Some(rollout) = turn.rollout() else { return };
    let (outcome, told) = (rollout.outcome, rollout.reason == reason);
    if (outcome != RolloutOutcome::Paused || !told)
        && let Some(rollout) = &mut turn.memory.rollout
    {
        rollout.outcome = RolloutOutcome::Paused;
        rollout.reason.clone_from(&reason);
    }
    if outcome != RolloutOutcome::Paused {
        let message = format!("{}: {reason}", turn.name);
        turn.tell(Severity::Info, "rollout-paused", message);
    }
    turn.wait(Subject::Stage(number), "approval", reason, None);
}

/// Gives the goal to as many of the cohort as the budget allows, and asks for places where the stage places.
fn assign(turn: &mut Turn<'_>, index: usize, goal: ReleaseNumber) {
    let Some(stage) = turn.rollout().map(|rollout| &rollout.stages[index]) else { return };
    let (places, beside, again) =
        (stage.places || stage.second_set, stage.places_beside(), stage.again.clone());
    let cohort: Vec<u64> = stage.cohort.iter().copied().collect();
    let mut zones = OneZone::of(turn);
    for number in cohort {
        let Some(slot) = turn.memory.slots.get(&number) else { continue };
        if slot.retiring || (slot.release == goal && !again.contains(&number)) {
            continue;
        }
        if !zones.allow(turn, number) {
            continue;
        }
        let serving = turn.seen(number).map_or(slot.release, |seen| seen.release);
        // A slot that already serves the goal only needs its plan to say so.
        let free = serving == goal || turn.overlaps(serving, goal) || turn.spent(number, slot);
        if free || turn.budget.take() {
            turn.assign(number, goal);
            zones.enter(turn, number);
            if let Some(stage) = turn.stage_mut(index).filter(|_| again.contains(&number)) {
                stage.again.remove(&number);
            }
        }
    }
    if let Some(spec) = turn.spec().filter(|_| places) {
        let wishes =
            turn.missing(spec, goal, beside).into_iter().map(|wish| Wish { stage: Some(index), ..wish });
        turn.wishes = wishes.collect();
    }
}

/// Writes the tally down and decides: fail, wait, bake, or done.
fn advance(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy, tally: &Tally, gates: Gates) {
    let now = turn.now;
    record(turn, index, tally);
    let unhealthy = tally.open > 0 || tally.missing > 0;
    if unhealthy {
        lose_health(turn, index, tally);
    }
    if gates.broken && (tally.unassigned > 0 || tally.missing > 0) {
        put_off(turn, policy);
    }
    let Some(rollout) = turn.rollout() else { return };
    let progress_deadline = rollout.progressed_at.plus(policy.progress_deadline);
    let back = rollout.back();
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let stage = &rollout.stages[index];
    if let Some(reason) =
        failure(turn.name, rollout, stage, number, policy, tally, now).filter(|_| !gates.held)
    {
        if back {
            give_up_waiting(turn, index, policy);
        } else {
            fail(turn, policy, &reason);
        }
        return;
    }
    if unhealthy {
        turn.wake(Some(progress_deadline));
        return;
    }
    let moves = stage.shifted_at.is_none() && (stage.switches || stage.traffic.is_some());
    if moves && !back && gates.keep_back() {
        return;
    }
    if !shift::shift(turn, index) {
        turn.wake(Some(progress_deadline));
        // Going back to a set that has died meanwhile: the requests stay where they are, and an operator is called.
        let is_lost = turn.rollout().is_some_and(|rollout| {
            let stage = &rollout.stages[index];
            stage.shifted_at.is_none() && !stage.failed.is_empty()
        });
        if back && is_lost && !gates.held && now >= progress_deadline {
            give_up_waiting(turn, index, policy);
        }
        return;
    }
    let unknown = !shift::acknowledged(turn, index);
    comparison::look(turn, index);
    bake_or_end(turn, index, policy, Gates { shut: gates.shut || unknown, ..gates });
}

/// Time in which a broken threshold keeps instances from their change is not counted against the rollout. It is written
/// down now and then, and not each second.
fn put_off(turn: &mut Turn<'_>, policy: &RolloutPolicy) {
    let now = turn.now;
    let tenth = Millis(policy.progress_deadline.0 / 10);
    let late = |rollout: &RolloutProgress| now.since(rollout.progressed_at) >= tenth;
    if turn.rollout().is_some_and(late)
        && let Some(rollout) = &mut turn.memory.rollout
    {
        rollout.progressed_at = now;
    }
}

/// A stage that had its health has it no longer: its bake begins anew, and it is a relapse. Of instances that are only not
/// heard of, or that gateways must get to know again, it is not known yet: see [`interrupted`].
fn lose_health(turn: &mut Turn<'_>, index: usize, tally: &Tally) {
    let now = turn.now;
    let is_known = tally.open > tally.deferred || tally.missing > 0;
    if !is_known || turn.rollout().is_none_or(|rollout| rollout.stages[index].healthy_at.is_none()) {
        return;
    }
    let Some(rollout) = &mut turn.memory.rollout else { return };
    let stage = &mut rollout.stages[index];
    stage.healthy_at = None;
    if tally.open > tally.deferred {
        stage.relapses += 1;
        rollout.progressed_at = now;
    }
}

fn record(turn: &mut Turn<'_>, index: usize, tally: &Tally) {
    let now = turn.now;
    for (number, why) in &tally.newly_failed {
        let id = turn.id(*number);
        let node = turn.memory.slots.get(number).map(|slot| slot.node.clone());
        let mut event =
            turn.event(Severity::Warning, "instance-failed", format!("{id} failed in the rollout: {why}"));
        event.instance = Some(id);
        event.node = node;
        turn.events.push(event);
    }
    if tally.newly_healthy.is_empty() && tally.newly_failed.is_empty() {
        return;
    }
    let Some(rollout) = &mut turn.memory.rollout else { return };
    if !tally.newly_healthy.is_empty() {
        rollout.progressed_at = now;
    }
    let stage = &mut rollout.stages[index];
    for number in &tally.newly_healthy {
        stage.healthy.insert(*number);
        stage.failed.remove(number);
    }
    stage.failed.extend(tally.newly_failed.iter().cloned());
}

fn fail(turn: &mut Turn<'_>, policy: &RolloutPolicy, reason: &str) {
    let message = format!("{}: the rollout failed: {reason}", turn.name);
    turn.tell(Severity::Error, "rollout-failed", message);
    let first = turn.rollout().is_some_and(|rollout| rollout.from.is_none());
    if first {
        let reason = format!(
            "{reason}; it is a first release, so there is nothing to go back to: `baton rollout retry` or deploy another"
        );
        stop::end(turn, RolloutOutcome::Failed, reason);
        return;
    }
    match policy.on_failure {
        OnFailure::RollBack => back::turn_round(turn, reason),
        OnFailure::Pause => stop::hold(turn, reason),
    }
}

/// Going back, what cannot be restored in time is written down, and the other stages go on.
fn give_up_waiting(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy) {
    let now = turn.now;
    let Some(rollout) = turn.memory.rollout.as_ref() else { return };
    // What was healthy once and is not now has not been restored either; nor has what is healthy at the other release,
    // since the budget did not let it go back.
    let goal = rollout.goal();
    let restored = |number: &&u64| match turn.memory.slots.get(*number).filter(|slot| !slot.retiring) {
        None => true,
        Some(slot) => match health::ask(turn, **number, slot, policy.min_healthy) {
            Health::Healthy => Some(slot.release) == goal,
            Health::Lost => true,
            Health::Settling(_)
            | Health::Coming(_)
            | Health::Unacknowledged(_)
            | Health::Failed(_)
            | Health::Deferred(_) => false,
        },
    };
    let missed: Vec<u64> =
        rollout.stages[index].cohort.iter().filter(|number| !restored(number)).copied().collect();
    let Some(rollout) = turn.memory.rollout.as_mut() else { return };
    let stage = &mut rollout.stages[index];
    for number in missed {
        let why = format!("not restored within {}", policy.progress_deadline);
        stage.failed.entry(number).or_insert(why);
    }
    stage.ended_at = Some(now);
    rollout.progressed_at = now;
}

/// Whether an instance of the stage has become ready only after all of them were. A coordinator that has just started, or a
/// node that was silent, need not make a bake of hours begin anew: each instance says since when it has been ready.
fn interrupted(turn: &Turn<'_>, stage: &StageProgress, healthy_at: UnixMs) -> bool {
    let counted = stage.cohort.iter().filter(|number| !stage.failed.contains_key(number));
    let mut ready_since = counted.filter_map(|number| turn.seen(*number)?.ready_since);
    ready_since.any(|since| since > healthy_at)
}

fn bake_or_end(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy, gates: Gates) {
    let now = turn.now;
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let Some(stage) = turn.rollout().map(|rollout| &rollout.stages[index]) else { return };
    let skipped =
        turn.rollout().is_some_and(|rollout| hold::promoted(&turn.service.control, rollout, number));
    let healthy_at = stage.healthy_at.filter(|at| !interrupted(turn, stage, *at));
    let (bake, title) = (Millis(stage.bake_ms), stage.title.clone());
    if healthy_at.is_none()
        && let Some(stage) = turn.stage_mut(index)
    {
        stage.healthy_at = Some(now);
    }
    if let Some(until) = bake::bakes_until(healthy_at.unwrap_or(now), bake, now).filter(|_| !skipped) {
        let reason = format!("stage {number} ({title}) is healthy and bakes for {bake}");
        turn.wait(Subject::Stage(number), "bake", reason, Some(until));
        return;
    }
    if gates.held || gates.shut {
        return;
    }
    analysis::keep_last(turn, index, policy);
    comparison::keep(turn);
    if let Some(rollout) = &mut turn.memory.rollout {
        rollout.stages[index].ended_at = Some(now);
        rollout.progressed_at = now;
    }
    let message = format!("{}: stage {number} is done: {title}", turn.name);
    turn.tell(Severity::Info, "stage-done", message);
    if let Some(open) = analysis::overruled(turn, index).filter(|_| skipped) {
        let message = format!("{}: an operator took stage {number} past its analysis: {open}", turn.name);
        turn.tell(Severity::Warning, "analysis-overruled", message);
    }
}
