//! How processes end: learn of it, signal them, kill what is left.

use super::kernel::each_child;
use baton_model::observed::{Exit, HookEnd};
use std::os::fd::BorrowedFd;
use std::ptr;

/// Empties the signalfd. What ended is asked with [`reap`]: signals coalesce.
pub(super) fn clear_signals(signals: BorrowedFd<'_>) {
    let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>() * 4];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|n| n > 0) {}
}

/// What became of the children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reaped {
    /// The workload ended so.
    pub(super) workload: Option<Exit>,
    /// The command beside it ended so.
    pub(super) errand: Option<HookEnd>,
    /// Some child is left; since orphans are inherited, no child means no descendant at all.
    pub(super) left: bool,
}

/// Takes in every child that has ended. `before_workload` is called when the workload has ended and before its
/// process id may be used by another: only then its process group may be signalled. `errand`: the command beside it, or 0.
pub(super) fn reap(workload: u32, errand: u32, mut before_workload: impl FnMut()) -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        // SAFETY: all zero bytes are a valid siginfo_t, and the kernel fills it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: as above.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
            return reaped; // ECHILD
        }
        // SAFETY: waitid succeeded, so these fields are set (zero where nothing has ended).
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Reaped { left: true, ..reaped };
        }
        if pid as u32 == workload {
            reaped.workload = Some(match info.si_code {
                libc::CLD_EXITED => Exit::Code(status),
                libc::CLD_DUMPED => Exit::CoreDump(status),
                _ => Exit::Signal(status),
            });
            before_workload();
        } else if pid as u32 == errand {
            reaped.errand = Some(match info.si_code {
                libc::CLD_EXITED => HookEnd::Code(status),
                _ => HookEnd::Signal(status),
            });
            // What it left in its process group ends with it.
            signal_group(errand, libc::SIGKILL);
        }
        // SAFETY: it has ended, so this does not wait.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}

/// Signals the workload itself; it has not been reaped, so its id is its own.
pub(super) fn signal(workload: u32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe {
        libc::kill(workload as libc::pid_t, signal);
        libc::kill(workload as libc::pid_t, libc::SIGCONT);
    }
}

/// Signals the workload's process group; the leader has not been reaped, so the group's id is its own.
pub(super) fn signal_group(workload: u32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(-(workload as libc::pid_t), signal) };
}

/// Kills every descendant that is a child by now. The children of what is killed are inherited, and taken in the
/// next round.
pub(super) fn kill_children() {
    each_child(|pid| {
        // SAFETY: no memory is involved. It is a child not reaped yet, so its id is its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    });
}

/// Signals the children outside the process group of the workload (which has had the signal).
pub(super) fn signal_children(except_group: u32, signal: i32) {
    each_child(|pid| {
        // SAFETY: no memory is involved. It is a child not reaped yet, so its id is its own.
        unsafe {
            if libc::getpgid(pid) != except_group as libc::pid_t {
                libc::kill(pid, signal);
            }
        }
    });
}
