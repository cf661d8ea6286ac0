//! How the cohort of a stage stands: asked of each instance anew in every step.

use super::zone::OneZone;
use crate::gate::health::{self, Health};
use crate::gateways::GATEWAY_LEASE;
use crate::progress::StageProgress;
use crate::turn::Turn;
use baton_model::report::Subject;
use baton_model::rollout::RolloutPolicy;
use baton_model::time::Millis;

/// How much longer than `healthy_deadline` an instance that is ready may wait for gateways: one that is silent is waited
/// out once, and a second one that falls silent meanwhile, too.
const ACKNOWLEDGED_WITHIN: Millis = Millis(2 * GATEWAY_LEASE.0);

/// What the cohort of a stage looks like now.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Not healthy, and neither failed nor lost.
    pub(super) open: u32,
    /// Of these, those whose node is silent, and those that a gateway must get to know again.
    pub(super) deferred: u32,
    /// Not yet given the goal, for want of budget.
    pub(super) unassigned: u32,
    /// Instances that the stage still has to place.
    pub(super) missing: u32,
    /// Healthy for the first time.
    pub(super) newly_healthy: Vec<u64>,
    /// Failed for the first time, and why.
    pub(super) newly_failed: Vec<(u64, String)>,
}

/// Instances of a set that are not placed yet. A node that is only silent will want its own, and a release of which nothing
/// runs anywhere has not been rolled out: what is not known is not a pass.
fn missing(turn: &Turn<'_>, beside: bool) -> u32 {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let wanted = turn.spec().map_or(0, |spec| turn.wanted(spec)).max(1);
    count(turn.wishes.len()).max(wanted.saturating_sub(count(turn.staying(beside))))
}

/// Asks after the health of each of the cohort, and says what is waited for. `asked`: what has not been given the goal has
/// asked for budget; otherwise it is kept back for another reason, which is told elsewhere.
pub(super) fn tally(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy, asked: bool) -> Tally {
    let mut tally = Tally::default();
    let Some(rollout) = turn.rollout() else { return tally };
    let present = &rollout.stages[index];
    if present.places || present.second_set {
        tally.missing = missing(turn, present.places_beside());
    }
    let goal = rollout.goal();
    let stage = rollout.stages[index].clone();
    let stage_number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    for number in &stage.cohort {
        let Some(slot) = turn.memory.slots.get(number).filter(|slot| !slot.retiring).cloned() else {
            continue;
        };
        if Some(slot.release) != goal || stage.again.contains(number) {
            tally.open += 1;
            tally.unassigned += 1;
            continue;
        }
        let subject = Subject::Instance(turn.id(*number));
        let deadline = slot.assigned_at.plus(policy.healthy_deadline);
        match health::ask(turn, *number, &slot, policy.min_healthy) {
            Health::Healthy => {
                if !stage.healthy.contains(number) || stage.failed.contains_key(number) {
                    tally.newly_healthy.push(*number);
                }
            }
            Health::Lost => {}
            Health::Failed(why) => fail_slot(&mut tally, &stage, *number, why),
            Health::Settling(at) => {
                tally.open += 1;
                let reason = format!(
                    "it is ready, and counts as healthy after {} without a break",
                    policy.min_healthy
                );
                turn.wait(subject, "health", reason, Some(at));
            }
            Health::Deferred(until) => {
                tally.open += 1;
                tally.deferred += 1;
                let reason =
                    format!("node {} is silent; if it stays so, the instance is placed elsewhere", slot.node);
                turn.wait(subject, "node-silent", reason, Some(until));
            }
            // What gateways have not taken in yet says nothing against the release, and one that is cut off is waited
            // out by its lease; but one that never takes it in must not hold the rollout for ever.
            Health::Unacknowledged(whom) => {
                let until = deadline.plus(ACKNOWLEDGED_WITHIN);
                if stage.failed.contains_key(number) {
                    continue;
                } else if turn.now >= until && !stage.healthy.contains(number) {
                    fail_slot(&mut tally, &stage, *number, format!("not in the routes: {whom}"));
                } else {
                    tally.open += 1;
                    tally.deferred += 1;
                    turn.wait(subject, "route", whom, Some(until));
                }
            }
            Health::Coming(what) => {
                let overdue = turn.now >= deadline && !stage.healthy.contains(number);
                if stage.failed.contains_key(number) {
                    continue;
                } else if overdue {
                    let why = format!("not healthy within {}: {what}", policy.healthy_deadline);
                    fail_slot(&mut tally, &stage, *number, why);
                } else {
                    tally.open += 1;
                    turn.wake(Some(slot.assigned_at.plus(health::CANNOT_RUN_GRACE)));
                    turn.wait(subject, "health", what, Some(deadline));
                }
            }
        }
    }
    if tally.unassigned > 0 && asked {
        let busy = OneZone::of(turn).busy();
        let (gate, reason) = match busy {
            Some(zones) => ("zone", format!("one zone at a time: instances in {zones} are still changing")),
            None => ("budget", turn.budget.refusal()),
        };
        turn.wait(Subject::Stage(stage_number), gate, reason, None);
    }
    tally
}

fn fail_slot(tally: &mut Tally, stage: &StageProgress, number: u64, why: String) {
    if !stage.failed.contains_key(&number) {
        tally.newly_failed.push((number, why));
    }
}
