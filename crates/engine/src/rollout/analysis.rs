//! Analysis in a rollout: asked each second from when a stage has moved the requests until it is done, and acted upon.

use super::{back, stop};
use crate::gate::{analysis, health, hold, missing};
use crate::outcome::WebhookCall;
use crate::progress::RolloutProgress;
use crate::turn::Turn;
use baton_model::event::Severity;
use baton_model::report::Subject;
use baton_model::rollout::{AnalysisAction, Answer, RolloutOutcome, RolloutPolicy, Threshold, Verdict};
use baton_model::time::Millis;

/// Gateways report each second, so it is worth asking as often.
const ASK_EVERY: Millis = Millis::secs(1);

/// The gate that evidence is missing at.
const EVIDENCE: &str = "evidence";

/// What analysis says of a stage now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    /// Nothing is asked, or all is answered well.
    Open,
    /// Something is not answered yet.
    Shut,
    /// Something is not answered well: no further instance is changed and no further share is given until it is.
    Broken,
    /// It was acted upon: the rollout turned round or is held.
    Acted,
}

/// Asks the thresholds about the stage, if it has moved the requests and is to be watched. The policy is that of the new
/// release; going back, nobody asks.
pub(super) fn watch(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy) -> Opinion {
    let Some(rollout) = turn.rollout().filter(|rollout| !rollout.back()) else { return Opinion::Open };
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    if hold::promoted(&turn.service.control, rollout, number) || policy.analysis.is_empty() {
        return Opinion::Open;
    }
    let stage = &rollout.stages[index];
    let Some(at) = watched(rollout, index) else {
        return if stage.analysed { Opinion::Shut } else { Opinion::Open };
    };
    if let Some(reason) = stage.held.clone() {
        turn.wait(Subject::Stage(number), "analysis", reason, None);
        return Opinion::Broken;
    }
    let mut verdicts = analysis::of(turn, rollout.to, &rollout.stages[at], &policy.analysis);
    if at == index && is_gone(turn, index) {
        for (verdict, threshold) in verdicts.iter_mut().zip(&policy.analysis) {
            analysis::nobody(verdict, threshold);
        }
    }
    turn.wake(Some(turn.now.plus(ASK_EVERY)));
    note(turn, at, &verdicts, &policy.analysis);
    let overruled = at < index && is_overruled(turn, at);
    let broken = |(threshold, verdict): &(&Threshold, &Verdict)| {
        verdict.answer == Answer::Fail && !(overruled && threshold.action != AnalysisAction::RollBack)
    };
    // Of several that are broken, the one that asks for most.
    let broken = policy.analysis.iter().zip(&verdicts).filter(broken).min_by_key(|(it, _)| rank(&it.action));
    if let Some((threshold, verdict)) = broken {
        return act(turn, index, threshold, &verdict.text);
    }
    if let Some(open) = broken_before(turn, at).filter(|_| at < index && !overruled) {
        turn.wait(Subject::Stage(number), "analysis", open, None);
        return Opinion::Broken;
    }
    if at < index || analysis::passed(&verdicts) {
        return if at < index && turn.rollout().is_some_and(|it| it.stages[index].analysed) {
            Opinion::Shut
        } else {
            Opinion::Open
        };
    }
    wait_for(turn, at, number, policy, &verdicts);
    Opinion::Shut
}

/// Whether no instance of the new release has been ready for a while, though the stage gave it its share: its requests go to
/// others, and gateways count none that it fails. Of instances on a silent node it is not known.
fn is_gone(turn: &Turn<'_>, index: usize) -> bool {
    let Some(rollout) = turn.rollout() else { return false };
    let stage = &rollout.stages[index];
    let lost = stage.relapses > 0 && stage.healthy_at.is_none();
    if !lost || turn.now < rollout.progressed_at.plus(health::CANNOT_RUN_GRACE) {
        return false;
    }
    let mut running = turn.live_seen().filter(|(_, slot, _)| slot.release == rollout.to).peekable();
    running.peek().is_some() && running.all(|(_, _, sight)| sight.heard && !sight.serves)
}

