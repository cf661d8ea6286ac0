//! A rollout as people see it.

use super::comparison;
use crate::progress::{RolloutProgress, StageProgress};
use crate::turn::Turn;
use baton_model::id::Version;
use baton_model::report::{RolloutReport, StageReport, StageState, Step};
use baton_model::rollout::{Answer, RolloutOutcome};
use std::collections::BTreeMap;

/// A rollout for people. `whole`: with every instance, not the failed ones alone.
pub(crate) fn describe(turn: &Turn<'_>, rollout: &RolloutProgress, whole: bool) -> Option<RolloutReport> {
    let stages = rollout.stages.iter().enumerate().map(|(index, stage)| {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        // A rollout that was ended in the middle leaves its stage where it was: its time is over too.
        let stopped_at = rollout.ended_at.filter(|_| stage.started_at.is_some());
        let state = match (stage.started_at, stage.healthy_at, stage.ended_at) {
            _ if !stage.failed.is_empty() && stage.ended_at.is_some() => StageState::Failed,
            _ if rollout.turned_at == Some(index + 1) && is_broken(stage) => StageState::Failed,
            (_, _, Some(_)) if stage.healthy_at.is_none() => StageState::Failed,
            (_, _, Some(_)) => StageState::Done,
            (Some(_), _, None) if rollout.outcome == RolloutOutcome::Failed => StageState::Failed,
            (Some(_), Some(_), None) => StageState::Baking,
            (Some(_), None, None) => StageState::Running,
            (None, _, None) => StageState::Pending,
        };
        let slots = stage.cohort.iter().filter(|number| whole || stage.failed.contains_key(number));
        let instances: BTreeMap<_, _> =
            slots.map(|number| (turn.id(*number), step(turn, rollout, stage, *number))).collect();
        let title = stage.title.clone();
        StageReport {
            number,
            title,
            state,
            instances,
            started_at: stage.started_at,
            ended_at: stage.ended_at.or(stopped_at),
            step: stage.step,
            weight: stage.traffic.as_ref().map(|traffic| traffic.weight),
            verdicts: stage.verdicts.clone(),
            comparison: stage.comparison.clone().or_else(|| comparison::of(turn, rollout, index)),
        }
    });
    Some(RolloutReport {
        id: rollout.id,
        from: rollout.from,
        to: rollout.to,
        from_version: rollout.from.and_then(|from| turn.release(from)).map(|release| release.version.clone()),
        to_version: turn
            .release(rollout.to)
            .map(|release| release.version.clone())
            .or_else(|| Version::new(rollout.to.to_string()).ok())?,
        outcome: rollout.outcome,
        reason: rollout.reason.clone(),
        started_at: rollout.started_at,
        ended_at: rollout.ended_at,
        stages: stages.collect(),
    })
}

/// Whether its evidence was bad when it was asked last.
fn is_broken(stage: &StageProgress) -> bool {
    stage.verdicts.iter().any(|verdict| verdict.answer == Answer::Fail)
}

fn step(turn: &Turn<'_>, rollout: &RolloutProgress, stage: &StageProgress, number: u64) -> Step {
    let failed = stage.failed.contains_key(&number);
    // Most stages have ended, and of most slots there is nothing more to be looked up.
    if stage.ended_at.is_some() && !failed {
        return Step::Done;
    }
    let Some(slot) = turn.memory.slots.get(&number) else { return Step::Done };
    if failed {
        Step::Failed
    } else if stage.started_at.is_none() {
        Step::Pending
    } else if !turn.heard(number) {
        Step::Deferred
    } else if Some(slot.release) != rollout.goal() {
        Step::Pending
    } else if stage.healthy.contains(&number) {
        Step::Done
    } else {
        Step::Changing
    }
}
