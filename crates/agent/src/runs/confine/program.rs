//! The steps of a confinement, for the child; and the folders of the run that they mount.

use super::Confinement;
use super::resolve::PRIVATE;
use crate::shim::confine::{PROGRAM_BYTES_MAX, Step, encode};
use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Attributes of mount_setattr(2).
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// What is mounted over hidden folders and hidden files.
const EMPTY_FOLDER: &str = "empty";
const EMPTY_FILE: &str = "nothing";

impl Confinement {
    /// Makes in `directory` (of the run) what its steps mount, and gives the steps' bytes. What is made goes when the
    /// directory is removed.
    ///
    /// # Errors
    /// The folders cannot be made, or a path holds a NUL.
    pub(super) fn lay_out(&self, directory: &Path) -> io::Result<Vec<u8>> {
        let mounts = self.mounts(directory)?;
        let steps = self.steps(&mounts);
        let program = encode(&steps);
        if program.len() > PROGRAM_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the sandbox's paths are too many or too long",
            ));
        }
        Ok(program)
    }

    fn mounts(&self, directory: &Path) -> io::Result<Mounts> {
        let mut mounts = Mounts::default();
        let sandbox = &self.sandbox;
        if sandbox.needs_mounts().is_none() {
            return Ok(mounts);
        }
        if !sandbox.read_only.is_empty() && self.home.is_dir() {
            let home = text(&self.home)?;
            mounts.binds.push((home.clone(), home.clone()));
            mounts.writable.push(home);
        }
        if sandbox.private_tmp {
            for (path, name) in PRIVATE.into_iter().zip(["tmp", "var-tmp"]) {
                let own = make_folder(directory.join(name), 0o1777)?;
                mounts.binds.push((text(&own)?, text(Path::new(path))?));
                mounts.private.push(text(Path::new(path))?);
            }
        }
        for path in &sandbox.read_only {
            let at = text(Path::new(path))?;
            // The root is a mount already; every other path is made one, to have attributes of its own.
            if path != "/" {
                mounts.binds.push((at.clone(), at.clone()));
            }
            mounts.read_only.push(at);
        }
        for path in &sandbox.hidden {
            let nothing = if Path::new(path).is_dir() {
                make_folder(directory.join(EMPTY_FOLDER), 0o555)?
            } else {
                make_file(directory.join(EMPTY_FILE))?
            };
            let at = text(Path::new(path))?;
            mounts.binds.push((text(&nothing)?, at.clone()));
            mounts.read_only.push(at);
        }
        Ok(mounts)
    }

    /// What only root may do comes before it stops being root.
    fn steps<'a>(&'a self, mounts: &'a Mounts) -> Vec<Step<'a>> {
        let (limits, sandbox) = (&self.limits, &self.sandbox);
        let mut steps = Vec::new();
        steps.extend(sandbox.nice.map(Step::Nice));
        let limit = |resource, value: Option<u64>| value.map(|value| Step::Limit { resource, value });
        steps.extend(limit(libc::RLIMIT_NOFILE, limits.open_files));
        steps.extend(limit(libc::RLIMIT_CORE, limits.core_bytes));
        mounts.add_steps(&mut steps);
        let account = self.account.as_ref();
        let kept = sandbox
            .capabilities
            .as_ref()
            .map(|kept| kept.iter().fold(0, |bits, capability| bits | 1_u64 << capability.number()));
        if let Some(account) = account {
            steps.push(Step::OwnOutput { user: account.user, group: account.group });
        }
        steps.extend(kept.map(Step::Bounding));
        if let Some(account) = account {
            let (user, group) = (account.user, account.group);
            steps.push(Step::Account {
                user,
                group,
                groups: &account.wire,
                keep: kept.is_some_and(|bits| bits != 0),
            });
        }
        steps.extend(kept.map(Step::Capabilities));
        steps.extend(sandbox.umask.map(Step::Umask));
        if sandbox.no_new_privileges {
            steps.push(Step::NoNewPrivileges);
        }
        steps
    }
}

/// What is mounted, in C's form.
#[derive(Default)]
struct Mounts {
    /// What is shown, and where; in this order.
    binds: Vec<(CString, CString)>,
    read_only: Vec<CString>,
    /// Private and therefore without devices and set-user-ID programs.
    private: Vec<CString>,
    /// Writable although something above is read-only.
    writable: Vec<CString>,
}

impl Mounts {
    fn add_steps<'a>(&'a self, steps: &mut Vec<Step<'a>>) {
        if self.binds.is_empty() && self.read_only.is_empty() {
            return;
        }
        steps.push(Step::OwnMounts);
        steps.extend(self.binds.iter().map(|(from, to)| Step::Bind { from, to }));
        let change = |at, set, clear, recursive| Step::Attributes { at, set, clear, recursive };
        steps.extend(self.read_only.iter().map(|at| change(at, READ_ONLY, 0, true)));
        steps.extend(self.private.iter().map(|at| change(at, HARMLESS, READ_ONLY, false)));
        steps.extend(self.writable.iter().map(|at| change(at, 0, READ_ONLY, true)));
    }
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Makes a folder of this mode, whatever the agent's umask is; one that is there is as good.
fn make_folder(path: PathBuf, mode: u32) -> io::Result<PathBuf> {
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => fs::set_permissions(&path, Permissions::from_mode(mode))?,
    }
    Ok(path)
}

fn make_file(path: PathBuf) -> io::Result<PathBuf> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o444).open(&path)?;
    Ok(path)
}
