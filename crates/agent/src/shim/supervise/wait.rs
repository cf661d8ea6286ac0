//! Waiting in one poll(2), and taking in what it tells.

use super::{Goal, Next, Shim};
use crate::shim::control::PENDING_MAX;
use crate::shim::journal::Wait;
use crate::shim::setup::Parts;
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec};
use std::os::fd::AsRawFd;

/// Connections and requests taken in per round, so that a talkative peer does not hold up a restart.
const REQUESTS_PER_ROUND: usize = 8;

impl Shim {
    /// When [`Self::do_what_is_due`] has something to do, at the latest.
    fn due_ms(&self) -> Option<u64> {
        let (watch, reload) =
            if self.runs() { (self.watch.due_ms(), self.reload.due_ms()) } else { (None, None) };
        let (workload, errand) = (self.workload_due_ms(), self.errand_due_ms());
        let journal = match self.parts.logs.journal_waits_for() {
            Wait::At(at_ms) => Some(at_ms),
            Wait::Nothing | Wait::Room(_) => None,
        };
        [workload, errand, watch, reload, journal, self.drops_due_ms()].into_iter().flatten().min()
    }

    /// The same for the workload itself: its start, its end, and what it leaves behind.
    fn workload_due_ms(&self) -> Option<u64> {
        let kill_ms = |kill_ms: u64| Some(kill_ms.max(self.kill_again_ms)).filter(|at| *at < u64::MAX);
        if self.runs() {
            return if self.goal == Goal::Run { None } else { kill_ms(self.kill_at_ms) };
        }
        if self.errand_alone().is_some() {
            return None;
        }
        if self.children_left {
            return kill_ms(if self.goal == Goal::Run { 0 } else { self.kill_at_ms });
        }
        if self.after_stop_due {
            return Some(0);
        }
        match (self.goal, self.next) {
            (Goal::Run | Goal::Restart, Next::StartAt(at_ms)) => Some(at_ms),
            (Goal::Stop, _) if !self.stopped => Some(0),
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
    pub(super) fn wait(&mut self) {
        const CONTROL_FDS: usize = 2 + PENDING_MAX;
        const OWN_FDS: usize = 8;
        /// The one that is waited for to be writable.
        const JOURNAL: usize = 7;
        self.arm_timer();
        let control = self.parts.control.poll_fds();
        let executing = self.executing.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let own = [
            self.parts.signals.as_raw_fd(),
            self.parts.timer.as_raw_fd(),
            executing,
            self.parts.stdout.read_end().as_raw_fd(),
            self.parts.stderr.read_end().as_raw_fd(),
            self.parts.notify.as_fd().as_raw_fd(),
            self.parts.beside.as_ref().map_or(-1, |beside| beside.read_end().as_raw_fd()),
            match self.parts.logs.journal_waits_for() {
                Wait::Room(fd) => fd,
                Wait::Nothing | Wait::At(_) => -1,
            },
        ];
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; OWN_FDS + CONTROL_FDS];
        for (slot, fd) in polled.iter_mut().zip(own.into_iter().chain(control)) {
            slot.fd = fd;
        }
        polled[JOURNAL].events = libc::POLLOUT;
        // SAFETY: the pointer and length are of one array.
        if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) } < 0 {
            return;
        }
        let ready = polled.map(|p| p.revents != 0);
        if ready[5] {
            // What it said before it ended is told by a process that is still known.
            self.take_executed();
            self.take_notifications();
        }
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
        self.take_messages(&ready[OWN_FDS..]);
        let Parts { stdout, stderr, beside, logs, .. } = &mut self.parts;
        if ready[3] {
            stdout.pump(logs);
        }
        if ready[4] {
            stderr.pump(logs);
        }
        if let Some(beside) = beside.as_mut().filter(|_| ready[6]) {
            beside.pump(logs);
        }
        if ready[JOURNAL] || ready[1] {
            logs.forward_to_journal();
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
