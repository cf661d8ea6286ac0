//! The system calls of a parent: become one, start a child, learn of its end, kill what is left.

use super::config::Command;
use super::protocol::Identity;
use super::statefile::StateFile;
use baton_model::observed::Exit;
use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::{io, ptr};

/// The shim's own descriptors are moved to this number and above, so that the child's listeners fit from 3 up.
const OWN_FD_MIN: RawFd = 64;
/// First listening socket in the workload (SD_LISTEN_FDS_START).
const LISTEN_FD_FIRST: RawFd = 3;
/// clone(2); the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Children of the shim looked at in one round of killing; more are taken in the next.
const CHILDREN_BYTES: usize = 16 << 10;

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

/// Empties the signalfd. What ended is asked with [`reap`]: signals coalesce.
pub(super) fn clear_signals(signals: BorrowedFd<'_>) {
    let mut buffer = [0_u8; size_of::<libc::signalfd_siginfo>() * 4];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|n| n > 0) {}
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

/// What became of the children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reaped {
    /// The workload ended so.
    pub(super) workload: Option<Exit>,
    /// Some child is left; since orphans are inherited, no child means no descendant at all.
    pub(super) left: bool,
}

/// Takes in every child that has ended. `before_workload` is called when the workload has ended and before its
/// process id may be used by another: only then its process group may be signalled.
pub(super) fn reap(workload: u32, mut before_workload: impl FnMut()) -> Reaped {
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
            let exit =
                if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) };
            reaped.workload = Some(exit);
            before_workload();
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

fn each_child(mut act: impl FnMut(libc::pid_t)) {
    let mut text = [0; CHILDREN_BYTES];
    let len = read_whole(c"/proc/thread-self/children", &mut text);
    for word in text[..len].split(|b| *b == b' ') {
        if let Some(pid) = parse_decimal(word).filter(|pid| *pid > 1) {
            act(pid as libc::pid_t);
        }
    }
}

/// When this process started, in clock ticks after boot (field 22 of proc_pid_stat(5)).
pub(super) fn own_start_time() -> u64 {
    start_time_in(c"/proc/self/stat")
}

/// When a child started; 0 if that cannot be read.
pub(super) fn start_time(pid: u32) -> u64 {
    use io::Write;
    let mut path = [0; 32];
    // 11 bytes and at most 10 digits fit, and a NUL is left.
    let _ = write!(&mut path[..31], "/proc/{pid}/stat");
    CStr::from_bytes_until_nul(&path).map_or(0, start_time_in)
}

fn start_time_in(path: &CStr) -> u64 {
    let mut text = [0; 1024];
    let len = read_whole(path, &mut text);
    // The name (field 2) may hold anything, also spaces and `)`; the last `)` ends it.
    let Some(end) = text[..len].iter().rposition(|b| *b == b')') else { return 0 };
    text[end + 1..len]
        .split(|b| *b == b' ')
        .filter(|w| !w.is_empty())
        .nth(19)
        .and_then(parse_decimal)
        .unwrap_or(0)
}

/// The kernel's boot id.
pub(super) fn boot_id() -> [u8; 16] {
    let mut text = [0; 64];
    let len = read_whole(c"/proc/sys/kernel/random/boot_id", &mut text);
    let mut id = [0; 16];
    let digits = text[..len].iter().filter_map(|b| char::from(*b).to_digit(16));
    for (place, digit) in digits.enumerate().take(32) {
        id[place / 2] = id[place / 2] << 4 | digit as u8;
    }
    id
}

/// Random bits for jitter; without entropy the boot clock does.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the pointer and length are of one array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if got == 8 {
        u64::from_ne_bytes(bytes)
    } else {
        super::clock::boot_ms().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

fn read_whole(path: &CStr, buffer: &mut [u8]) -> usize {
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return 0 };
    let mut len = 0;
    while let Ok(n) = rustix::io::read(&file, &mut buffer[len..]) {
        if n == 0 {
            break;
        }
        len += n;
    }
    len
}

fn parse_decimal(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.trim().parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn this_process_is_known() {
        assert!(own_start_time() > 0);
        assert_eq!(start_time(std::process::id()), own_start_time());
        assert_ne!(boot_id(), [0; 16]);
    }
}
