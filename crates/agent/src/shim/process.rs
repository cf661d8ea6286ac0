//! The system calls of a parent: become one, start a child.

use super::confine::{self, Failed};
use super::descriptor::{move_up, pipe};
use super::encoding::Command;
use super::favour;
use super::kernel::own_start_time;
use super::protocol::Identity;
use super::statefile::StateFile;
use rustix::fs::{Mode, OFlags};
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
    /// The kernel spares this process when memory runs out.
    favoured: bool,
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
        Ok((move_up(OwnedFd::from_raw_fd(fd))?, Inherited { umask, favoured: favour::is_inherited() }))
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
    /// Where the workload records itself; a command beside it does not.
    pub(super) state_file: Option<&'a StateFile>,
    pub(super) shim: Identity,
    pub(super) inherited: &'a Inherited,
    /// The steps that set the workload apart; none for most.
    pub(super) confinement: &'a [u8],
    /// The workload runs in `group`, or not at all.
    pub(super) limited: bool,
}

/// Starts the workload. The pipe that is returned ends without a byte when it was executed, or carries the errno.
///
/// # Errors
/// The system has no process, memory or descriptor left.
pub(super) fn launch(launch: &mut Launch<'_>) -> io::Result<(u32, OwnedFd)> {
    let (result, report) = pipe()?;
    rustix::io::ioctl_fionbio(&result, true)?;
    let forked = fork_into(launch.group)?;
    if forked.pid == 0 {
        // SAFETY: this is the child of a single-threaded process; nothing here allocates, and it does not return.
        unsafe { become_workload(launch, report.as_raw_fd(), forked.in_group) }
    }
    Ok((forked.pid as u32, result))
}

/// What a fork gave, in the parent and in the child.
struct Forked {
    pid: libc::pid_t,
    in_group: bool,
}

/// fork(2), directly into a control group where there is one (writing `cgroup.procs` instead can take many
/// milliseconds: it waits for a grace period of the whole kernel).
fn fork_into(group: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    if let Some(group) = group {
        // SAFETY: all zero bytes are a valid clone_args.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = group.as_raw_fd() as u64;
        // SAFETY: without a stack and CLONE_VM this is fork(2); the child only makes async-signal-safe calls.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        if pid >= 0 {
            return Ok(Forked { pid: pid as libc::pid_t, in_group: true });
        }
        // Forbidden by a filter, an old kernel, or the group is full or was removed: a plain child is ours to reap, too.
    }
    // SAFETY: the process is single-threaded, and the child only makes async-signal-safe calls.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Forked { pid, in_group: false }),
    }
}

/// The child: everything back to what a program expects, then the program.
///
/// # Safety
/// Only in a child of a single-threaded process.
unsafe fn become_workload(launch: &mut Launch<'_>, report: RawFd, in_group: bool) -> ! {
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
        if launch.inherited.favoured {
            favour::give_up();
        }
        let pid = libc::getpid() as u32;
        write_decimal(launch.command.listen_pid, pid);
        write_decimal(launch.command.watchdog_pid, pid);
        if let Some(state_file) = launch.state_file {
            state_file.record(launch.shim, Identity { pid, start: own_start_time() });
        }
        let plain =
            [(launch.null.as_raw_fd(), 0), (launch.stdout.as_raw_fd(), 1), (launch.stderr.as_raw_fd(), 2)];
        let listening = launch.listeners.iter().copied().zip(LISTEN_FD_FIRST..);
        let wired = plain.into_iter().chain(listening).all(|(from, to)| libc::dup2(from, to) == to);
        if wired && confine_self(launch, in_group) && libc::chdir(launch.command.cwd) == 0 {
            libc::execve(launch.command.program, launch.command.argv.as_ptr(), launch.command.envp.as_ptr());
        }
        let errno = *libc::__errno_location();
        libc::write(report, (&raw const errno).cast(), size_of::<i32>());
        libc::_exit(127)
    }
}

/// Limits and sandbox; false leaves the reason in errno, and as the workload's last words on stderr.
///
/// # Safety
/// As for [`become_workload`].
unsafe fn confine_self(launch: &Launch<'_>, in_group: bool) -> bool {
    let joined = if launch.limited && !in_group { join(launch.group) } else { Ok(()) };
    // SAFETY: as the caller promises.
    let Err(failed) = joined.and_then(|()| unsafe { confine::apply(launch.confinement) }) else {
        return true;
    };
    for part in ["baton: ", confine::failure_in_words(failed.step), "\n"] {
        // SAFETY: a text and its length; errno is set after it.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: this thread's own errno.
    unsafe { *libc::__errno_location() = failed.errno };
    false
}

/// Where the fork did not go into the group, since that was full or the kernel is old.
fn join(group: Option<BorrowedFd<'_>>) -> Result<(), Failed> {
    let failed = |errno| Failed { step: confine::STEP_GROUP, errno };
    let group = group.ok_or(failed(libc::ENOENT))?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let procs = rustix::fs::openat(group, c"cgroup.procs", flags, Mode::empty())
        .map_err(|error| failed(error.raw_os_error()))?;
    confine::join(procs.as_raw_fd()).map_err(failed)
}

/// `value` in decimal, NUL-terminated, where there is room.
pub(super) fn write_decimal(out: &mut [u8], mut value: u32) {
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
