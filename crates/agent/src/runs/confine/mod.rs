//! Limits and sandbox of a run: what a service asks for, made into what this node does, or refused.
//!
//! ```text
//!  ServiceSpec.limits, .sandbox ──► resolve (names looked up, paths and rights asked) ──► Confinement ──► run
//!                                      └► Refusal: what this node cannot do, and what to do about it
//! ```
//!
//! A release is resolved when it is staged, so that a refusal comes before anything of the running release is
//! touched, and again when it is started. A [`Confinement`] is then two things: files of the run's control group
//! (`runs::contain` writes them), and a program of steps that the child does between fork and exec
//! (`shim::confine`). The program is kept in the run's folder, and [`Confined`] brings the commands of checks and
//! hooks into the very same confinement, whichever agent runs them.

mod account;
mod command;
mod home;
mod host;
mod program;
mod refusal;
mod resolve;

pub(crate) use account::owner;
pub(crate) use command::Confined;
pub use host::Host;
pub use refusal::Refusal;
pub use resolve::Needs;

use account::Account;
use baton_model::confinement::{Limits, Sandbox};
use std::ffi::OsString;
use std::path::PathBuf;

/// What a run is confined to, on this node. The default confines nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// As asked for; this node can honour them.
    limits: Limits,
    /// As asked for; this node can honour it.
    sandbox: Sandbox,
    /// Whom the workload runs as, where that is not the agent.
    account: Option<Account>,
    /// The instance's own folder, which stays writable.
    home: PathBuf,
    /// Where the workload starts, where that is not the artifact's top.
    working_directory: Option<PathBuf>,
}

impl Confinement {
    /// Makes a confinement of what a service asks for. Looks up names, so not for a thread that must not wait.
    ///
    /// # Errors
    /// What this node cannot do.
    pub fn resolve(limits: &Limits, sandbox: &Sandbox, needs: &Needs, host: &Host) -> Result<Self, Refusal> {
        resolve::resolve(limits, sandbox, needs, host)
    }

    /// The limits that the run's control group enforces.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where the workload starts, where that is not the artifact's top.
    #[must_use]
    pub fn working_directory(&self) -> Option<&PathBuf> {
        self.working_directory.as_ref()
    }

    /// Whom the workload runs as: user and group, where those are not the agent's.
    #[must_use]
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.account.as_ref().map(|account| (account.user, account.group))
    }

    /// Sets `USER` and `LOGNAME` in an environment that has none, where the workload has a user with a name.
    pub(crate) fn name_user(&self, env: &mut Vec<(OsString, OsString)>) {
        let Some(name) = self.account.as_ref().and_then(|account| account.name.as_ref()) else { return };
        for variable in ["USER", "LOGNAME"] {
            if env.iter().all(|(set, _)| set != variable) {
                env.push((variable.into(), name.into()));
            }
        }
    }
}
