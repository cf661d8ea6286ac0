//! The shim's loop: wait, take in what happened, do what is due, tell the agent.

use super::clock::boot_ms;
use super::control::{PENDING_MAX, SOCKET_FILE};
use super::group::Group;
use super::history::History;
use super::process::{self, Executed, Launch};
use super::protocol::{Ended, Identity, Message, Note, Phase, Refusal, Request, State};
use super::restart::Crashes;
use super::setup::Parts;
use baton_model::observed::Exit;
use rustix::fs::AtFlags;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Between two rounds of killing what is left: a process that has just been inherited, or is slow to die.
const KILL_AGAIN_MS: u64 = 20;
/// Connections and requests taken in per round, so that a talkative peer does not hold up a restart.
const REQUESTS_PER_ROUND: usize = 8;

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
    kill_at_ms: u64,
    kill_again_ms: u64,
    killed: bool,
    stopped: bool,
    history: History,
    /// An end that has not been told yet: first the restart, then the telling.
    untold: Option<Ended>,
    armed_ms: Option<u64>,
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
            kill_at_ms: u64::MAX,
            kill_again_ms: 0,
            killed: false,
            stopped: false,
            history: History::new(),
            untold: None,
            armed_ms: None,
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
            self.wait();
        }
    }

    fn runs(&self) -> bool {
        self.workload.pid != 0
    }

    // ---- what is due -------------------------------------------------------------------------------------------

    fn do_what_is_due(&mut self) {
        let now = boot_ms();
        if self.runs() {
            if self.goal != Goal::Run && self.kill_at_ms <= now {
                self.kill_all(now);
            }
        } else if self.children_left {
            if self.goal == Goal::Run || self.kill_at_ms <= now {
                self.kill_all(now);
            }
        } else {
            match (self.goal, self.next) {
                (Goal::Stop, _) => self.finish_stop(),
                (Goal::Run | Goal::Restart, Next::StartAt(at_ms)) if at_ms <= now => self.start(now),
                (Goal::Run | Goal::Restart, Next::StartAt(_) | Next::StayDown) => {}
            }
        }
    }

    fn start(&mut self, now: u64) {
        self.parts.stdout.mark_boundary();
        self.parts.stderr.mark_boundary();
        self.restarts += u64::from(self.ever_started);
        self.ever_started = true;
        self.goal = Goal::Run;
        self.kill_at_ms = u64::MAX;
        self.started_ms = now;
        let parts = &mut self.parts;
        let mut launch = Launch {
            command: &mut parts.config.command,
            stdout: parts.stdout.write_end(),
            stderr: parts.stderr.write_end(),
            null: parts.null.as_fd(),
            listeners: &parts.listeners[..parts.listeners_len],
            group: parts.group.as_mut().and_then(Group::for_start),
            state_file: &parts.state_file,
            shim: parts.shim,
            inherited: &parts.inherited,
        };
        match process::launch(&mut launch) {
            Ok((pid, result)) => {
                self.workload = Identity { pid, start: process::start_time(pid) };
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
            process::signal_group(self.workload.pid, libc::SIGKILL);
        }
        if let Some(group) = &mut self.parts.group {
            group.kill();
        }
        process::kill_children();
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
        process::clear_signals(self.parts.signals.as_fd());
        let workload = self.workload.pid;
        // A crash leaves nothing behind; a workload told to stop gives what it leaves the same signal and its time.
        let group_signal = if self.goal == Goal::Run { libc::SIGKILL } else { self.stop_signal };
        let reaped = process::reap(workload, || process::signal_group(workload, group_signal));
        self.children_left = reaped.left;
        if let Some(exit) = reaped.workload {
            if reaped.left && self.goal != Goal::Run {
                process::signal_children(workload, self.stop_signal);
            }
            self.take_executed();
            let exit = self.exec_errno.take().map_or(exit, Exit::Exec);
            self.ended(exit);
        }
    }

    fn ended(&mut self, exit: Exit) {
        let now = boot_ms();
        let ran_ms = now.saturating_sub(self.started_ms);
        let stopping = self.goal == Goal::Stop;
        let mut restart_in_ms = None;
        if !stopping {
            let ordered = self.goal == Goal::Restart;
            let verdict =
                self.crashes.ended(&self.parts.config.policy, exit, ran_ms, ordered, process::random());
            self.crash_loop = verdict.crash_loop;
            restart_in_ms = verdict.restart_in_ms;
        }
        self.next =
            restart_in_ms.map_or(Next::StayDown, |delay_ms| Next::StartAt(now.saturating_add(delay_ms)));
        self.workload = Identity::default();
        self.kill_again_ms = 0;
        self.parts.stdout.mark_boundary();
        self.parts.stderr.mark_boundary();
        let (restarts, crash_loop) = (self.restarts, self.crash_loop);
        self.untold =
            Some(Ended { seq: 0, exit, restarts, restart_in_ms, crash_loop, stopping, note: Note::EMPTY });
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
        ended.note = self.parts.stderr.drain_to_boundary(&mut self.parts.logs);
        let ended = self.history.push(ended);
        self.parts.control.send(&Message::Exited(ended), 0);
    }

    // ---- what is asked -----------------------------------------------------------------------------------------

    fn answer(&mut self, request: Request, id: u32) {
        let reply = match request {
            Request::State => Message::State(self.state()),
            Request::Acknowledge { seq } => {
                self.history.acknowledge(seq);
                Message::Done
            }
            Request::Stop { signal, timeout_ms } => {
                self.order(Goal::Stop, signal, timeout_ms);
                Message::Done
            }
            Request::Restart { signal, timeout_ms } => {
                self.order(Goal::Restart, signal, timeout_ms);
                Message::Done
            }
            Request::Listeners => return self.hand_over_listeners(id),
            Request::Quit if self.stopped && !self.children_left => self.quit(id),
            Request::Quit => Message::Refused(Refusal::Busy),
            Request::Begin { .. } | Request::Hello { .. } => Message::Refused(Refusal::Malformed),
        };
        self.parts.control.send(&reply, id);
        if self.stopped && matches!(request, Request::Stop { .. }) {
            self.parts.control.send(&Message::Stopped { killed: self.killed }, 0);
        }
    }

    /// Stops, or stops and starts again. A stop is final; a second one only comes sooner.
    fn order(&mut self, goal: Goal, signal: i32, timeout_ms: u64) {
        if self.stopped || (self.goal == Goal::Stop && goal == Goal::Restart) {
            return;
        }
        let now = boot_ms();
        let kill_at_ms = if signal == libc::SIGKILL { now } else { now.saturating_add(timeout_ms) };
        let busy = self.runs() || self.children_left;
        match goal {
            Goal::Run => return,
            Goal::Restart if !busy && self.next == Next::StayDown => self.next = Next::StartAt(now),
            Goal::Restart if !self.runs() => return, // it is about to be started anyway
            Goal::Restart | Goal::Stop => {
                self.kill_at_ms = self.kill_at_ms.min(kill_at_ms);
                self.stop_signal = signal;
                if self.runs() {
                    process::signal(self.workload.pid, signal);
                }
            }
        }
        self.goal = goal;
    }

    fn hand_over_listeners(&mut self, id: u32) {
        let count = self.parts.listeners_len;
        let raw = self.parts.listeners;
        // SAFETY: listeners stay open until the shim ends.
        let fds = raw.map(|fd| unsafe { BorrowedFd::borrow_raw(if fd < 0 { 0 } else { fd }) });
        self.parts.control.send_with(&Message::Listeners { count: count as u8 }, id, &fds[..count]);
    }

    fn quit(&mut self, id: u32) -> ! {
        let _ = rustix::fs::unlinkat(&self.parts.directory, SOCKET_FILE, AtFlags::empty());
        self.parts.control.send(&Message::Done, id);
        std::process::exit(0)
    }

    /// A new agent: how it stands, and every end that nobody has acknowledged.
    fn welcome(&mut self, id: u32) {
        let state = self.state();
        self.parts.control.send(&Message::State(state), id);
        for seq in self.history.acknowledged_seq() + 1..=self.history.last_seq() {
            if let Some(ended) = self.history.get(seq) {
                let message = Message::Exited(*ended);
                self.parts.control.send(&message, 0);
            }
        }
        if self.stopped {
            self.parts.control.send(&Message::Stopped { killed: self.killed }, 0);
        }
    }

    fn phase(&self) -> Phase {
        match (self.goal, self.next) {
            (Goal::Stop, _) if self.stopped => Phase::Stopped,
            (Goal::Stop, _) => Phase::Stopping,
            (Goal::Run | Goal::Restart, _) if self.runs() => Phase::Running,
            (Goal::Run | Goal::Restart, Next::StartAt(_)) => Phase::Waiting,
            (Goal::Run | Goal::Restart, Next::StayDown) => Phase::Down,
        }
    }

    fn state(&self) -> State {
        let healthy = self.runs() && boot_ms() - self.started_ms >= self.parts.config.policy.reset_after_ms;
        State {
            phase: self.phase(),
            boot: self.parts.boot,
            mark: self.parts.config.mark,
            shim: self.parts.shim,
            workload: self.workload,
            restarts: self.restarts,
            crash_loop: self.crash_loop && !healthy,
            killed: self.killed,
            last_exit: self.history.last().map(|ended| ended.exit),
            last_seq: self.history.last_seq(),
            acknowledged_seq: self.history.acknowledged_seq(),
            log_bytes_dropped: self.parts.logs.dropped(),
        }
    }

    // ---- waiting -----------------------------------------------------------------------------------------------

    /// When [`Self::do_what_is_due`] has something to do, at the latest.
    fn due_ms(&self) -> Option<u64> {
        if self.runs() || self.children_left {
            let kill_ms =
                if self.goal == Goal::Run { if self.runs() { u64::MAX } else { 0 } } else { self.kill_at_ms };
            return Some(kill_ms.max(self.kill_again_ms)).filter(|at| *at < u64::MAX);
        }
        match (self.goal, self.next) {
            (Goal::Run | Goal::Restart, Next::StartAt(at_ms)) => Some(at_ms),
            (Goal::Run | Goal::Restart, Next::StayDown) | (Goal::Stop, _) => None,
        }
    }

    fn arm_timer(&mut self) {
        let due_ms = self.due_ms();
        if due_ms == self.armed_ms {
            return;
        }
        self.armed_ms = due_ms;
        // Zero disarms; a time in the past fires at once.
        let at_ms = due_ms.map_or(0, |at| at.max(1));
        let it_value = Timespec { tv_sec: (at_ms / 1000) as i64, tv_nsec: (at_ms % 1000 * 1_000_000) as _ };
        let at = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        let _ = rustix::time::timerfd_settime(&self.parts.timer, TimerfdTimerFlags::ABSTIME, &at);
    }

    /// Waits for something to happen and takes it in: ended children first, output last, one batch of each stream.
    fn wait(&mut self) {
        const CONTROL_FDS: usize = 2 + PENDING_MAX;
        self.arm_timer();
        let control = self.parts.control.poll_fds();
        let executing = self.executing.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let own = [
            self.parts.signals.as_raw_fd(),
            self.parts.timer.as_raw_fd(),
            executing,
            self.parts.stdout.read_end().as_raw_fd(),
            self.parts.stderr.read_end().as_raw_fd(),
        ];
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; 5 + CONTROL_FDS];
        for (slot, fd) in polled.iter_mut().zip(own.into_iter().chain(control)) {
            slot.fd = fd;
        }
        // SAFETY: the pointer and length are of one array.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) } < 0 {
            return;
        }
        let ready = polled.map(|p| p.revents != 0);
        if ready[0] {
            // The restart comes before everything else that may have happened.
            self.reap();
            self.do_what_is_due();
            self.tell_end();
        }
        if ready[1] {
            let mut expirations = [0; 8];
            let _ = rustix::io::read(&self.parts.timer, &mut expirations);
            self.armed_ms = None;
        }
        if ready[2] {
            self.take_executed();
        }
        self.take_messages(&ready[5..]);
        let Parts { stdout, stderr, logs, .. } = &mut self.parts;
        if ready[3] {
            stdout.pump(logs);
        }
        if ready[4] {
            stderr.pump(logs);
        }
    }

    /// Takes in what agents sent. `ready` goes with [`Control::poll_fds`].
    fn take_messages(&mut self, ready: &[bool]) {
        if ready[1] {
            for _ in 0..REQUESTS_PER_ROUND {
                let Some((request, id)) = self.parts.control.request() else { break };
                self.answer(request, id);
            }
        }
        for slot in (0..PENDING_MAX).filter(|slot| ready[2 + slot]) {
            if let Some(id) = self.parts.control.greet(slot) {
                self.welcome(id);
            }
        }
        if ready[0] {
            self.parts.control.accept();
        }
    }
}
