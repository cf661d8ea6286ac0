//! Two releases compared in a rollout: shown while they are, kept and told when the stage that compares them is done or the
//! rollout turns round. Nothing is decided by it.

use crate::progress::{RolloutProgress, StageProgress};
use crate::trial::compare;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::rollout::{Answer, Comparison};
use baton_model::time::Millis;

/// Gateways report each second; whoever looks is shown figures about as fresh.
const LOOK_EVERY: Millis = Millis::secs(1);

/// What a stage compares now; `None` where it compares nothing, or not yet, or no longer.
pub(super) fn of(turn: &Turn<'_>, rollout: &RolloutProgress, index: usize) -> Option<Comparison> {
    let stage = rollout.stages.get(index)?;
    if stage.ended_at.is_some() || rollout.back() {
        return None;
    }
    let since = stage.shifted_at?;
    let trial = rollout.trial_of(stage)?;
    let observed = turn.sightings.input.observed.trials.get(turn.name);
    Some(compare(&trial, observed, since, turn.now))
}

/// Looks again soon, while the stage compares.
pub(super) fn look(turn: &mut Turn<'_>, index: usize) {
    let compares = |rollout: &RolloutProgress| {
        let stage = &rollout.stages[index];
        stage.shifted_at.is_some() && compares(stage)
    };
    if turn.rollout().is_some_and(compares) {
        turn.wake(Some(turn.now.plus(LOOK_EVERY)));
    }
}

/// Keeps what the present stage has compared, and tells of it. To be called before the stage ends.
pub(super) fn keep(turn: &mut Turn<'_>) {
    let present = turn.rollout().and_then(|rollout| Some((rollout.current()?, rollout)));
    let Some((index, rollout)) = present else { return };
    let Some(comparison) = of(turn, rollout, index) else { return };
    let severity = match comparison.sample_ratio.map(|ratio| ratio.answer) {
        Some(Answer::Fail) => Severity::Warning,
        Some(Answer::Pass | Answer::Inconclusive) | None => Severity::Info,
    };
    let (old, new) = (turn.version(comparison.control.release), turn.version(comparison.treatment.release));
    let message = format!("{}: {new} compared with {old}: {}", turn.name, comparison.conclusion);
    let mut event = turn.event(severity, "releases-compared", message);
    event.fields.insert("rollout".to_owned(), rollout.id.to_string());
    event.fields.insert("stage".to_owned(), (index + 1).to_string());
    turn.events.push(event);
    if let Some(stage) = turn.stage_mut(index) {
        stage.comparison = Some(comparison);
    }
}

/// What whoever is to approve a stage must know of what was compared before it.
pub(super) fn caution(rollout: &RolloutProgress, index: usize) -> &'static str {
    let latest = rollout.stages[..index].iter().rev().find_map(|stage| stage.comparison.as_ref());
    match latest.and_then(|it| it.sample_ratio).map(|ratio| ratio.answer) {
        Some(Answer::Fail) => "; its evidence is not to be trusted: sample ratio mismatch",
        Some(Answer::Pass | Answer::Inconclusive) | None => "",
    }
}

fn compares(stage: &StageProgress) -> bool {
    stage.traffic.as_ref().is_some_and(|traffic| traffic.trial.is_some())
}
