//! A file that one process at a time may have.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// flock(2) on a file, while this lives; the kernel frees it however the process ends.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Takes the file at `path`, which is made where it is missing.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] where somebody has it, else what the system says.
    pub(crate) fn take(path: &Path) -> Result<Self, TryLockError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for FileLock {
    /// Closing alone would not do: a child that another thread forks has the open file too until it executes its program,
    /// and keeps the lock for as long.
    fn drop(&mut self) {
        // It fails only where it is not held.
        let _ = self.0.unlock();
    }
}
