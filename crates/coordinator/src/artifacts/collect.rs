//! Takes away blobs that no release refers to, and uploads nobody went on with.

use super::{ArtifactError, Artifacts};
use baton_model::id::Digest;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often blobs are collected.
pub(crate) const COLLECT_EVERY: Duration = Duration::from_secs(600);
/// A blob this young may belong to a deploy that is about to be asked for.
const YOUNG: Duration = Duration::from_secs(3600);
/// An upload nobody has gone on with for this long is given up.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Removes what is not in `referenced` and not young; returns how many files went. The caller holds
/// [`Artifacts::in_use`] to write since before it read what is referenced.
pub(crate) fn collect(
    artifacts: &Artifacts,
    referenced: &BTreeSet<Digest>,
    now: SystemTime,
) -> Result<usize, ArtifactError> {
    let mut removed = 0;
    for (path, digest, age) in files(&artifacts.dir, now)? {
        if !referenced.contains(&digest) && age > YOUNG {
            remove(&path)?;
            removed += 1;
        }
    }
    for (path, _, age) in files(&artifacts.dir.join("partial"), now)? {
        if age > STALE {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The files of a folder that are named by a digest, with their age.
fn files(dir: &Path, now: SystemTime) -> Result<Vec<(PathBuf, Digest, Duration)>, ArtifactError> {
    let failed = |source| ArtifactError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let changed = entry.metadata().and_then(|meta| meta.modified()).map_err(failed)?;
        found.push((entry.path(), digest, now.duration_since(changed).unwrap_or_default()));
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<(), ArtifactError> {
    fs::remove_file(path).map_err(|source| ArtifactError::Io { path: path.to_owned(), source })
}
