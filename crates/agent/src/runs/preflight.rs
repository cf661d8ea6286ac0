//! Can this file be executed here? Asked before a run is started, so that the answer is a sentence and not an errno.

use std::path::{Path, PathBuf};

/// Why a program cannot be executed on this machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PreflightError {
    /// It is not there.
    #[error("{0} does not exist; check `exec` and what the artifact contains")]
    Missing(PathBuf),
}

/// Tells whether `program` can be executed here, as far as its file says.
///
/// # Errors
/// [`PreflightError`], with what to do.
pub fn preflight(program: &Path) -> Result<(), PreflightError> {
    if program.exists() { Ok(()) } else { Err(PreflightError::Missing(program.into())) }
}
