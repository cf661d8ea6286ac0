//! What the live view shows of a rollout, as lines: pure, so that it is tested by its text.

use super::line::{Line, Style};
use crate::show;
use baton_model::event::{Event, Severity};
use baton_model::id::ReleaseNumber;
use baton_model::observed::{InstanceState, SwapPhase};
use baton_model::report::{RolloutReport, ServiceReport, StageReport, StageState, Step, Subject, Waiting};
use baton_model::rollout::{Answer, RolloutOutcome, Verdict};
use baton_model::status::{PlacedInstance, ServiceStatus, UndeliveredWebhook};
use baton_model::time::UnixMs;
use std::time::Duration;

/// Stages shown at most; the ones around the present one are chosen.
const STAGES_MAX: usize = 6;
/// Reasons of waiting shown at most.
const WAITING_MAX: usize = 4;
/// Events shown at most.
const EVENTS_MAX: usize = 5;
/// Instances shown even where the terminal is too low for all parts.
const INSTANCES_MIN: usize = 4;

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// The service now.
    pub(crate) status: &'a ServiceStatus,
    /// What happened last, oldest first.
    pub(crate) events: &'a [Event],
    /// Something to say about the view itself: that the coordinator is gone.
    pub(crate) note: Option<&'a str>,
    /// The coordinator's time now.
    pub(crate) now: UnixMs,
}

/// The whole view, for a terminal with `height` rows.
pub(crate) fn frame(scene: &Scene<'_>, height: u16) -> Vec<Line> {
    let status = scene.status;
    let mut top = vec![header(status, scene.now)];
    if let Some(rollout) = &status.report.rollout {
        top.extend(stages(rollout, scene.now, height == u16::MAX));
    }
    top.extend(super::traffic::lines(&status.traffic));
    top.extend(status.report.rollout.as_ref().map(super::comparison::of_rollout).unwrap_or_default());
    let mut bottom = waiting(&status.report, scene.now);
    bottom.extend(status.webhooks.iter().map(|webhook| webhook_line(webhook, scene.now)));
    bottom.extend(events(scene.events));
    if let Some(note) = scene.note {
        bottom.push(Line::of(Style::Warn, format!("! {note}")));
    }
    // One row for the titles of the instances, one that stays free.
    let used = top.len() + bottom.len() + 2;
    let room = usize::from(height).saturating_sub(used).max(INSTANCES_MIN);
    let mut lines = top;
    lines.extend(instances(status, room, scene.now));
    lines.extend(bottom);
    lines
}

/// `web  1.0 → 2.0  rolling out  12.4s`.
pub(crate) fn header(status: &ServiceStatus, now: UnixMs) -> Line {
    let line = Line::of(Style::Bold, status.name.to_string());
    let Some(rollout) = &status.report.rollout else {
        return line.then(Style::Dim, "  no rollout yet");
    };
    let elapsed = rollout.ended_at.unwrap_or(now).since(rollout.started_at).duration();
    let (style, word) = outcome(rollout.outcome);
    line.then(Style::Plain, format!("  {}", passage(rollout)))
        .then(style, format!("  {word}"))
        .then(Style::Dim, format!("  {}", show::length(elapsed)))
        .then(Style::Plain, format!("  {}/{} ready", status.report.ready, status.report.wanted))
}

/// `1.0 → 2.0`, or `2.0` for a first release. What was being tried out when an operator undid it never stood, so that there
/// is only what it goes back to.
pub(crate) fn passage(rollout: &RolloutReport) -> String {
    match &rollout.from_version {
        Some(_) if rollout.from == Some(rollout.to) => format!("back to {}", rollout.to_version),
        Some(from) => format!("{from} → {}", rollout.to_version),
        None => rollout.to_version.to_string(),
    }
}

/// An outcome as people say it.
pub(crate) const fn outcome(outcome: RolloutOutcome) -> (Style, &'static str) {
    match outcome {
        RolloutOutcome::Running => (Style::Busy, "rolling out"),
        RolloutOutcome::Paused => (Style::Warn, "paused"),
        RolloutOutcome::RollingBack => (Style::Warn, "rolling back"),
        RolloutOutcome::Succeeded => (Style::Good, "done"),
        RolloutOutcome::RolledBack => (Style::Bad, "rolled back"),
        RolloutOutcome::Superseded => (Style::Dim, "superseded"),
        RolloutOutcome::Failed => (Style::Bad, "failed"),
    }
}

