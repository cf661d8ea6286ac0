//! What the agent asks, and what it is answered.

use super::errand::StopRequest;
use super::{Goal, Next, Shim};
use crate::shim::clock::boot_ms;
use crate::shim::control::SOCKET_FILE;
use crate::shim::ending;
use crate::shim::protocol::{Message, Phase, Refusal, Request, State};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::Exit;
use rustix::fs::AtFlags;
use std::os::fd::BorrowedFd;

impl Shim {
    pub(super) fn answer(&mut self, request: Request, id: u32) {
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
            Request::Signal { signal } => {
                // One that is starting or stopping reads its files anew, or never again.
                if self.runs() {
                    ending::signal(self.workload.pid, signal);
                }
                Message::Done
            }
            Request::Listeners => return self.hand_over_listeners(id),
            Request::Quit if self.stopped && !self.children_left => self.quit(id),
            Request::Quit => Message::Refused(Refusal::Busy),
            Request::Ready { pid } => {
                let first = self.runs() && pid == self.workload.pid && pid != self.ready_pid;
                if first && self.parts.config.life.has_hook(HookPoint::AfterReady) {
                    self.ready_pid = pid;
                    self.after_ready_due = true;
                }
                Message::Done
            }
            Request::Reload { number } => {
                self.parts.control.send(&Message::Done, id);
                return self.order_reload(number);
            }
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
        match goal {
            Goal::Run => return,
            // As soon as nothing is left of it, however long it was to wait.
            Goal::Restart if !self.runs() => {
                self.next = Next::StartAt(now);
                return;
            }
            Goal::Restart if self.goal == Goal::Run => self.watch.cause = Some(Exit::NotLive),
            Goal::Restart | Goal::Stop => {}
        }
        self.stop_began_ms = now;
        self.watch_no_more();
        self.ask_to_end(signal, timeout_ms, now);
        self.goal = goal;
    }

    /// Signals the workload, or begins with the hook before that; a second order only shortens what the first gave.
    fn ask_to_end(&mut self, signal: i32, timeout_ms: u64, now: u64) {
        let warned = signal != libc::SIGKILL;
        if let Some(request) = self.stop_request.as_mut().filter(|_| warned) {
            request.signal = signal;
            request.timeout_ms = request.timeout_ms.min(timeout_ms);
            return;
        }
        self.stop_request = None;
        let hook = self.parts.config.life.has_hook(HookPoint::BeforeStop);
        if warned && hook && self.runs() && self.goal == Goal::Run {
            self.stop_request = Some(StopRequest { signal, timeout_ms, begun: false });
            return;
        }
        let kill_at_ms = if warned { now.saturating_add(timeout_ms) } else { now };
        self.kill_at_ms = self.kill_at_ms.min(kill_at_ms);
        self.stop_signal = signal;
        if self.runs() {
            ending::signal(self.workload.pid, signal);
        }
    }

    fn hand_over_listeners(&mut self, id: u32) {
        let count = self.parts.listeners_len;
        let raw = self.parts.listeners;
        // SAFETY: listeners stay open until the shim ends.
        let fds = raw.map(|fd| unsafe { BorrowedFd::borrow_raw(if fd < 0 { 0 } else { fd }) });
        self.parts.control.send_with(&Message::Listeners { count: count as u8 }, id, &fds[..count]);
    }

    fn quit(&mut self, id: u32) -> ! {
        self.parts.logs.finish();
        self.tell_last_drops();
        let _ = rustix::fs::unlinkat(&self.parts.directory, SOCKET_FILE, AtFlags::empty());
        self.parts.control.send(&Message::Done, id);
        std::process::exit(0)
    }

    /// A new agent: how it stands, and every end that nobody has acknowledged.
    pub(super) fn welcome(&mut self, id: u32) {
        let state = self.state();
        self.parts.control.send(&Message::State(state), id);
        for seq in self.history.acknowledged_seq() + 1..=self.history.last_seq() {
            if let Some(ended) = self.history.get(seq) {
                let message = Message::Exited(*ended);
                self.parts.control.send(&message, 0);
            }
        }
        self.tell_last_reload();
        self.tell_drops_anew();
        if let Some(failed) = self.failure_untold.take() {
            self.parts.control.send(&Message::HookFailed(failed), 0);
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

    pub(super) fn state(&self) -> State {
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
            notified: self.watch.said(),
            log_drops: self.parts.logs.dropped(),
        }
    }
}