/// Whether an operator took the rollout past a step's analysis: its evidence keeps the next step back no more. One that is so
/// bad that it rolls back still does.
fn is_overruled(turn: &Turn<'_>, at: usize) -> bool {
    let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
    turn.rollout().is_some_and(|rollout| hold::promoted(&turn.service.control, rollout, number))
}

/// What was broken when a step that is done was asked last, and is not known now: a coordinator that starts anew has no
/// evidence, and missing data does not lift a hold.
fn broken_before(turn: &Turn<'_>, at: usize) -> Option<String> {
    let verdicts = &turn.rollout()?.stages[at].verdicts;
    verdicts.iter().find(|verdict| verdict.answer == Answer::Fail).map(|verdict| verdict.text.clone())
}

/// Says what is not answered well yet, and what keeps the evidence away.
fn wait_for(turn: &mut Turn<'_>, at: usize, number: u32, policy: &RolloutPolicy, verdicts: &[Verdict]) {
    let Some((to, stage)) = turn.rollout().map(|rollout| (rollout.to, &rollout.stages[at])) else { return };
    let open = |(threshold, verdict): (&Threshold, &Verdict)| {
        threshold.metric.is_from_gateways() && verdict.answer == Answer::Inconclusive
    };
    let asked = policy.analysis.iter().zip(verdicts).any(open);
    if let Some(why) = missing::why(turn, to, stage).filter(|_| asked) {
        turn.wait(Subject::Stage(number), EVIDENCE, why, None);
    }
    for verdict in verdicts.iter().filter(|verdict| verdict.answer != Answer::Pass) {
        turn.wait(Subject::Stage(number), "analysis", verdict.text.clone(), None);
    }
}

/// Says from the beginning of a rollout on that its thresholds will wait for evidence that nobody counts.
pub(super) fn foresee(turn: &mut Turn<'_>) {
    if turn.waiting.iter().any(|waiting| waiting.gate == EVIDENCE) {
        return;
    }
    if let Some(why) = unseen(turn) {
        let reason = format!("its thresholds wait for evidence, and {why}");
        turn.wait(Subject::Rollout, EVIDENCE, reason, None);
    }
}

/// Why nobody counts what the thresholds of the rollout will ask for; `None` where somebody does, or nothing will be asked.
pub(super) fn unseen(turn: &Turn<'_>) -> Option<String> {
    let rollout = turn.rollout().filter(|rollout| !rollout.back())?;
    let ahead = rollout.stages.iter().any(|stage| stage.analysed && stage.ended_at.is_none());
    let release = turn.release(rollout.to).filter(|_| ahead)?;
    missing::uncounted(turn, &release.spec.rollout.analysis)
}

/// The stage whose evidence counts while the one at `index` is under way: between two steps that is the step before.
pub(super) fn watched(rollout: &RolloutProgress, index: usize) -> Option<usize> {
    rollout.stages[..=index].iter().rposition(|stage| stage.analysed && stage.shifted_at.is_some())
}

/// What asks for more comes first.
const fn rank(action: &AnalysisAction) -> u8 {
    match action {
        AnalysisAction::RollBack => 0,
        AnalysisAction::Pause => 1,
        AnalysisAction::Hold | AnalysisAction::Webhook { .. } => 2,
    }
}

/// Keeps the verdicts where an answer changed, and tells of it.
fn note(turn: &mut Turn<'_>, at: usize, verdicts: &[Verdict], thresholds: &[Threshold]) {
    let Some(stage) = turn.rollout().map(|rollout| &rollout.stages[at]) else { return };
    let has = |answer| verdicts.iter().any(|verdict| verdict.answer == answer);
    if stage.ended_at.is_some() && has(Answer::Inconclusive) && !has(Answer::Fail) {
        // By what a step was done stays: the next step's instances, of which nothing is known yet, say nothing against it.
        return;
    }
    let before: Vec<Answer> = stage.verdicts.iter().map(|verdict| verdict.answer).collect();
    if before == verdicts.iter().map(|verdict| verdict.answer).collect::<Vec<_>>() {
        return;
    }
    for (index, (verdict, threshold)) in verdicts.iter().zip(thresholds).enumerate() {
        if before.get(index) == Some(&verdict.answer) || verdict.answer == Answer::Inconclusive {
            continue;
        }
        let (severity, kind) = match verdict.answer {
            Answer::Pass => (Severity::Info, "analysis-passed"),
            Answer::Fail | Answer::Inconclusive => (Severity::Warning, "analysis-failed"),
        };
        let mut event = turn.event(severity, kind, format!("{}: {}", turn.name, verdict.text));
        event.fields.insert("threshold".to_owned(), verdict.name.clone());
        event.fields.insert("requests".to_owned(), verdict.requests.to_string());
        event.fields.extend(verdict.measured.map(|measured| ("measured".to_owned(), measured.to_string())));
        if let (AnalysisAction::Webhook { url }, Answer::Fail) = (&threshold.action, verdict.answer) {
            event.webhook = webhook(turn, at, index, url, verdict).map(Box::new);
        }
        turn.events.push(event);
    }
    keep(turn, at, verdicts.to_vec());
}