/// The stages, with what analysis says of the present one and of one that it was not content with; `whole`: of each.
fn stages(rollout: &RolloutReport, now: UnixMs, whole: bool) -> Vec<Line> {
    let all = &rollout.stages;
    let present = all.iter().position(|stage| stage.state != StageState::Done).unwrap_or(all.len());
    let first = present.saturating_sub(STAGES_MAX / 2).min(all.len().saturating_sub(STAGES_MAX));
    let mut lines = Vec::new();
    for stage in all.iter().skip(first).take(STAGES_MAX) {
        lines.push(stage_line(stage, now));
        if whole || stage.state != StageState::Done {
            lines.extend(stage.verdicts.iter().filter_map(verdict_line));
        }
    }
    if all.len() > STAGES_MAX {
        let last = all.len().min(first + STAGES_MAX);
        lines.push(Line::of(Style::Dim, format!("    stages {} to {last} of {}", first + 1, all.len())));
    }
    lines
}

/// What the evidence said; what is not answered yet is among what is waited for.
fn verdict_line(verdict: &Verdict) -> Option<Line> {
    let (style, mark) = match verdict.answer {
        Answer::Pass => (Style::Good, '✓'),
        Answer::Fail => (Style::Bad, '✗'),
        Answer::Inconclusive => return None,
    };
    Some(Line::of(style, format!("      {mark} ")).then(Style::Dim, verdict.text.clone()))
}

fn stage_line(stage: &StageReport, now: UnixMs) -> Line {
    let (style, mark, word) = match stage.state {
        StageState::Pending => (Style::Dim, '·', ""),
        StageState::Running => (Style::Busy, '▸', "changing"),
        StageState::Baking => (Style::Busy, '▸', "baking"),
        StageState::Done => (Style::Good, '✓', ""),
        StageState::Failed => (Style::Bad, '✗', "failed"),
    };
    let done = stage.instances.values().filter(|step| **step == Step::Done).count();
    let elapsed = stage.started_at.map(|start| stage.ended_at.unwrap_or(now).since(start).duration());
    // A step whose share needs no further instance changes none.
    let count = match stage.instances.len() {
        0 => "   ".to_owned(),
        all => format!("{done}/{all}"),
    };
    Line::of(style, format!("  {mark} {}", stage.title))
        .pad_to(28)
        .then(Style::Plain, format!("  {count}"))
        .then(Style::Dim, elapsed.map(|time| format!("  {}", show::length(time))).unwrap_or_default())
        .then(style, if word.is_empty() { String::new() } else { format!("  {word}") })
}

/// The instances, those that change or fail first, as many as there is room for.
fn instances(status: &ServiceStatus, room: usize, now: UnixMs) -> Vec<Line> {
    let mut rows: Vec<(u8, Line)> =
        status.instances.iter().map(|it| (rank(it), instance_line(status, it, now))).collect();
    // Stable: within a rank they stay in the order of their slots.
    if rows.len() > room {
        rows.sort_by_key(|(rank, _)| *rank);
    }
    let hidden = rows.len().saturating_sub(room);
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines =
        vec![Line::of(Style::Dim, format!("  {:<14} {:<14} {:<9} RELEASE", "INSTANCE", "NODE", "STATE"))];
    // The row that counts the hidden ones takes the place of one more.
    let shown = if hidden > 0 { room - 1 } else { room };
    lines.extend(rows.into_iter().take(shown).map(|(_, line)| line));
    if hidden > 0 {
        lines.push(Line::of(Style::Dim, format!("  and {} more", hidden + 1)));
    }
    lines
}

/// 0 for what wants attention, 2 for what is as it should be.
fn rank(instance: &PlacedInstance) -> u8 {
    let Some(observed) = &instance.observed else { return 0 };
    match (observed.state, &observed.swap, instance.node_silent) {
        (InstanceState::Failed, _, _) | (_, _, true) => 0,
        (_, Some(swap), _) if swap.phase == SwapPhase::Failed => 0,
        (InstanceState::Ready, None, false) => 2,
        (
            InstanceState::Absent
            | InstanceState::Fetching
            | InstanceState::Staged
            | InstanceState::Starting
            | InstanceState::Ready
            | InstanceState::Draining
            | InstanceState::Stopped,
            _,
            false,
        ) => 1,
    }
}

