//! What an operator sets about the rollout under way: whole state, written with compare-and-set.

use super::status::Refusal;
use super::{ATTEMPTS_MAX, contended, services};
use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_engine::progress::{RolloutProgress, ServiceProgress, StageProgress};
use baton_model::desired::Service;
use baton_model::event::Severity;
use baton_model::id::{RolloutId, ServiceName};
use baton_model::rollout::{Answer, RolloutControl, RolloutOutcome};
use baton_model::time::{Millis, UnixMs};
use baton_proto::v1::{self, RolloutAction};

pub(super) async fn control(
    coordinator: &Coordinator,
    by: &str,
    request: v1::ControlRolloutRequest,
) -> Result<v1::ServiceStatus, Refusal> {
    let action = request.action();
    let name = ServiceName::new(request.service)?;
    let key = records::service(&name);
    for _ in 0..ATTEMPTS_MAX {
        let read = coordinator.records.get::<Service>(&key).await?;
        let read = read.filter(|read| !read.value.removed).ok_or_else(|| services::unknown(&name))?;
        let (revision, mut service) = (read.revision, read.value);
        let control = {
            let view = coordinator.view.borrow();
            let progress = view.snapshot.progress.get(&name).map(|read| &read.value);
            let asked = Asked { rollout: request.rollout.map(RolloutId), action, step: request.step };
            controlled(&service, progress, asked, coordinator.clock.now())?
        };
        if control == service.control {
            return services::status(coordinator, &service);
        }
        service.control = control;
        match coordinator.records.put(&key, revision, &service).await {
            Ok(_) => {
                let word = word(action);
                let step = request.step.map(|step| format!(" to step {step}")).unwrap_or_default();
                let mut event = event(
                    coordinator.clock.now(),
                    Severity::Info,
                    "rollout-controlled",
                    format!("{by} set `{word}`{step} for {name}"),
                );
                event.service = Some(name.clone());
                event.fields.insert("action".to_owned(), word.to_owned());
                coordinator.journal.record(vec![event]);
                return services::status(coordinator, &service);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("service `{name}`")))
}

const fn word(action: RolloutAction) -> &'static str {
    match action {
        RolloutAction::Unspecified => "nothing",
        RolloutAction::Pause => "pause",
        RolloutAction::Resume => "resume",
        RolloutAction::Promote => "promote",
        RolloutAction::Abort => "abort",
        RolloutAction::Retry => "retry",
    }
}

/// What an operator asks of a rollout.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Only of this one.
    rollout: Option<RolloutId>,
    action: RolloutAction,
    /// For promote: the step, or where there are none the stage, that is to be reached at once.
    step: Option<u32>,
}

/// The control that an action makes of the present one.
fn controlled(
    service: &Service,
    progress: Option<&ServiceProgress>,
    asked: Asked,
    now: UnixMs,
) -> Result<RolloutControl, Refusal> {
    let name = &service.name;
    let Asked { rollout: named, action, step } = asked;
    let none = || {
        Refusal::NotNow(format!(
            "no rollout of `{name}` is under way; `baton rollout history {name}` shows the last ones"
        ))
    };
    let current = service.request.as_ref().ok_or_else(none)?.id;
    if let Some(other) = named.filter(|named| *named != current) {
        return Err(Refusal::NotNow(format!(
            "the current rollout of `{name}` is {current}, not {other}; look at it first (`baton rollout status {name}`)"
        )));
    }
    // The engine may not have taken the request up yet: then it is under way, and nothing of it is done.
    let rollout =
        progress.and_then(|progress| progress.rollout.as_ref()).filter(|rollout| rollout.id == current);
    let is_over = |rollout: &RolloutProgress| match action {
        // A first release that failed stays where it is, and goes on when it is told so.
        RolloutAction::Retry => rollout.outcome.is_final() && rollout.outcome != RolloutOutcome::Failed,
        RolloutAction::Unspecified
        | RolloutAction::Pause
        | RolloutAction::Resume
        | RolloutAction::Promote
        | RolloutAction::Abort => rollout.outcome.is_final(),
    };
    if rollout.is_some_and(is_over) {
        return Err(none());
    }
    let mut control = if service.control.rollout == current {
        service.control.clone()
    } else {
        RolloutControl { rollout: current, ..RolloutControl::default() }
    };
    match action {
        RolloutAction::Unspecified => {
            return Err(Refusal::Invalid(
                "the request names no action this coordinator knows; upgrade it".to_owned(),
            ));
        }
        RolloutAction::Pause if control.abort => {
            return Err(Refusal::NotNow(format!(
                "the rollout of `{name}` was aborted and goes back, which a pause does not hold; `baton rollout watch {name}` follows it"
            )));
        }
        RolloutAction::Pause => control.paused = true,
        RolloutAction::Resume => resume(name, rollout, &mut control)?,
        RolloutAction::Promote => match step {
            Some(step) => control.promoted_through = stage_of(name, rollout, step)?,
            None => match held_stage(rollout, now) {
                // Its evidence was bad, and a person has looked: on to the next one, or after the last one to the end.
                Some(held) => control.promoted_through = control.promoted_through.max(held + 1),
                None => control.approved_through = waiting_stage(name, rollout, control.approved_through)?,
            },
        },
        RolloutAction::Abort => control.abort = true,
        // Going back, instances may fail and are tried again; with nothing to go back to, nothing is left of them.
        RolloutAction::Retry if control.abort && rollout.is_some_and(|rollout| rollout.from.is_none()) => {
            return Err(Refusal::NotNow(format!(
                "the first rollout of `{name}` was aborted, and no instance of it is kept to be tried again; deploy it again"
            )));
        }
        RolloutAction::Retry => control.retry = control.retry.saturating_add(1),
    }
    Ok(control)
}

