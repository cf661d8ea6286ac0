//! Killing a whole control group where the kernel has no `cgroup.kill` (Linux 5.2 to 5.13).
//!
//! What is frozen (`cgroup.freeze`) cannot fork, so a list of it stays complete while it is read; and SIGKILL reaches
//! what is frozen.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

/// Rounds of reading the list; freezing takes a moment, and until then a fork may be under way.
const ROUNDS_MAX: usize = 64;
/// Processes taken in one round; more are taken in the next.
const LIST_BYTES: usize = 16 << 10;

/// Kills every process of the group itself; whether it could be frozen for it. Groups below are the caller's.
pub(crate) fn kill(group: BorrowedFd<'_>) -> bool {
    if !write(group, c"cgroup.freeze", b"1") {
        return false;
    }
    for _ in 0..ROUNDS_MAX {
        if kill_listed(group) == 0 {
            break;
        }
        rustix::thread::sched_yield();
    }
    write(group, c"cgroup.freeze", b"0")
}

/// Kills those that are listed now, and tells how many there were.
fn kill_listed(group: BorrowedFd<'_>) -> usize {
    let mut text = [0; LIST_BYTES];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(group, c"cgroup.procs", flags, Mode::empty()) else { return 0 };
    let len = rustix::io::read(&file, &mut text).unwrap_or(0);
    // The kernel gives whole lines.
    let pids =
        text[..len].split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok());
    let mut killed = 0;
    for pid in pids.filter_map(rustix::process::Pid::from_raw) {
        // Ours, since it is in our group and cannot leave it.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        killed += 1;
    }
    killed
}

pub(crate) fn write(group: BorrowedFd<'_>, file: &CStr, text: &[u8]) -> bool {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(group, file, flags, Mode::empty())
        .is_ok_and(|file| rustix::io::write(file.as_fd(), text).is_ok())
}