fn instance_line(status: &ServiceStatus, instance: &PlacedInstance, now: UnixMs) -> Line {
    let observed = instance.observed.as_ref();
    let state = observed.map_or(InstanceState::Absent, |observed| observed.state);
    let style = if instance.node_silent { Style::Warn } else { state_style(state) };
    let word = if instance.node_silent { "silent?".to_owned() } else { state.to_string() };
    let mut line = Line::of(Style::Plain, format!("  {:<14} {:<14} ", instance.id, instance.node))
        .then(style, format!("{word:<9}"))
        .then(
            Style::Plain,
            format!(" {}", observed.map_or_else(|| "-".to_owned(), |o| version(status, o.release))),
        );
    let Some(observed) = observed else { return line };
    if let Some(swap) = &observed.swap {
        let style = if swap.phase == SwapPhase::Failed { Style::Bad } else { Style::Busy };
        line = line.then(style, format!(" → {} {}", version(status, swap.to), swap.phase));
        if !swap.reason.is_empty() {
            line = line.then(Style::Dim, format!("  {}", swap.reason));
        }
    } else if observed.release != instance.wanted_release {
        line = line.then(Style::Busy, format!(" → {}", instance.wanted_version));
    }
    if observed.state != InstanceState::Ready && !observed.reason.is_empty() {
        line = line.then(Style::Dim, format!("  {}", observed.reason));
    } else if let Some(since) = observed.ready_since {
        line = line.then(Style::Dim, format!("  for {}", show::length(now.since(since).duration())));
    }
    if observed.crash_loop {
        line = line.then(Style::Bad, "  crash loop");
    }
    line
}

/// The style of a state.
pub(crate) const fn state_style(state: InstanceState) -> Style {
    match state {
        InstanceState::Ready => Style::Good,
        InstanceState::Failed => Style::Bad,
        InstanceState::Absent | InstanceState::Stopped => Style::Dim,
        InstanceState::Fetching
        | InstanceState::Staged
        | InstanceState::Starting
        | InstanceState::Draining => Style::Busy,
    }
}

/// The operator's name of a release, or its number where it is no longer kept.
pub(crate) fn version(status: &ServiceStatus, release: ReleaseNumber) -> String {
    let kept = status.releases.iter().find(|kept| kept.number == release);
    kept.map_or_else(|| format!("#{release}"), |kept| kept.version.to_string())
}

fn waiting(report: &ServiceReport, now: UnixMs) -> Vec<Line> {
    let mut lines: Vec<Line> =
        report.waiting.iter().take(WAITING_MAX).map(|wait| waiting_line(wait, now)).collect();
    let more = report.waiting.len().saturating_sub(WAITING_MAX);
    if more > 0 {
        lines.push(Line::of(Style::Dim, format!("    and {more} more; see `baton explain`")));
    }
    lines
}

/// `  ⧗ web.2: health: ready for 0.4s of 1s (0.6s left)`.
pub(crate) fn waiting_line(waiting: &Waiting, now: UnixMs) -> Line {
    let line = Line::of(Style::Warn, format!("  ⧗ {}: ", subject(&waiting.subject)))
        .then(Style::Plain, format!("{}: {}", waiting.gate, waiting.reason));
    match waiting.until {
        Some(until) => line.ending(Style::Dim, format!(" ({})", left(until, now))),
        None => line,
    }
}

/// `  ! http://hooks was not told of the verdict of errors: it answered 503; try 4 comes in 12s, the last one in 58m`.
pub(crate) fn webhook_line(webhook: &UndeliveredWebhook, now: UnixMs) -> Line {
    let UndeliveredWebhook { target, threshold, reason, attempts, .. } = webhook;
    let ahead = |at: UnixMs| show::length(at.since(now).duration());
    let (next, last) = (ahead(webhook.next_at), ahead(webhook.given_up_after));
    Line::of(Style::Warn, "  ! ")
        .then(Style::Plain, format!("{target} was not told of the verdict of {threshold}: {reason}"))
        .then(Style::Dim, format!("; try {} in {next}, the last one in {last}", attempts.saturating_add(1)))
}

/// How long until a time: `4.2s left`, or `any moment`.
pub(crate) fn left(until: UnixMs, now: UnixMs) -> String {
    match until.since(now).duration() {
        Duration::ZERO => "any moment".to_owned(),
        left => format!("{} left", show::length(left)),
    }
}

/// What a reason is about, in a word or two.
pub(crate) fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Service => "service".to_owned(),
        Subject::Rollout => "rollout".to_owned(),
        Subject::Stage(number) => format!("stage {number}"),
        Subject::Instance(id) => id.to_string(),
        Subject::Node(name) => name.to_string(),
    }
}

fn events(events: &[Event]) -> Vec<Line> {
    events.iter().skip(events.len().saturating_sub(EVENTS_MAX)).map(event_line).collect()
}

/// `  12:00:01 web.2 message`.
pub(crate) fn event_line(event: &Event) -> Line {
    let style = match event.severity {
        Severity::Info => Style::Plain,
        Severity::Warning => Style::Warn,
        Severity::Error => Style::Bad,
    };
    Line::of(Style::Dim, format!("  {} ", show::clock(event.at))).then(style, event.message.clone())
}
