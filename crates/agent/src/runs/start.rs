//! Starting a run.

use super::{RunHandle, RunSpec, Runs};
use std::io;
use std::path::{Path, PathBuf};

/// A run could not be started; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run's directory exists: run numbers are never used twice.
    #[error("{0} exists already; a run number must not be used twice")]
    Exists(PathBuf),
    /// The spec cannot be passed on (a NUL byte in an argument, too many sockets, an environment too large).
    #[error("the workload cannot be described to its shim: {0}")]
    Spec(String),
    /// The system refused.
    #[error("{what} for the run in {directory}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The run's directory.
        directory: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The shim ended or kept silent instead of taking over.
    #[error("the shim did not start: {0}")]
    Shim(String),
}

pub(super) async fn start(runs: &Runs, spec: RunSpec) -> Result<RunHandle, StartError> {
    Err(StartError::Spec(format!("{} {:?}", spec.run, runs.exe)))
}

pub(super) async fn forget(_runs: &Runs, _directory: &Path) -> io::Result<()> {
    Ok(())
}