fn resume(
    name: &ServiceName,
    rollout: Option<&RolloutProgress>,
    control: &mut RolloutControl,
) -> Result<(), Refusal> {
    let held = rollout.filter(|rollout| rollout.outcome == RolloutOutcome::Paused && !control.paused);
    if let Some(rollout) = held {
        return Err(Refusal::NotNow(format!(
            "the rollout of `{name}` is not held by an operator: {}; `baton rollout promote`, `retry` or `abort` may be what it needs",
            if rollout.reason.is_empty() { "it waits" } else { &rollout.reason }
        )));
    }
    control.paused = false;
    Ok(())
}

/// The stage that analysis holds: for an operator, until a broken threshold is good again, or for want of evidence once its
/// bake is over. Until then it is the bake that holds it.
fn held_stage(rollout: Option<&RolloutProgress>, now: UnixMs) -> Option<u32> {
    let rollout = rollout.filter(|rollout| rollout.turned_at.is_none() && rollout.failure.is_none())?;
    let (number, stage) = (1u32..).zip(&rollout.stages).find(|(_, stage)| stage.ended_at.is_none())?;
    if stage.held.is_some() {
        return Some(number);
    }
    // Its own evidence: what an operator took the step before past is kept there, and is nothing against this one.
    let is_watched = stage.analysed && stage.shifted_at.is_some();
    let answered = |answer| is_watched && stage.verdicts.iter().any(|verdict| verdict.answer == answer);
    let is_baked = stage.healthy_at.is_some_and(|at| at.plus(Millis(stage.bake_ms)) <= now);
    (answered(Answer::Fail) || is_baked && answered(Answer::Inconclusive)).then_some(number)
}

/// The stage that waits for its approval now. One that is not reached yet cannot be approved: nobody has seen what
/// comes before it.
fn waiting_stage(
    name: &ServiceName,
    rollout: Option<&RolloutProgress>,
    approved_through: u32,
) -> Result<u32, Refusal> {
    let nothing = || {
        Refusal::NotNow(format!(
            "no stage of `{name}` waits for an approval now, nor does analysis hold one; `baton rollout status {name}` shows what it waits for, and `baton rollout promote {name} --to STEP` goes on to a step without that"
        ))
    };
    let stages = rollout.map(|rollout| rollout.stages.as_slice()).unwrap_or_default();
    let (next, stage) =
        (1u32..).zip(stages).find(|(_, stage)| stage.ended_at.is_none()).ok_or_else(nothing)?;
    if stage.approval && stage.started_at.is_none() && next > approved_through {
        return Ok(next);
    }
    Err(nothing())
}

/// The first stage of a step that is still ahead; of the last step, once it has begun, the end of the rollout.
fn stage_of(name: &ServiceName, rollout: Option<&RolloutProgress>, step: u32) -> Result<u32, Refusal> {
    let look = format!("`baton rollout status {name}` shows them");
    let rollout = rollout
        .filter(|rollout| rollout.turned_at.is_none())
        .ok_or_else(|| Refusal::NotNow(format!("the rollout of `{name}` does not go forward now; {look}")))?;
    let in_steps = rollout.stages.iter().any(|stage| stage.step > 0);
    let number_of = |(number, stage): &(u32, &StageProgress)| if in_steps { stage.step } else { *number };
    let found = (1u32..).zip(&rollout.stages).find(|it| number_of(it) == step);
    let Some((number, stage)) = found else {
        let last = (1u32..).zip(&rollout.stages).last().map_or(0, |it| number_of(&it));
        return Err(Refusal::Invalid(format!(
            "the rollout of `{name}` has the steps 1 to {last}, not {step}; {look}"
        )));
    };
    let last = (1u32..).zip(&rollout.stages).last().filter(|it| number_of(it) == step);
    if let Some((last, _)) = last.filter(|_| stage.started_at.is_some()) {
        return Ok(last + 1);
    }
    if stage.started_at.is_some() {
        return Err(Refusal::NotNow(format!(
            "step {step} of the rollout of `{name}` has begun already; {look}"
        )));
    }
    Ok(number)
}

#[cfg(test)]
mod tests;
