//! Commands that the agent itself executes inside a confinement, and a trial of one.

use super::apply::{Failed, apply};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Beyond the steps of a program: entering the control group, the folder, and executing the program.
pub(crate) const STEP_GROUP: u8 = 12;
/// See [`STEP_GROUP`].
pub(crate) const STEP_FOLDER: u8 = 13;
/// See [`STEP_GROUP`].
pub(crate) const STEP_EXECUTE: u8 = 14;
/// The trial came to its end. Its child must fail to tell anything, since it must not execute.
const STEP_DONE: u8 = 15;
/// A step and an errno in the one number that std's child can tell. Every errno is below 4096 (MAX_ERRNO).
const STEP_SHIFT: u32 = 12;

/// What a child does between fork and exec.
pub(crate) struct Entrance {
    program: Vec<u8>,
    /// `cgroup.procs` of the group it joins.
    group: Option<OwnedFd>,
    folder: CString,
}

impl Entrance {
    /// # Errors
    /// The folder's name holds a NUL.
    pub(crate) fn new(program: Vec<u8>, group: Option<OwnedFd>, folder: &Path) -> io::Result<Self> {
        Ok(Self { program, group, folder: c_text(folder)? })
    }

    /// Has the child of `command` do it. A failure is the error of its `spawn`.
    pub(crate) fn put_before(self, command: &mut Command) {
        let enter = move || self.enter().map_err(|failed| io::Error::from_raw_os_error(failed.errno));
        // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
        unsafe { command.pre_exec(enter) };
    }

    fn enter(&self) -> Result<(), Failed> {
        let last =
            |step| Failed { step, errno: io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) };
        if let Some(group) = &self.group {
            join(group.as_raw_fd()).map_err(|errno| Failed { step: STEP_GROUP, errno })?;
        }
        // SAFETY: this is a child between fork and exec.
        unsafe { apply(&self.program)? };
        // Again, and only now: what was entered before may lie below a mount that is covered since.
        // SAFETY: a NUL-terminated text.
        if unsafe { libc::chdir(self.folder.as_ptr()) } != 0 { Err(last(STEP_FOLDER)) } else { Ok(()) }
    }
}

/// Moves the calling process into the group of this `cgroup.procs`.
pub(in crate::shim) fn join(procs: libc::c_int) -> Result<(), i32> {
    // SAFETY: one byte of a constant; `0` is whoever writes.
    if unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } == 1 {
        return Ok(());
    }
    Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Forks a child that does everything but execute `executable`: confines itself, enters the folder, asks whether it may execute.
///
/// # Errors
/// What failed.
pub(crate) fn rehearse(program: Vec<u8>, folder: &Path, executable: &Path) -> Result<(), Failed> {
    let broken = |error: io::Error| Failed { step: 0, errno: error.raw_os_error().unwrap_or(libc::EINVAL) };
    let entrance = Entrance::new(program, None, folder).map_err(broken)?;
    let path = c_text(executable).map_err(broken)?;
    // Never executed; std wants a program that is there.
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
    let try_all = move || {
        let failed = match entrance.enter() {
            Err(failed) => failed,
            // SAFETY: a NUL-terminated text.
            Ok(()) if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, 0) } != 0 => {
                let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
                Failed { step: STEP_EXECUTE, errno }
            }
            Ok(()) => Failed { step: STEP_DONE, errno: 0 },
        };
        Err(io::Error::from_raw_os_error(i32::from(failed.step) << STEP_SHIFT | failed.errno))
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(try_all) };
    match command.spawn() {
        // It cannot be: the closure always fails.
        Ok(mut child) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Failed { step: 0, errno: libc::EINVAL })
        }
        Err(error) => {
            let told = error.raw_os_error().unwrap_or(libc::EINVAL);
            let failed = Failed { step: (told >> STEP_SHIFT) as u8, errno: told & ((1 << STEP_SHIFT) - 1) };
            if failed.step == STEP_DONE { Ok(()) } else { Err(failed) }
        }
    }
}

/// Whether a thread can have mounts of its own here, tried in the calling one, which must end after it.
pub(crate) fn try_own_mounts() -> bool {
    // SAFETY: numbers, and a call that fails for its wrong descriptor before it looks at anything else.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && (libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, 0, 0) == 0
                || *libc::__errno_location() != libc::ENOSYS)
    }
}

fn c_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::super::{Step, encode};
    use super::*;

    #[test]
    fn a_trial_finds_what_would_fail_and_changes_nothing() {
        let umask = encode(&[Step::Umask(0o077), Step::NoNewPrivileges]);
        let sh = Path::new("/bin/sh");
        assert_eq!(rehearse(umask.clone(), Path::new("/"), sh), Ok(()));
        let nowhere = rehearse(umask.clone(), Path::new("/no/such"), sh);
        assert_eq!(nowhere, Err(Failed { step: STEP_FOLDER, errno: libc::ENOENT }));
        let nothing = rehearse(umask, Path::new("/"), Path::new("/etc/passwd"));
        assert_eq!(nothing, Err(Failed { step: STEP_EXECUTE, errno: libc::EACCES }));
        let limit = encode(&[Step::Limit { resource: 999, value: 0 }]);
        assert_eq!(rehearse(limit, Path::new("/"), sh), Err(Failed { step: 2, errno: libc::EINVAL }));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.lines().any(|line| line == "NoNewPrivs:\t0"), "{status}");
    }

    #[test]
    fn a_command_is_confined() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask; pwd; grep NoNewPrivs /proc/self/status"]);
        let program = encode(&[Step::Umask(0o077), Step::NoNewPrivileges]);
        Entrance::new(program, None, Path::new("/usr")).unwrap().put_before(&mut command);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0077\n/usr\nNoNewPrivs:\t1\n");
    }
}
