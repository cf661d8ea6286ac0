//! What the agent asks, and what it is answered.

use super::{Goal, Next, Shim};
use crate::shim::clock::boot_ms;
use crate::shim::control::SOCKET_FILE;
use crate::shim::ending;
use crate::shim::protocol::{Message, Phase, Refusal, Request, State};
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
        match goal {
            Goal::Run => return,
            // As soon as nothing is left of it, however long it was to wait.
            Goal::Restart if !self.runs() => {
                self.next = Next::StartAt(now);
                return;
            }
            Goal::Restart | Goal::Stop => {
                self.kill_at_ms = self.kill_at_ms.min(kill_at_ms);
                self.stop_signal = signal;
                if self.runs() {
                    ending::signal(self.workload.pid, signal);
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
    pub(super) fn welcome(&mut self, id: u32) {
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
            log_bytes_dropped: self.parts.logs.dropped(),
        }
    }
}
