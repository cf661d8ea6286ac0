//! The process that brings the old program back where the new one does not work.
//!
//! It is the old program itself, started beside the agent before that goes on as the new one *in the same process*. The
//! new one has a while to be confirmed; until then its death, or its silence, is a failure. The guardian then writes that
//! down, kills the process it has held since before it changed, and lets whoever supervises the agent start it again; a
//! host without a supervisor gets the old program from the guardian itself.

use super::record::Programs;
use crate::config::{StateDir, StateError};
use baton_model::id::Digest;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, getppid, pidfd_open, pidfd_send_signal};
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A supervisor that nobody told us of starts the agent again within this time, or there is none.
const SUPERVISOR_WITHIN: Duration = Duration::from_secs(5);

/// Bytes read at a time when a program is hashed.
const HASH_BUFFER_BYTES: usize = 64 * 1024;

/// What a guardian is started with.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The agent's folder.
    pub dir: PathBuf,
    /// The agent's process: our parent.
    pub process: u32,
    /// The request whose program is tried.
    pub request: u64,
    /// How long it may take to be confirmed.
    pub within: Duration,
    /// Somebody starts the agent again when it ends.
    pub supervised: bool,
    /// What the agent was started with, without the program.
    pub agent: Vec<OsString>,
}

/// Why a guardian could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The agent that started it is gone.
    #[error("the agent that started this guardian is gone: only an agent starts one, in an upgrade")]
    NoAgent,
    /// The system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Guards the trial of a program to its end; waits on the calling thread. Does not return where it goes on as the agent itself.
///
/// # Errors
/// [`GuardError`].
pub fn guard(guard: Guard) -> Result<(), GuardError> {
    let failed = |what| move |source: io::Error| GuardError::Io { what, source };
    let agent = hold_parent(guard.process)?;
    let programs = Programs::below(&guard.dir);
    let reason = if ends_within(&agent, guard.within).map_err(failed("watch the agent's process"))? {
        "it ended before it had reached the coordinator".to_owned()
    } else {
        format!("it did not reach the coordinator within {} s", guard.within.as_secs())
    };
    let failed_now = programs
        .change(|record| record.fail_trial(guard.request, reason.clone()))
        .map_err(failed("write down that the new program failed"))?;
    if !failed_now {
        return Ok(());
    }
    tracing::warn!(reason, "the agent's new program failed; the one before returns");
    // The very process that was held while it was our parent, whatever it runs now; gone already is as good.
    let _ = pidfd_send_signal(&agent, rustix::process::Signal::KILL);
    if guard.supervised {
        return Ok(());
    }
    // Nothing tells whether there is a supervisor but what it does.
    std::thread::sleep(SUPERVISOR_WITHIN);
    if is_followed(&guard) {
        return Ok(());
    }
    Err(failed("go on as the agent")(return_as(&guard.agent)))
}

/// Whether another agent was started after the one that was guarded: it has the folder, or has had it.
fn is_followed(guard: &Guard) -> bool {
    let latest = StateDir::latest_holder(&guard.dir);
    latest.is_some_and(|latest| latest != guard.process)
        || matches!(StateDir::open(&guard.dir), Err(StateError::InUse { .. }))
}

/// Whether the process ends in time: a pidfd is readable from then on; see pidfd_open(2).
fn ends_within(process: &OwnedFd, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()));
        let left = left.map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Holds the process that started us. It is proven by being our parent after it was opened: a parent that ends is
/// replaced at once, and its number is not given anew before we have another.
fn hold_parent(process: u32) -> Result<OwnedFd, GuardError> {
    let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(GuardError::NoAgent)?;
    let held = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| GuardError::NoAgent)?;
    if getppid() == Some(pid) { Ok(held) } else { Err(GuardError::NoAgent) }
}

/// This same program as the agent, in place of this process.
pub(super) fn return_as(args: &[OsString]) -> io::Error {
    Command::new("/proc/self/exe").args(args).exec()
}

/// Starts the guardian of a trial: the program that runs now.
pub(super) fn start(guard: &Guard) -> io::Result<u32> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["agent", "guard-upgrade", "--request", &guard.request.to_string()]);
    command.args(["--process", &guard.process.to_string()]);
    command.arg("--within").arg(format!("{}ms", guard.within.as_millis())).arg("--dir").arg(&guard.dir);
    if guard.supervised {
        command.arg("--supervised");
    }
    // Its own group: a signal for the agent's group, as of a terminal, is not for it.
    command.arg("--").args(&guard.agent).stdin(Stdio::null()).process_group(0);
    Ok(command.spawn()?.id())
}

/// Ends the guardian, which is a child of this process; one that is not, or not any more, is left alone.
pub(super) fn dismiss(guardian: u32) {
    let Ok(pid) = i32::try_from(guardian).map(Pid::from_raw) else { return };
    if waitpid(pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
        // Ours and not reaped, so its number means no other process.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
    }
}

/// Whether somebody starts the agent again when it ends: systemd, or the parent that it was told to end with.
pub(super) fn is_supervised(args: &[OsString]) -> bool {
    let with_parent =
        |arg: &OsString| arg.to_str().is_some_and(|arg| arg.split('=').next() == Some("--with-parent"));
    std::env::var_os("NOTIFY_SOCKET").is_some() || args.iter().any(with_parent)
}

/// Reads a program's digest.
pub(super) fn digest(program: &Path) -> io::Result<Digest> {
    let (mut file, mut hash) = (File::open(program)?, Sha256::new());
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}
