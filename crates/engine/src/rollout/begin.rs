//! How a rollout begins, from a request.

use super::{analysis, compile, stop};
use crate::progress::RolloutProgress;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::id::ReleaseNumber;
use baton_model::report::Subject;
use baton_model::rollout::{RolloutKind, RolloutOutcome};

/// Takes up the operator's latest request, where it is newer than the rollout that is remembered. The new rollout
/// starts from wherever the slots are; what it goes back to is the stable release.
/// `true` when it did: the budget is then counted anew before the first stage begins.
pub(super) fn take_request(turn: &mut Turn<'_>) -> bool {
    let Some(request) = &turn.service.request else { return false };
    if turn.memory.rollout.as_ref().is_some_and(|rollout| rollout.id >= request.id) {
        return false;
    }
    let Some(release) = turn.release(request.to) else {
        let reason =
            format!("release {} was asked for and is not kept any more: deploy it again", request.to);
        turn.wait(Subject::Rollout, "release", reason, None);
        return false;
    };
    let plan = compile::forward(turn, request.kind, request.to, &release.spec);
    if turn.rollout().is_some() {
        stop::end(turn, RolloutOutcome::Superseded, format!("rollout {} took its place", request.id));
    }
    let from = turn.memory.stable;
    let rollout = RolloutProgress {
        id: request.id,
        from,
        to: request.to,
        outcome: RolloutOutcome::Running,
        reason: String::new(),
        started_at: turn.now,
        ended_at: None,
        progressed_at: turn.now,
        retried: 0,
        stages: plan.stages,
        turned_at: None,
        failure: None,
        keep_warm: plan.keep_warm,
        traffic: plan.traffic,
    };
    let what = match request.kind {
        RolloutKind::Deploy => "deploy",
        RolloutKind::Undo => "undo",
    };
    let before = from.map_or_else(|| "nothing".to_owned(), |from| turn.version(from));
    let message = format!(
        "{}: {what} of {} (before: {before}) in {} stages, asked for by {}",
        turn.name,
        release.version,
        rollout.stages.len(),
        request.requested_by
    );
    turn.memory.rollout = Some(rollout);
    leave_warm(turn, request.to);
    turn.tell(Severity::Info, "rollout-started", message);
    if let Some(why) = analysis::unseen(turn) {
        let message = format!("{}: its thresholds wait for evidence, and {why}", turn.name);
        turn.tell(Severity::Warning, "evidence-missing", message);
    }
    true
}

/// A set that stands beside and is not what is asked for makes room.
fn leave_warm(turn: &mut Turn<'_>, to: ReleaseNumber) {
    turn.memory.warm = None;
    let other = turn.beside().filter(|(_, slot)| slot.release != to);
    let other: Vec<u64> = other.map(|(number, _)| number).collect();
    other.into_iter().for_each(|number| turn.retire(number));
}
