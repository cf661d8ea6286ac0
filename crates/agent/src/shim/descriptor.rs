//! The shim's own descriptors: out of the way of the workload's, and closed when it is executed.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The shim's own descriptors are moved to this number and above, so that the child's listeners fit from 3 up.
const OWN_FD_MIN: RawFd = 64;

/// Moves a descriptor out of the way of the child's, close-on-exec.
///
/// # Errors
/// No descriptor is left.
pub(super) fn move_up(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= OWN_FD_MIN {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, OWN_FD_MIN)?)
}

/// A pipe (read end, write end), out of the way and close-on-exec.
///
/// # Errors
/// No descriptor is left.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((move_up(read_end)?, move_up(write_end)?))
}

/// Puts `/dev/null` on standard input, so that the channel's old number is not mistaken for it.
///
/// # Errors
/// There is no `/dev/null`.
pub(super) fn null_stdin() -> io::Result<OwnedFd> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let null = move_up(null)?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(null)
}

/// Takes over descriptor 0, on which the agent's socket came.
pub(super) fn take_stdin() -> io::Result<OwnedFd> {
    // SAFETY: descriptor 0 is the agent's socket, and nothing else in this process has used it yet.
    let fd = unsafe { OwnedFd::from_raw_fd(0) };
    let moved = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), OWN_FD_MIN);
    // It stays open as 0 until `null_stdin` replaces it, so that no other descriptor gets that number.
    let _ = fd.into_raw_fd();
    Ok(moved?)
}