/// What the coordinator posts, once this decision is durable.
fn webhook(
    turn: &Turn<'_>,
    stage: usize,
    threshold: usize,
    url: &str,
    verdict: &Verdict,
) -> Option<WebhookCall> {
    let rollout = turn.rollout()?;
    let counted = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
    Some(WebhookCall {
        url: url.to_owned(),
        rollout: rollout.id,
        stage: counted(stage),
        threshold: counted(threshold),
        from: rollout.from,
        to: rollout.to,
        verdict: verdict.clone(),
    })
}

/// Keeps the verdicts by which a stage is done.
pub(super) fn keep_last(turn: &mut Turn<'_>, index: usize, policy: &RolloutPolicy) {
    let Some(rollout) = turn.rollout().filter(|rollout| !rollout.back()) else { return };
    let stage = &rollout.stages[index];
    if stage.analysed && stage.shifted_at.is_some() && !policy.analysis.is_empty() {
        let verdicts = analysis::of(turn, rollout.to, stage, &policy.analysis);
        keep(turn, index, verdicts);
    }
}

/// What a stage is done in spite of, where an operator took it past its analysis.
pub(super) fn overruled(turn: &Turn<'_>, index: usize) -> Option<String> {
    let stage = turn.rollout().filter(|rollout| !rollout.back())?.stages.get(index)?;
    let open: Vec<&str> = stage
        .verdicts
        .iter()
        .filter(|verdict| stage.analysed && verdict.answer != Answer::Pass)
        .map(|verdict| verdict.text.as_str())
        .collect();
    (!open.is_empty()).then(|| open.join("; "))
}

fn keep(turn: &mut Turn<'_>, at: usize, verdicts: Vec<Verdict>) {
    if let Some(stage) = turn.stage_mut(at) {
        stage.verdicts = verdicts;
    }
}

fn act(turn: &mut Turn<'_>, index: usize, threshold: &Threshold, text: &str) -> Opinion {
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    match &threshold.action {
        AnalysisAction::RollBack => {
            let message = format!("{}: the rollout failed: {text}", turn.name);
            turn.tell(Severity::Error, "rollout-failed", message);
            if turn.rollout().is_some_and(|rollout| rollout.from.is_none()) {
                stop::hold(turn, text);
            } else {
                back::turn_round(turn, text);
            }
            Opinion::Acted
        }
        AnalysisAction::Pause => {
            let advice =
                "`baton rollout retry` looks again, `promote` goes on all the same, `abort` goes back";
            let reason = format!("{text}: {advice}");
            if let Some(rollout) = turn.memory.rollout.as_mut() {
                rollout.stages[index].held = Some(reason.clone());
                rollout.outcome = RolloutOutcome::Paused;
                rollout.reason.clone_from(&reason);
            }
            let message = format!("{}: stage {number} waits for an operator: {text}", turn.name);
            turn.tell(Severity::Warning, "rollout-paused", message);
            turn.wait(Subject::Stage(number), "analysis", reason, None);
            Opinion::Broken
        }
        AnalysisAction::Hold | AnalysisAction::Webhook { .. } => {
            turn.wait(Subject::Stage(number), "analysis", text.to_owned(), None);
            Opinion::Broken
        }
    }
}
