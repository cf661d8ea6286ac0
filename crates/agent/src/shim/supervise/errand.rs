//! Commands around the workload: its hooks, and the command of a reload. One at a time, each with an end.
//!
//! ```text
//! start ─► before_start ─► workload ─► after_ready · reload · before_stop ─► its end ─► after_stop ─► start or stop
//! ```
//!
//! What runs beside the workload ends with it. What a command leaves behind is killed with it: by its control group
//! where there is one, else by its process group and the kernel's lists of children.

use super::{Goal, KILL_AGAIN_MS, Shim};
use crate::shim::ending;
use crate::shim::group::Group;
use crate::shim::kernel;
use crate::shim::process::{self, Executed, Launch};
use crate::shim::protocol::{HookFailed, Message, Note, ReloadEnd};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::{Exit, HookEnd};
use std::os::fd::{AsFd, OwnedFd};

/// Levels of descendants of a command that are looked for when it is killed; what is deeper hangs on what is killed.
const TREE_LEVELS: u32 = 16;

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Hook(HookPoint),
    Reload,
}

impl Task {
    /// Before each line of its output.
    const fn mark(self) -> &'static str {
        match self {
            Self::Hook(HookPoint::BeforeStart) => "[before_start] ",
            Self::Hook(HookPoint::AfterReady) => "[after_ready] ",
            Self::Hook(HookPoint::BeforeStop) => "[before_stop] ",
            Self::Hook(HookPoint::AfterStop) => "[after_stop] ",
            Self::Reload => "[reload] ",
        }
    }
}

/// A command that runs.
pub(super) struct Errand {
    task: Task,
    pid: u32,
    /// The pipe that tells whether it could be executed.
    result: OwnedFd,
    deadline_ms: u64,
    timed_out: bool,
}

/// A stop that waits for the `before_stop` hook.
#[derive(Clone, Copy)]
pub(super) struct StopRequest {
    pub(super) signal: i32,
    pub(super) timeout_ms: u64,
    /// The hook was begun.
    pub(super) begun: bool,
}

impl Shim {
    pub(super) fn errand_pid(&self) -> u32 {
        self.errand.as_ref().map_or(0, |errand| errand.pid)
    }

    /// The command that runs while no workload does.
    pub(super) fn errand_alone(&self) -> Option<HookPoint> {
        match self.errand.as_ref()?.task {
            Task::Hook(point @ (HookPoint::BeforeStart | HookPoint::AfterStop)) => Some(point),
            Task::Hook(HookPoint::AfterReady | HookPoint::BeforeStop) | Task::Reload => None,
        }
    }

    pub(super) fn errand_due_ms(&self) -> Option<u64> {
        self.errand.as_ref().map(|errand| errand.deadline_ms)
    }

    pub(super) fn begin_errand(&mut self, task: Task, now: u64) {
        let parts = &mut self.parts;
        let life = &mut parts.config.life;
        process::write_decimal(life.main_pid, self.workload.pid);
        let errand = match task {
            Task::Hook(point) => life.hook(point),
            Task::Reload => life.reload_command(),
        };
        let (Some(errand), Some(output)) = (errand, &mut parts.beside) else { return };
        output.mark_lines(task.mark());
        let deadline_ms = now.saturating_add(errand.timeout_ms);
        let mut launch = Launch {
            command: &mut errand.command,
            stdout: output.write_end(),
            stderr: output.write_end(),
            null: parts.null.as_fd(),
            listeners: &[],
            group: parts.group.as_mut().and_then(Group::for_errand),
            state_file: None,
            shim: parts.shim,
            inherited: &parts.inherited,
            confinement: parts.config.confinement,
            limited: parts.config.limited,
        };
        match process::launch(&mut launch) {
            Ok((pid, result)) => {
                self.errand = Some(Errand { task, pid, result, deadline_ms, timed_out: false })
            }
            // No process or memory left.
            Err(error) => {
                self.errand_done(task, HookEnd::Exec(error.raw_os_error().unwrap_or(libc::EAGAIN)), now)
            }
        }
    }

    /// Kills a command that takes too long, with its tree.
    pub(super) fn mind_errand(&mut self, now: u64) {
        if let Some(errand) = self.errand.as_mut().filter(|errand| errand.deadline_ms <= now) {
            errand.timed_out = true;
            self.kill_errand(now);
        }
    }

