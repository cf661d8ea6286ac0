//! The shim's loop: wait (`wait`), take in what happened, answer what is asked (`orders`), do what is due, tell the agent.

mod drops;
mod errand;
mod orders;
mod reload;
mod wait;
mod watch;

use super::clock::boot_ms;
use super::ending;
use super::group::Group;
use super::history::History;
use super::kernel;
use super::process::{self, Executed, Launch};
use super::protocol::{Ended, HookFailed, Identity, Message, Note, ReloadEnd};
use super::restart::Crashes;
use super::seal::Broken;
use super::setup::Parts;
use baton_model::lifecycle::HookPoint;
use baton_model::observed::Exit;
use drops::Telling;
use errand::{Errand, StopRequest, Task};
use reload::Reload;
use std::os::fd::{AsFd, OwnedFd};
use watch::Watch;

/// Between two rounds of killing what is left: a process that has just been inherited, or is slow to die.
const KILL_AGAIN_MS: u64 = 20;
/// Said in place of the last words of a workload that ended well and left processes behind.
const IN_THE_BACKGROUND: &[u8] =
    b"(it went into the background, and what it left there was ended with it: let it run in the foreground)";

/// What is wanted of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Run,
    /// End, then run again.
    Restart,
    Stop,
}

/// What follows when the workload has ended and nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    StartAt(u64),
    StayDown,
}

/// One shim.
pub(super) struct Shim {
    parts: Parts,
    goal: Goal,
    next: Next,
    /// The workload; a process id of 0: it does not run.
    workload: Identity,
    /// The pipe that tells whether it could be executed, until it has.
    executing: Option<OwnedFd>,
    exec_errno: Option<i32>,
    started_ms: u64,
    ever_started: bool,
    restarts: u64,
    crashes: Crashes,
    crash_loop: bool,
    /// Some descendant of a workload that ended is left.
    children_left: bool,
    stop_signal: i32,
    stop_began_ms: u64,
    kill_at_ms: u64,
    kill_again_ms: u64,
    killed: bool,
    stopped: bool,
    history: History,
    /// An end that has not been told yet: first the restart, then the telling.
    untold: Option<Ended>,
    armed_ms: Option<u64>,
    watch: Watch,
    reload: Reload,
    /// The command that runs beside the workload, or in its place.
    errand: Option<Errand>,
    /// The `before_start` hook has done its work.
    prepared: bool,
    after_ready_due: bool,
    /// The workload of which `after_ready` was told.
    ready_pid: u32,
    after_stop_due: bool,
    stop_request: Option<StopRequest>,
    /// The last line of a `before_start` hook that failed: the last words of an end without a workload.
    hook_words: Note,
    /// A hook that failed while no agent was there.
    failure_untold: Option<HookFailed>,
    /// Kills for memory in its group before it was started.
    memory_kills: u64,
    telling: Telling,
}

