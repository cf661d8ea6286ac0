//! Taking over a run that outlived an earlier agent.

use super::{RunHandle, RunRecord, RunState, Runs};
use std::io;
use std::path::{Path, PathBuf};

/// What became of a run that an earlier agent had started.
#[derive(Debug)]
pub enum Adoption {
    /// It lives; its events come from now on.
    Adopted(Box<Adopted>),
    /// Its shim has gone. What was left of the workload and provably ours has been removed.
    /// Call `Runs::forget` when this has been acted upon.
    Gone {
        /// What it was, where that could still be read.
        record: Option<RunRecord>,
        /// Why, for people.
        reason: String,
    },
}

/// A run that lives on.
#[derive(Debug)]
pub struct Adopted {
    /// The run. Ends that were not acknowledged are told once more as `Exited` events, in order, then what
    /// happens from now on; a run that had been stopped tells `Stopped` once more.
    pub handle: RunHandle,
    /// How the run is now.
    pub state: RunState,
}

/// It cannot be told whether a run lives. Nothing was signalled.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The shim lives, and does not answer or refuses.
    #[error("the shim of the run in {directory} (process {pid}) lives but cannot be spoken with: {reason}")]
    Unreachable {
        /// The run's directory.
        directory: PathBuf,
        /// The shim's process.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// The directory cannot be read.
    #[error("reading the run in {directory}")]
    Io {
        /// The run's directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) async fn adopt(_runs: &Runs, directory: &Path) -> Result<Adoption, AdoptError> {
    Err(AdoptError::Io { directory: directory.into(), source: io::ErrorKind::Unsupported.into() })
}