    /// Kills the command that runs; again soon, until it is gone.
    pub(super) fn kill_errand(&mut self, now: u64) {
        let Some(errand) = &mut self.errand else { return };
        errand.deadline_ms = now.saturating_add(KILL_AGAIN_MS);
        if let Some(group) = &self.parts.group {
            group.kill_errand();
        }
        // Its process has not been reaped, so its id is its own.
        kernel::kill_below(errand.pid, TREE_LEVELS);
        ending::signal_group(errand.pid, libc::SIGKILL);
    }

    /// The command has ended, and was reaped.
    pub(super) fn errand_ended(&mut self, end: HookEnd, now: u64) {
        let Some(errand) = self.errand.take() else { return };
        if let Some(group) = &self.parts.group {
            group.kill_errand();
        }
        let end = match process::executed(errand.result.as_fd()) {
            Executed::Failed(errno) => HookEnd::Exec(errno),
            Executed::Yes | Executed::NotYet if errand.timed_out => HookEnd::Timeout,
            Executed::Yes | Executed::NotYet => end,
        };
        self.errand_done(errand.task, end, now);
    }

    /// Goes on where the command stood.
    fn errand_done(&mut self, task: Task, end: HookEnd, now: u64) {
        let last_line = self.take_last_line();
        let well = end == HookEnd::Code(0);
        match task {
            Task::Hook(HookPoint::BeforeStart) if self.goal == Goal::Stop => {}
            Task::Hook(HookPoint::BeforeStart) if well => self.prepared = true,
            Task::Hook(HookPoint::BeforeStart) => {
                self.ended(Exit::BeforeStart(end));
                self.hook_words = last_line;
            }
            Task::Hook(point @ HookPoint::BeforeStop) => {
                if self.runs() {
                    self.tell_failure(point, end, last_line);
                    self.signal_stop(now);
                }
            }
            // What was killed since the workload ended has not failed.
            Task::Hook(point @ HookPoint::AfterReady) => {
                if self.runs() && self.goal == Goal::Run {
                    self.tell_failure(point, end, last_line);
                }
            }
            Task::Hook(point @ HookPoint::AfterStop) => {
                self.tell_failure(point, end, last_line);
                // What it left behind has no time of its own.
                self.kill_at_ms = now;
            }
            Task::Reload if well => self.finish_reload(ReloadEnd::Done),
            Task::Reload => self.finish_reload(ReloadEnd::Failed(end)),
        }
    }

    /// The last line that a command wrote, after all of it has been taken in.
    fn take_last_line(&mut self) -> Note {
        let parts = &mut self.parts;
        let Some(output) = &mut parts.beside else { return Note::EMPTY };
        output.mark_boundary();
        output.drain_to_boundary(&mut parts.logs)
    }

    /// Tells a hook that failed, or keeps that for the next agent.
    fn tell_failure(&mut self, point: HookPoint, end: HookEnd, note: Note) {
        if end == HookEnd::Code(0) {
            return;
        }
        let failed = HookFailed { point, end, note };
        if self.parts.control.has_agent() {
            self.parts.control.send(&Message::HookFailed(failed), 0);
        } else {
            self.failure_untold = Some(failed);
        }
    }

    /// Begins what is due beside a workload that runs.
    pub(super) fn begin_due_errands(&mut self, now: u64) {
        if let Some(request) = self.stop_request {
            if request.begun {
                return;
            }
            if self.errand.is_some() {
                return self.kill_errand_at_once(now);
            }
            self.stop_request = Some(StopRequest { begun: true, ..request });
            return self.begin_errand(Task::Hook(HookPoint::BeforeStop), now);
        }
        if self.errand.is_some() || self.goal != Goal::Run {
            return;
        }
        if std::mem::take(&mut self.after_ready_due) {
            self.begin_errand(Task::Hook(HookPoint::AfterReady), now);
        } else {
            self.begin_reload(now);
        }
    }

    pub(super) fn kill_errand_at_once(&mut self, now: u64) {
        if self.errand_due_ms().is_some_and(|due| due > now.saturating_add(KILL_AGAIN_MS)) {
            self.kill_errand(now);
        }
    }

    /// Sends the signal of a stop, after its hook.
    pub(super) fn signal_stop(&mut self, now: u64) {
        let Some(StopRequest { signal, timeout_ms, .. }) = self.stop_request.take() else { return };
        self.kill_at_ms = now.saturating_add(timeout_ms);
        self.stop_signal = signal;
        if self.runs() {
            ending::signal(self.workload.pid, signal);
        }
    }
}
