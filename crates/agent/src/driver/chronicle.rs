//! What is worth an event in the journal, with the times measured on this node.

use crate::journal::{Draft, Journal};
use crate::runs::{RunEvent, RunEventKind};
use baton_engine::instance::Event;
use baton_model::id::InstanceId;
use baton_model::observed::{InstanceObserved, InstanceState, SwapPhase};
use baton_model::time::BootMs;
use std::collections::BTreeMap;

/// Figures and facts of an event.
pub(super) type Facts = BTreeMap<String, String>;

/// What is remembered of one instance to measure the next event by; lost with the agent, which costs only figures.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    exited_at: Option<BootMs>,
    started_at: Option<BootMs>,
    crash_looping: bool,
    last_stderr: String,
    state: Option<InstanceState>,
    swap: Option<SwapTimes>,
    /// Since when nothing serves, as a swap had to end the old run before the new one could start.
    gap_since: Option<BootMs>,
}

/// When the phases of the swap under way began.
#[derive(Debug)]
struct SwapTimes {
    phase: SwapPhase,
    began: BootMs,
    phases: Vec<(SwapPhase, BootMs)>,
}

/// The facts in an event that concern the note it causes.
pub(super) fn facts(event: &Event) -> Facts {
    let mut facts = Facts::new();
    let mut fact = |name: &str, value: String| facts.insert(name.to_owned(), value);
    match event {
        Event::Exited { run, exit, restarts, restart_in, crash_loop: _, last_words: _, damage: _ } => {
            fact("run", run.to_string());
            fact("exit", exit.to_string());
            fact("restarts", restarts.to_string());
            if let Some(length) = restart_in {
                fact("restart_in_ms", length.0.to_string());
            }
        }
        Event::StageFailed { release, .. } | Event::Staged(release) => {
            fact("release", release.to_string());
        }
        Event::Started { run, .. }
        | Event::StartFailed { run, .. }
        | Event::Health { run, .. }
        | Event::NotLive { run, .. }
        | Event::Steered(run)
        | Event::SteerFailed { run, .. }
        | Event::Mended { run, .. }
        | Event::MendFailed { run, .. }
        | Event::ShimLost(run)
        | Event::Refreshed(run)
        | Event::RefreshFailed { run, .. }
        | Event::Rerendered { run, .. }
        | Event::Reloaded { run, .. } => {
            fact("run", run.to_string());
        }
        Event::Drained { run, cut } => {
            fact("run", run.to_string());
            fact("cut", cut.to_string());
        }
        Event::Stopped { run, killed } => {
            fact("run", run.to_string());
            fact("killed", killed.to_string());
        }
        Event::Plan(_)
        | Event::Resumed { .. }
        | Event::Dependencies { .. }
        | Event::Provisioned
        | Event::Timer => {}
    }
    facts
}

impl Chronicle {
    /// Journals what the machine wants noted, with the facts of its cause and the times of a swap.
    #[allow(clippy::too_many_arguments)] // One call, from where all of these are at hand.
    pub(super) fn note(
        &mut self,
        id: &InstanceId,
        warning: bool,
        kind: &'static str,
        message: String,
        facts: &Facts,
        now: BootMs,
        journal: &Journal,
    ) {
        let gap =
            if kind == "swap-done" { self.gap_since.take().map(|since| now.since(since)) } else { None };
        let message = match gap {
            Some(gap) => format!("{message}; nothing served there for {} ms", gap.0),
            None => message,
        };
        let mut draft =
            if warning { Draft::warning(kind, message) } else { Draft::info(kind, message) }.of(id);
        if let Some(gap) = gap {
            draft = draft.with("gap_ms", gap.0);
        }
        for (name, value) in facts {
            draft = draft.with(name, value);
        }
        if kind == "instance-exited" && !self.last_stderr.is_empty() {
            draft = draft.with("last_stderr", std::mem::take(&mut self.last_stderr));
        }
        if (kind == "swap-done" || kind == "swap-failed")
            && let Some(swap) = self.swap.take()
        {
            draft = draft.with("total_ms", now.since(swap.began).0);
            for (i, (phase, from)) in swap.phases.iter().enumerate() {
                let until = swap.phases.get(i + 1).map_or(now, |(_, until)| *until);
                draft = draft.with(&format!("{phase}_ms").replace('-', "_"), until.since(*from).0);
            }
        }
        journal.record(draft);
    }