impl Shim {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            goal: Goal::Run,
            next: Next::StartAt(0),
            workload: Identity::default(),
            executing: None,
            exec_errno: None,
            started_ms: 0,
            ever_started: false,
            restarts: 0,
            crashes: Crashes::default(),
            crash_loop: false,
            children_left: false,
            stop_signal: 0,
            stop_began_ms: 0,
            kill_at_ms: u64::MAX,
            kill_again_ms: 0,
            killed: false,
            stopped: false,
            history: History::new(),
            untold: None,
            armed_ms: None,
            watch: Watch::new(),
            reload: Reload::default(),
            errand: None,
            prepared: false,
            after_ready_due: false,
            ready_pid: 0,
            after_stop_due: false,
            stop_request: None,
            hook_words: Note::EMPTY,
            failure_untold: None,
            memory_kills: 0,
            telling: Telling::default(),
        }
    }

    /// Never returns: ends the process on [`Request::Quit`].
    pub(super) fn run(mut self) -> ! {
        let state = self.state();
        let id = self.parts.begin_id;
        self.parts.control.send(&Message::State(state), id);
        super::memory::release_program_pages();
        loop {
            self.do_what_is_due();
            self.tell_end();
            self.tell_drops();
            self.wait();
        }
    }

    fn runs(&self) -> bool {
        self.workload.pid != 0
    }

    // ---- what is due -------------------------------------------------------------------------------------------

    fn do_what_is_due(&mut self) {
        let now = boot_ms();
        self.mind_errand(now);
        if self.runs() {
            self.mind_watch(now);
            self.mind_reload();
            self.begin_due_errands(now);
            if self.goal != Goal::Run && self.kill_at_ms <= now {
                self.kill_all(now);
            }
        } else if let Some(point) = self.errand_alone() {
            if point == HookPoint::BeforeStart && self.goal == Goal::Stop {
                self.kill_errand_at_once(now);
            }
        } else if self.children_left {
            if self.goal == Goal::Run || self.kill_at_ms <= now {
                self.kill_all(now);
            }
        } else if std::mem::take(&mut self.after_stop_due) {
            self.begin_errand(Task::Hook(HookPoint::AfterStop), now);
        } else {
            match (self.goal, self.next) {
                (Goal::Stop, _) => self.finish_stop(),
                (Goal::Run | Goal::Restart, Next::StartAt(_)) if self.prepared => self.launch(now),
                (Goal::Run | Goal::Restart, Next::StartAt(at_ms)) if at_ms <= now => self.start(now),
                (Goal::Run | Goal::Restart, Next::StartAt(_) | Next::StayDown) => {}
            }
        }
    }

    /// Starts the workload, or the hook before it.
    fn start(&mut self, now: u64) {
        // The first restart is at once, the next ones wait anyway.
        let thorough = self.crashes.in_a_row() > 1;
        self.started_ms = now;
        if let Err(Broken(note)) = self.parts.config.sealed.check(thorough) {
            self.ended(Exit::Exec(libc::EBADMSG));
            self.untold = self.untold.map(|ended| Ended { note, damaged: true, ..ended });
            return;
        }
        self.parts.stdout.mark_boundary();
        self.parts.stderr.mark_boundary();
        self.restarts += u64::from(self.ever_started);
        self.ever_started = true;
        self.goal = Goal::Run;
        self.kill_at_ms = u64::MAX;
        if self.parts.config.life.has_hook(HookPoint::BeforeStart) {
            self.begin_errand(Task::Hook(HookPoint::BeforeStart), now);
        } else {
            self.launch(now);
        }
    }

    fn launch(&mut self, now: u64) {
        self.prepared = false;
        self.started_ms = now;
        self.watch_anew(now);
        let parts = &mut self.parts;
        self.memory_kills = parts.group.as_ref().map_or(0, Group::memory_kills);
        let mut launch = Launch {
            command: &mut parts.config.command,
            stdout: parts.stdout.write_end(),
            stderr: parts.stderr.write_end(),
            null: parts.null.as_fd(),
            listeners: &parts.listeners[..parts.listeners_len],
            group: parts.group.as_mut().and_then(Group::for_start),
            state_file: Some(&parts.state_file),
            shim: parts.shim,
            inherited: &parts.inherited,
            confinement: parts.config.confinement,
            limited: parts.config.limited,
        };
        match process::launch(&mut launch) {
            Ok((pid, result)) => {
                self.workload = Identity { pid, start: kernel::start_time(pid) };
                self.parts.stdout.written_by(pid);
                self.parts.stderr.written_by(pid);
                self.executing = Some(result);
            }
            // No process or memory left: retried like a crash.
            Err(error) => self.ended(Exit::Exec(error.raw_os_error().unwrap_or(libc::EAGAIN))),
        }
    }

    /// Kills the workload and everything below it; the next round takes what is inherited by then.
    fn kill_all(&mut self, now: u64) {
        if self.kill_again_ms > now {
            return;
        }
        self.kill_again_ms = now + KILL_AGAIN_MS;
        self.killed |= self.goal == Goal::Stop;
        if self.runs() {
            ending::signal_group(self.workload.pid, libc::SIGKILL);
        }
        if let Some(group) = &mut self.parts.group {
            group.kill();
        }
        ending::kill_children();
    }

    fn finish_stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.tell_end();
            self.parts.control.send(&Message::Stopped { killed: self.killed }, 0);
        }
    }

    // ---- what happened -----------------------------------------------------------------------------------------

    /// Takes in the children that ended.
    fn reap(&mut self) {
        ending::clear_signals(self.parts.signals.as_fd());
        let workload = self.workload.pid;
        // A crash leaves nothing behind; a workload told to stop gives what it leaves the same signal and its time.
        let group_signal = if self.goal == Goal::Run { libc::SIGKILL } else { self.stop_signal };
        let reaped =
            ending::reap(workload, self.errand_pid(), || ending::signal_group(workload, group_signal));
        self.children_left = reaped.left;
        if let Some(end) = reaped.errand
            && reaped.workload.is_none()
        {
            self.errand_ended(end, boot_ms());
        }
        if let Some(exit) = reaped.workload {
            if reaped.left && self.goal != Goal::Run {
                ending::signal_children(workload, self.stop_signal);
            }
            self.take_executed();
            let exit = self.exec_errno.take().map_or_else(|| self.cause_of(exit), Exit::Exec);
            let background = reaped.left && self.errand_pid() == 0 && exit == Exit::Code(0);
            self.ended(exit);
            if let Some(ended) = self.untold.as_mut().filter(|_| background) {
                ended.note = Note::new(IN_THE_BACKGROUND);
            }
            if let Some(end) = reaped.errand {
                self.errand_ended(end, boot_ms());
            }
        }
    }

    /// Why the workload ended so, where that is known.
    fn cause_of(&self, exit: Exit) -> Exit {
        let killed = exit == Exit::Signal(libc::SIGKILL);
        let kills = || self.parts.group.as_ref().map_or(0, Group::memory_kills);
        match (self.watch.cause, self.goal) {
            (Some(cause), _) => cause,
            (None, Goal::Stop) if killed && self.killed && self.stop_signal != libc::SIGKILL => {
                Exit::StopDeadline
            }
            (None, Goal::Run) if killed && kills() > self.memory_kills => Exit::OutOfMemory,
            (None, Goal::Run | Goal::Restart | Goal::Stop) => exit,
        }
    }

    fn ended(&mut self, exit: Exit) {
        let now = boot_ms();
        let ran_ms = now.saturating_sub(self.started_ms);
        let stopping = self.goal == Goal::Stop;
        let mut restart_in_ms = None;
        if !stopping {
            // What was ended since it was not well follows its policy.
            let unwell = matches!(exit, Exit::Watchdog | Exit::WatchdogTriggered | Exit::StartDeadline);
            let ordered = self.goal == Goal::Restart && !unwell;
            let verdict =
                self.crashes.ended(&self.parts.config.policy, exit, ran_ms, ordered, kernel::random());
            self.crash_loop = verdict.crash_loop;
            restart_in_ms = verdict.restart_in_ms;
        }
        self.next =
            restart_in_ms.map_or(Next::StayDown, |delay_ms| Next::StartAt(now.saturating_add(delay_ms)));
        self.workload = Identity::default();
        self.watch_nothing();
        self.finish_reload(ReloadEnd::Ended);
        self.after_ready_due = false;
        self.ready_pid = 0;
        self.prepared = false;
        let ran = !matches!(exit, Exit::Exec(_) | Exit::BeforeStart(_));
        self.after_stop_due = ran && self.parts.config.life.has_hook(HookPoint::AfterStop);
        // A stop whose signal was not sent yet: what is left has the same time.
        self.signal_stop(now);
        self.kill_again_ms = 0;
        self.parts.stdout.mark_boundary();
        self.parts.stderr.mark_boundary();
        let (restarts, crash_loop) = (self.restarts, self.crash_loop);
        let note = Note::EMPTY;
        self.untold =
            Some(Ended { seq: 0, exit, restarts, restart_in_ms, crash_loop, stopping, note, damaged: false });
    }

    /// Asks whether the workload was executed, and tells the agent when it was. Where it could not be, its end
    /// follows at once, and tells that.
    fn take_executed(&mut self) {
        let Some(result) = &self.executing else { return };
        match process::executed(result.as_fd()) {
            Executed::NotYet => return,
            Executed::Failed(errno) => self.exec_errno = Some(errno),
            Executed::Yes => {
                let started = Message::Started { pid: self.workload.pid, restarts: self.restarts };
                self.parts.control.send(&started, 0);
            }
        }
        self.executing = None;
    }

    /// Keeps the end in the history and tells it, after its last output has been taken in.
    fn tell_end(&mut self) {
        let Some(mut ended) = self.untold.take() else { return };
        if !self.runs() {
            // Where it was started again, the child has recorded itself.
            self.parts.state_file.record(self.parts.shim, self.workload);
        }
        let _ = self.parts.stdout.drain_to_boundary(&mut self.parts.logs);
        let last_line = self.parts.stderr.drain_to_boundary(&mut self.parts.logs);
        let hook_words = std::mem::replace(&mut self.hook_words, Note::EMPTY);
        if !ended.damaged {
            let words = [hook_words, ended.note, last_line].into_iter().find(|note| *note != Note::EMPTY);
            ended.note = words.unwrap_or(Note::EMPTY);
        }
        let ended = self.history.push(ended);
        self.parts.control.send(&Message::Exited(ended), 0);
    }
}
