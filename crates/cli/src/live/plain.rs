//! The same story as plain lines, for pipes and logs of CI: one line per change, with the time since the start.

use super::frame::{self, passage};
use crate::show;
use baton_model::id::InstanceId;
use baton_model::observed::InstanceState;
use baton_model::report::{RolloutReport, StageReport, StageState, Waiting};
use baton_model::status::{PlacedInstance, ServiceStatus, UndeliveredWebhook};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// What was told so far, so that only changes are told.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    rollout: String,
    /// Why the rollout stands as it does, where that was told.
    reason: String,
    stages: BTreeMap<u32, String>,
    instances: BTreeMap<InstanceId, String>,
    waiting: Vec<String>,
    /// Of webhooks that were not delivered: whom, and of which verdict.
    webhooks: Vec<(String, String)>,
}

impl Teller {
    /// The lines that are new in `status`.
    pub(crate) fn tell(&mut self, status: &ServiceStatus) -> Vec<String> {
        let mut news = Vec::new();
        if let Some(rollout) = &status.report.rollout {
            news.extend(self.standing(rollout, status));
            for stage in &rollout.stages {
                let text = stage_text(stage);
                if stage.state != StageState::Pending && self.stages.get(&stage.number) != Some(&text) {
                    news.push(text.clone());
                    news.extend(compared(rollout, stage));
                    self.stages.insert(stage.number, text);
                }
            }
        }
        for instance in &status.instances {
            let text = instance_text(status, instance);
            let key = uncounted(&text);
            if self.instances.get(&instance.id) != Some(&key) {
                news.push(text);
                self.instances.insert(instance.id.clone(), key);
            }
        }
        self.instances.retain(|id, _| status.instances.iter().any(|instance| instance.id == *id));
        let waiting: Vec<String> = status.report.waiting.iter().map(waiting_key).collect();
        for (key, wait) in waiting.iter().zip(&status.report.waiting) {
            if !self.waiting.contains(key) {
                news.push(waiting_text(wait, status.now));
            }
        }
        self.waiting = waiting;
        news.extend(self.undelivered(status));
        let elapsed =
            status.report.rollout.as_ref().map_or(0, |rollout| status.now.since(rollout.started_at).0);
        news.into_iter().map(|text| format!("{} {text}", stamp(elapsed))).collect()
    }
}

impl Teller {
    /// How the rollout stands, with its reason where nothing has told that yet and nothing that is about to be told does.
    fn standing(&mut self, rollout: &RolloutReport, status: &ServiceStatus) -> Option<String> {
        let (_, word) = frame::outcome(rollout.outcome);
        let text = format!("{} {}: {word}", status.name, passage(rollout));
        let told = self.has_told(rollout);
        if self.rollout == text && told {
            return None;
        }
        self.rollout.clone_from(&text);
        self.reason.clone_from(&rollout.reason);
        Some(if told || self.tells_next(status, &rollout.reason) {
            text
        } else {
            format!("{text}: {}", rollout.reason)
        })
    }

    /// Whether something that is waited for says this, and is new: of what is waited for already, a new sentence is not told.
    fn tells_next(&self, status: &ServiceStatus, reason: &str) -> bool {
        let mut waiting = status.report.waiting.iter();
        waiting.any(|wait| wait.reason.contains(reason) && !self.waiting.contains(&waiting_key(wait)))
    }

    /// Whether the reason of the rollout is among what was told, or there is none.
    pub(crate) fn has_told(&self, rollout: &RolloutReport) -> bool {
        rollout.reason.is_empty() || self.reason == rollout.reason
    }

    /// Of each webhook that was not delivered, once: its tries are many.
    fn undelivered(&mut self, status: &ServiceStatus) -> Vec<String> {
        let of = |webhook: &UndeliveredWebhook| (webhook.target.clone(), webhook.threshold.clone());
        let new = status.webhooks.iter().filter(|webhook| !self.webhooks.contains(&of(webhook)));
        let told = new.map(|webhook| frame::webhook_line(webhook, status.now));
        let told = told
            .map(|line| line.render(usize::MAX, false).trim_start_matches([' ', '!']).to_owned())
            .collect();
        self.webhooks = status.webhooks.iter().map(of).collect();
        told
    }
}