    /// Journals what a shim told.
    pub(super) fn tell(&mut self, event: &RunEvent, now: BootMs, journal: &Journal) {
        let id = &event.instance;
        match &event.kind {
            RunEventKind::Started { pid, ports: _ } => {
                let mut draft = Draft::info("instance-started", format!("{id} was started as process {pid}"))
                    .of(id)
                    .with("run", event.run)
                    .with("pid", pid);
                if let Some(exited) = self.exited_at.take() {
                    draft = draft.with("after_exit_ms", now.since(exited).0);
                }
                self.started_at = Some(now);
                journal.record(draft);
            }
            RunEventKind::Exited { crash_loop, restarts, last_stderr, .. } => {
                self.exited_at = Some(now);
                self.last_stderr.clone_from(last_stderr);
                if *crash_loop && !self.crash_looping {
                    let mut message =
                        format!("{id} is in a crash loop ({restarts} restarts so far); it is retried slowly");
                    if !last_stderr.is_empty() {
                        message = format!("{message}; the last it wrote to stderr: {last_stderr}");
                    }
                    journal.record(
                        Draft::error("crash-loop", message)
                            .of(id)
                            .with("run", event.run)
                            .with("restarts", restarts),
                    );
                }
                self.crash_looping = *crash_loop;
            }
            RunEventKind::Stopped { killed } => {
                let message = format!("every process of {id} (run {}) has ended", event.run);
                journal.record(
                    Draft::info("instance-stopped", message)
                        .of(id)
                        .with("run", event.run)
                        .with("killed", killed),
                );
            }
            RunEventKind::HookFailed { point, end, last_line } => {
                let mut draft =
                    Draft::warning("hook-failed", format!("the {point} hook of {id} failed: {end}"))
                        .of(id)
                        .with("run", event.run)
                        .with("hook", point)
                        .with("end", end);
                if !last_line.is_empty() {
                    draft = draft.with("last_line", last_line);
                }
                journal.record(draft);
            }
            RunEventKind::LogDropped { file_began, journal_began } => {
                let warn = |kind, message| {
                    journal.record(Draft::warning(kind, message).of(id).with("run", event.run));
                };
                if *file_began {
                    warn(
                        "log-dropped",
                        format!(
                            "output of {id} cannot be written to its log, and is dropped: is the disk of this node \
                         full? `baton service show {}` counts how much",
                            id.service
                        ),
                    );
                }
                if *journal_began {
                    warn(
                        "log-not-in-journal",
                        format!(
                            "the system's journal does not take all lines of {id}: they come too fast, or it is \
                         stopped; `baton logs {}` has them, and `baton service show {}` counts how many",
                            id.service, id.service
                        ),
                    );
                }
            }
            // The machine notes these, where they matter; a status is in the report.
            RunEventKind::ShimLost | RunEventKind::Reloaded { .. } | RunEventKind::Notified => {}
        }
    }

    /// Follows what is reported: a swap that begins or goes on, an instance that becomes ready.
    pub(super) fn follow(
        &mut self,
        id: &InstanceId,
        seen: Option<&(InstanceObserved, Option<BootMs>)>,
        now: BootMs,
        journal: &Journal,
    ) {
        let Some((seen, _)) = seen else { return };
        if seen.state == InstanceState::Ready && self.state != Some(InstanceState::Ready) {
            let mut draft = Draft::info("instance-ready", format!("{id} is ready"))
                .of(id)
                .with("run", seen.run)
                .with("release", seen.release);
            if let Some(started) = self.started_at {
                draft = draft.with("after_start_ms", now.since(started).0);
            }
            // The swap failed, and the old release is back.
            if let Some(since) = self.gap_since.take() {
                draft = draft.with("gap_ms", now.since(since).0);
            }
            journal.record(draft);
        }
        self.state = Some(seen.state);
        let Some(swap) = &seen.swap else { return };
        if swap.phase == SwapPhase::StoppingOld {
            self.gap_since.get_or_insert(now);
        }
        match swap.phase {
            SwapPhase::Staging | SwapPhase::StoppingOld | SwapPhase::Confirming | SwapPhase::Refreshing => {
                match &mut self.swap {
                    Some(times) if times.phase == swap.phase => {}
                    Some(times) => {
                        times.phase = swap.phase;
                        times.phases.push((swap.phase, now));
                    }
                    None => {
                        journal.record(
                            Draft::info(
                                "swap-started",
                                format!("{id} is going from release {} to {}", seen.release, swap.to),
                            )
                            .of(id)
                            .with("from", seen.release)
                            .with("to", swap.to)
                            .with("attempt", swap.attempt),
                        );
                        self.swap = Some(SwapTimes {
                            phase: swap.phase,
                            began: now,
                            phases: vec![(swap.phase, now)],
                        });
                    }
                }
            }
            // The machine notes the end of a swap itself.
            SwapPhase::DrainingOld | SwapPhase::Reverting | SwapPhase::Failed => self.swap = None,
        }
    }
}
