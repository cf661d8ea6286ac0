//! Confinements in use: laid out for a run, tried before a swap, entered by the commands of checks and hooks.

use super::refusal::Refusal;
use super::resolve::Needs;
use super::{Confinement, home};
use crate::shim::confine::{self, Entrance};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Kept in the run's folder, for agents that come after the one that started it.
const FILE: &str = "confinement.json";

/// The confinement of a run that was started: what its workload is in, and what is put beside the workload goes into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confined {
    /// The steps of the child.
    program: Vec<u8>,
    /// The control group whose limits hold, where there are any.
    group: Option<PathBuf>,
}

impl Confined {
    /// Lays a confinement out in the run's folder. `group` is where the run's limits hold.
    ///
    /// # Errors
    /// A file or folder cannot be made.
    pub(in crate::runs) fn lay_out(
        confinement: &Confinement,
        directory: &Path,
        group: Option<PathBuf>,
    ) -> io::Result<Self> {
        if let Some((user, group)) = confinement.owner() {
            home::give(&confinement.home, user, group)?;
        }
        let confined = Self { program: confinement.lay_out(directory)?, group };
        if confined != Self::default() {
            // It need not survive the machine: neither does the run.
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(directory.join(FILE))?;
            file.write_all(&serde_json::to_vec(&confined)?)?;
        }
        Ok(confined)
    }

    /// The confinement of the run in this folder; one of before it was kept, or without any, is not confined.
    ///
    /// # Errors
    /// It is there and cannot be read: nothing is to be run unconfined instead.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        match fs::read(directory.join(FILE)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// The steps of the child, for the shim.
    pub(in crate::runs) fn program(&self) -> &[u8] {
        &self.program
    }

    /// Whether its limits depend on its control group.
    pub(in crate::runs) fn is_limited(&self) -> bool {
        self.group.is_some()
    }

    /// Makes `command` enter this confinement before it is executed, in the folder `cwd`.
    ///
    /// # Errors
    /// The control group is gone.
    pub(crate) fn confine(&self, command: &mut std::process::Command, cwd: &Path) -> io::Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        let group = self.group.as_ref().map(|group| group.join("cgroup.procs"));
        let group = group.map(|procs| OpenOptions::new().write(true).open(procs)).transpose()?;
        Entrance::new(self.program.clone(), group.map(Into::into), cwd)?.put_before(command);
        Ok(())
    }
}

impl Confinement {
    /// Tries the confinement with the real program, up to but not including its execution, in `scratch` (made, and
    /// removed again). Not for a thread that must not wait.
    ///
    /// # Errors
    /// What would fail, in words.
    pub(crate) fn rehearse(&self, needs: &Needs, scratch: &Path) -> Result<(), String> {
        if self.is_none() {
            return Ok(());
        }
        let failed = |error: io::Error| format!("cannot prepare a sandbox in {}: {error}", scratch.display());
        fs::create_dir_all(scratch).map_err(failed)?;
        let program = self.lay_out(scratch).map_err(failed);
        let cwd = self.working_directory.as_ref().unwrap_or(&needs.tree);
        let tried = program.and_then(|program| {
            confine::rehearse(program, cwd, &needs.program).map_err(|failed| self.told(failed, cwd, needs))
        });
        let _ = fs::remove_dir_all(scratch);
        tried
    }

    fn is_none(&self) -> bool {
        Self { home: PathBuf::new(), ..self.clone() } == Self::default()
    }

    fn told(&self, failed: confine::Failed, cwd: &Path, needs: &Needs) -> String {
        let why = io::Error::from_raw_os_error(failed.errno);
        let user = self.account.as_ref().map_or_else(|| "it runs as".to_owned(), |account| account.shown());
        let denied = failed.errno == libc::EACCES;
        match failed.step {
            confine::STEP_FOLDER if denied => {
                Refusal::Unreachable { user, act: "enter", path: cwd.to_owned() }.to_string()
            }
            confine::STEP_EXECUTE if denied => {
                Refusal::Unreachable { user, act: "execute", path: needs.program.clone() }.to_string()
            }
            confine::STEP_FOLDER => format!("the workload cannot start in {}: {why}", cwd.display()),
            confine::STEP_EXECUTE => {
                format!("the workload cannot execute {}: {why}", needs.program.display())
            }
            step => format!("{}: {why}", confine::failure_in_words(step)),
        }
    }
}
