//! Whether the disk has room, asked before anything is written.

use super::ArtifactError;
use baton_model::artifact::{Artifact, ArtifactFormat};
use std::io;
use std::path::Path;

/// What always stays free: the running workloads, their logs and the agent's own state need room to go on.
pub(crate) const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Free space and size of a file system, for us (what is kept for root does not count).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Asks the file system that `path` is on; see statvfs(3).
pub(crate) fn of(path: &Path) -> io::Result<Space> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let block = stat.fragment_size();
    Ok(Space { free_bytes: stat.blocks_available() * block, total_bytes: stat.blocks() * block })
}

/// A number of bytes for people: `812.4 MiB`.
#[allow(clippy::cast_precision_loss)] // One digit is shown.
pub(crate) fn told(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The most that bringing in `artifact` takes, with `fetched` bytes of it here already.
pub(crate) fn needed_bytes(artifact: &Artifact, fetched: u64) -> u64 {
    let unpacked = match artifact.format {
        // The fetched file is moved into place; there is no second copy.
        ArtifactFormat::File { .. } => 0,
        ArtifactFormat::Tar | ArtifactFormat::TarGzip | ArtifactFormat::TarZstd => artifact.unpacked_bytes,
    };
    artifact.size_bytes.saturating_sub(fetched).saturating_add(unpacked).saturating_add(RESERVE_BYTES)
}

/// Refuses an artifact that would fill the disk.
pub(crate) fn check(artifact: &Artifact, fetched: u64, free: u64, path: &Path) -> Result<(), ArtifactError> {
    let needed = needed_bytes(artifact, fetched);
    if needed <= free {
        return Ok(());
    }
    Err(ArtifactError::NoSpace {
        digest: artifact.digest,
        needed,
        reserve: RESERVE_BYTES,
        free,
        path: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_engine::instance::Trouble;
    use baton_model::id::Digest;

    #[test]
    fn space_is_needed_for_what_is_missing_what_it_unpacks_to_and_the_reserve() {
        let artifact =
            |format| Artifact { digest: Digest([7; 32]), size_bytes: 1_000, format, unpacked_bytes: 5_000 };
        let tar = artifact(ArtifactFormat::TarZstd);
        assert_eq!(needed_bytes(&tar, 400), 600 + 5_000 + RESERVE_BYTES);
        let file = artifact(ArtifactFormat::File { name: "web".into() });
        assert_eq!(needed_bytes(&file, 0), 1_000 + RESERVE_BYTES);

        let path = Path::new("/x");
        assert!(check(&tar, 0, needed_bytes(&tar, 0), path).is_ok());
        let error = check(&tar, 0, needed_bytes(&tar, 0) - 1, path).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Lasting);
        let text = error.to_string();
        assert!(text.contains("64.0 MiB are needed (64.0 MiB of them kept free)"), "{text}");
        assert!(text.contains("on /x"), "{text}");
    }

    #[test]
    fn the_file_system_answers() {
        let space = of(Path::new("/")).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
    }
}