/// Time since the rollout began, in a fixed width: `[  12.4s]`.
pub(crate) fn stamp(elapsed_ms: u64) -> String {
    format!("[{:>5}.{}s]", elapsed_ms / 1000, elapsed_ms % 1000 / 100)
}

/// Whether something that is waited for says this.
pub(crate) fn waits_for(status: &ServiceStatus, reason: &str) -> bool {
    status.report.waiting.iter().any(|wait| wait.reason.contains(reason))
}

fn stage_text(stage: &StageReport) -> String {
    let word = match stage.state {
        StageState::Pending => "pending",
        StageState::Running => "changing",
        StageState::Baking => "baking",
        StageState::Done => "done",
        StageState::Failed => "failed",
    };
    format!("stage {} ({}): {word}", stage.number, stage.title)
}

/// What a stage that is over has compared.
fn compared(rollout: &RolloutReport, stage: &StageReport) -> Vec<String> {
    let over = stage.comparison.as_ref().filter(|_| stage.ended_at.is_some());
    let lines = over.map(|it| super::comparison::lines(rollout, it)).unwrap_or_default();
    lines.into_iter().map(|line| line.render(usize::MAX, false).trim_start().to_owned()).collect()
}

fn instance_text(status: &ServiceStatus, instance: &PlacedInstance) -> String {
    let head = format!("{} on {}:", instance.id, instance.node);
    let Some(observed) = &instance.observed else {
        return format!("{head} assigned {}", instance.wanted_version);
    };
    let mut text = format!("{head} {} {}", frame::version(status, observed.release), observed.state);
    if let Some(swap) = &observed.swap {
        text.push_str(&format!(", swap to {} {}", frame::version(status, swap.to), swap.phase));
        if !swap.reason.is_empty() {
            text.push_str(&format!(" ({})", swap.reason));
        }
    }
    let in_trouble = matches!(observed.state, InstanceState::Fetching | InstanceState::Failed);
    if in_trouble && !observed.reason.is_empty() {
        text.push_str(&format!(" ({})", observed.reason));
    }
    if instance.node_silent {
        text.push_str(", its node is silent");
    }
    text
}

/// Without what is in brackets and counts: attempts and waits would be told again and again.
fn uncounted(text: &str) -> String {
    let (head, reason) = text.split_once(" (").unwrap_or((text, ""));
    let words = reason.chars().filter(|letter| !letter.is_ascii_digit());
    head.chars().chain(words).collect()
}

/// What a reason is about; its sentence may count down and would be told again and again.
fn waiting_key(waiting: &Waiting) -> String {
    format!("{} {}", frame::subject(&waiting.subject), waiting.gate)
}

fn waiting_text(waiting: &Waiting, now: UnixMs) -> String {
    let left = waiting.until.map(|until| format!(" ({})", frame::left(until, now))).unwrap_or_default();
    format!("{} waits for {}: {}{left}", frame::subject(&waiting.subject), waiting.gate, waiting.reason)
}

/// The last line: how it ended, with the measured times; and why, unless that was `told` before.
pub(crate) fn summary(status: &ServiceStatus, told: bool) -> String {
    let Some(rollout) = &status.report.rollout else { return format!("{} has had no rollout", status.name) };
    let (_, word) = frame::outcome(rollout.outcome);
    let took = rollout.ended_at.unwrap_or(status.now).since(rollout.started_at).duration();
    let ready = format!("{} of {} ready", status.report.ready, status.report.wanted);
    let mut text =
        format!("{} {}: {word} after {}, {ready}", status.name, passage(rollout), show::length(took));
    let stages: Vec<String> = rollout
        .stages
        .iter()
        .filter_map(|stage| Some(show::length(stage.ended_at?.since(stage.started_at?).duration())))
        .collect();
    if stages.len() > 1 {
        text.push_str(&format!("; stages took {}", stages.join(", ")));
    }
    if !told && !rollout.reason.is_empty() {
        text.push_str(&format!("; {}", rollout.reason));
    }
    text
}
