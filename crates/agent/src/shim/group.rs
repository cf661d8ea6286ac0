//! The workload's control group, where it has one.
//!
//! `cgroup.kill` works on all that is below the directory the agent gave. After it has been used, the next workload
//! is put into a fresh group below: Linux 6.14 and later kill a process that is cloned directly into a group that was
//! ever killed, since they compare the group's count of kills with that of the parent's group
//! (`cgroup_css_set_fork` takes `kill_seq` before it knows the target).

use super::freeze;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The group of one run.
pub(super) struct Group {
    /// All of the workload is below it.
    root: OwnedFd,
    /// Where the next workload is put, where that is not `root`.
    leaf: Option<OwnedFd>,
    /// Numbers the fresh groups.
    number: u64,
    killed: bool,
    /// The group of the last command beside the workload.
    errand: Option<OwnedFd>,
    /// Numbers those groups.
    errands: u64,
}

impl Group {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, leaf: None, number: 0, killed: false, errand: None, errands: 0 }
    }

    /// Where the next workload is to be put.
    pub(super) fn for_start(&mut self) -> Option<BorrowedFd<'_>> {
        if self.killed {
            self.leaf = self.fresh().ok();
            self.killed = self.leaf.is_none();
        }
        if self.killed {
            return None; // It would be killed at once; inheritance by the shim contains it as well.
        }
        Some(self.leaf.as_ref().map_or(self.root.as_fd(), AsFd::as_fd))
    }

    /// A fresh group for a command beside the workload, so that it can be killed without it.
    pub(super) fn for_errand(&mut self) -> Option<BorrowedFd<'_>> {
        self.errand = self.fresh_errand().ok();
        if self.errand.is_none() {
            return self.for_start();
        }
        self.errand.as_ref().map(AsFd::as_fd)
    }

    /// Kills the command that was put into the group of [`Self::for_errand`], with all it started.
    pub(super) fn kill_errand(&self) {
        if let Some(errand) = &self.errand {
            kill_group(errand.as_fd());
        }
    }

    /// How many processes the kernel has killed here since the group has reached its memory limit (`oom_kill` of
    /// `memory.events`); 0 where that is not counted.
    pub(super) fn memory_kills(&self) -> u64 {
        let mut text = [0; 512];
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.root, c"memory.events", flags, Mode::empty());
        let Ok(file) = opened else { return 0 };
        let len = rustix::io::read(&file, &mut text).unwrap_or(0);
        memory_kills_in(&text[..len])
    }

    /// Kills every process in the group and below.
    pub(super) fn kill(&mut self) {
        self.killed |= kill_group(self.root.as_fd());
    }

    fn fresh_errand(&mut self) -> io::Result<OwnedFd> {
        let (mut old, mut new) = ([0; 32], [0; 32]);
        let _ = rustix::fs::unlinkat(&self.root, errand_name(&mut old, self.errands), AtFlags::REMOVEDIR);
        self.errands += 1;
        self.open_new(errand_name(&mut new, self.errands))
    }

    fn fresh(&mut self) -> io::Result<OwnedFd> {
        let (mut old, mut new) = ([0; 32], [0; 32]);
        // An emptied group that is not removed now is removed with the run.
        let _ = rustix::fs::unlinkat(&self.root, name(&mut old, self.number), AtFlags::REMOVEDIR);
        self.number += 1;
        self.open_new(name(&mut new, self.number))
    }

    fn open_new(&self, name: &CStr) -> io::Result<OwnedFd> {
        rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        super::descriptor::move_up(rustix::fs::openat(&self.root, name, flags, Mode::empty())?)
    }
}

/// Whether it could be done.
fn kill_group(group: BorrowedFd<'_>) -> bool {
    freeze::write(group, c"cgroup.kill", b"1") || freeze::kill(group)
}

fn memory_kills_in(text: &[u8]) -> u64 {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "));
    line.and_then(|count| std::str::from_utf8(count).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// `beside-<number>` in `buffer`.
fn errand_name(buffer: &mut [u8; 32], number: u64) -> &CStr {
    // 7 bytes and at most 20 digits fit, and a NUL is left.
    let _ = write!(&mut buffer[..31], "beside-{number}");
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"beside")
}

/// `again-<number>` in `buffer`.
fn name(buffer: &mut [u8; 32], number: u64) -> &CStr {
    // 6 bytes and at most 20 digits fit, and a NUL is left.
    let _ = write!(&mut buffer[..31], "again-{number}");
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_memory_are_counted() {
        assert_eq!(memory_kills_in(b"low 0\nhigh 12\nmax 3\noom 2\noom_kill 1\noom_group_kill 7\n"), 1);
        assert_eq!(memory_kills_in(b""), 0);
    }
}
