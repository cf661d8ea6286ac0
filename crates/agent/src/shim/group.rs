//! The workload's control group, where it has one.
//!
//! `cgroup.kill` works on all that is below the directory the agent gave. After it has been used, the next workload
//! is put into a fresh group below: Linux 6.14 and later kill a process that is cloned directly into a group that was
//! ever killed, since they compare the group's count of kills with that of the parent's group
//! (`cgroup_css_set_fork` takes `kill_seq` before it knows the target).

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
}

impl Group {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, leaf: None, number: 0, killed: false }
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

    /// Kills every process in the group and below.
    pub(super) fn kill(&mut self) {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(&self.root, c"cgroup.kill", flags, Mode::empty())
            && rustix::io::write(&file, b"1").is_ok()
        {
            self.killed = true;
        }
    }

    fn fresh(&mut self) -> io::Result<OwnedFd> {
        let (mut old, mut new) = ([0; 32], [0; 32]);
        // An emptied group that is not removed now is removed with the run.
        let _ = rustix::fs::unlinkat(&self.root, name(&mut old, self.number), AtFlags::REMOVEDIR);
        self.number += 1;
        let new = name(&mut new, self.number);
        rustix::fs::mkdirat(&self.root, new, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        super::descriptor::move_up(rustix::fs::openat(&self.root, new, flags, Mode::empty())?)
    }
}

/// `again-<number>` in `buffer`.
fn name(buffer: &mut [u8; 32], number: u64) -> &CStr {
    // 6 bytes and at most 20 digits fit, and a NUL is left.
    let _ = write!(&mut buffer[..31], "again-{number}");
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"again")
}
