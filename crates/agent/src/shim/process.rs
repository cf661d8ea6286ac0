//! The system calls of a parent: become one, start a child.

use super::config::Command;
use super::descriptor::{move_up, pipe};
use super::kernel::own_start_time;
use super::protocol::Identity;
use super::statefile::StateFile;
use rustix::fs::Mode;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

/// First listening socket in the workload (SD_LISTEN_FDS_START).
const LISTEN_FD_FIRST: RawFd = 3;
/// clone(2); the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child needs from before the shim changed it.
pub(super) struct Inherited {
    umask: Mode,
}

/// Becomes a parent: own session, inherits orphans, deaf to the signals of terminals and of a stopping agent.
/// Returns a signalfd(2) that tells of ended children.
///
/// # Errors
/// A system call failed.
pub(super) fn become_parent() -> io::Result<(OwnedFd, Inherited)> {
    // Fails where it is a session leader already, which is as good.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    // SAFETY: signal sets are plain data; only this thread exists; SIG_IGN is a valid disposition.
    unsafe {
        for signal in [libc::SIGPIPE, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGXFSZ, libc::SIGQUIT]
        {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((move_up(OwnedFd::from_raw_fd(fd))?, Inherited { umask }))
    }
}

/// What a child is made from.
pub(super) struct Launch<'a> {
    pub(super) command: &'a mut Command,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
    pub(super) null: BorrowedFd<'a>,
    pub(super) listeners: &'a [RawFd],
    pub(super) group: Option<BorrowedFd<'a>>,
    pub(super) state_file: &'a StateFile,
    pub(super) shim: Identity,
    pub(super) inherited: &'a Inherited,
}

/// Starts the workload. The pipe that is returned ends without a byte when it was executed, or carries the errno.
///
/// # Errors
/// The system has no process, memory or descriptor left.
pub(super) fn launch(launch: &mut Launch<'_>) -> io::Result<(u32, OwnedFd)> {
    let (result, report) = pipe()?;
    rustix::io::ioctl_fionbio(&result, true)?;
    let pid = fork_into(launch.group)?;
    if pid == 0 {
        // SAFETY: this is the child of a single-threaded process; nothing here allocates, and it does not return.
        unsafe { become_workload(launch, report.as_raw_fd()) }
    }
    Ok((pid as u32, result))
}

/// fork(2), directly into a control group where there is one (writing `cgroup.procs` instead can take many
/// milliseconds: it waits for a grace period of the whole kernel).
fn fork_into(group: Option<BorrowedFd<'_>>) -> io::Result<libc::pid_t> {
    if let Some(group) = group {
        // SAFETY: all zero bytes are a valid clone_args.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = group.as_raw_fd() as u64;
        // SAFETY: without a stack and CLONE_VM this is fork(2); the child only makes async-signal-safe calls.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        if pid >= 0 {
            return Ok(pid as libc::pid_t);
        }
        // Forbidden by a filter, an old kernel, or the group was removed: a plain child is still ours to reap.
    }
    // SAFETY: the process is single-threaded, and the child only makes async-signal-safe calls.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// The child: everything back to what a program expects, then the program.
///
/// # Safety
/// Only in a child of a single-threaded process.
unsafe fn become_workload(launch: &mut Launch<'_>, report: RawFd) -> ! {
    // SAFETY: every pointer comes from the configuration, which is never unmapped, and is NUL-terminated there;
    // every call is async-signal-safe.
    unsafe {
        libc::setsid();
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::umask(launch.inherited.umask.as_raw_mode());
        let pid = libc::getpid() as u32;
        write_decimal(launch.command.listen_pid, pid);
        launch.state_file.record(launch.shim, Identity { pid, start: own_start_time() });
        let plain =
            [(launch.null.as_raw_fd(), 0), (launch.stdout.as_raw_fd(), 1), (launch.stderr.as_raw_fd(), 2)];
        let listening = launch.listeners.iter().copied().zip(LISTEN_FD_FIRST..);
        let wired = plain.into_iter().chain(listening).all(|(from, to)| libc::dup2(from, to) == to);
        if wired && libc::chdir(launch.command.cwd) == 0 {
            libc::execve(launch.command.program, launch.command.argv.as_ptr(), launch.command.envp.as_ptr());
        }
        let errno = *libc::__errno_location();
        libc::write(report, (&raw const errno).cast(), size_of::<i32>());
        libc::_exit(127)
    }
}

/// `value` in decimal, NUL-terminated, where there is room.
fn write_decimal(out: &mut [u8], mut value: u32) {
    let mut digits = [0; 10];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let text = &digits[first..];
    if out.len() > text.len() {
        out[..text.len()].copy_from_slice(text);
        out[text.len()] = 0;
    }
}

/// What is known of the executing of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Executed {
    NotYet,
    Yes,
    Failed(i32),
}

/// Asks the pipe of [`launch`].
pub(super) fn executed(result: BorrowedFd<'_>) -> Executed {
    let mut errno = [0; size_of::<i32>()];
    match rustix::io::read(result, &mut errno) {
        Ok(0) => Executed::Yes,
        Ok(_) => Executed::Failed(i32::from_ne_bytes(errno)),
        Err(_) => Executed::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn decimals_are_terminated() {
        for value in [0, 7, 10, u32::MAX] {
            let mut out = [b'x'; 11];
            write_decimal(&mut out, value);
            assert_eq!(CStr::from_bytes_until_nul(&out).unwrap().to_str().unwrap(), value.to_string());
        }
        let mut short = [b'x'; 2];
        write_decimal(&mut short, 12);
        assert_eq!(short, [b'x'; 2]);
    }
}
