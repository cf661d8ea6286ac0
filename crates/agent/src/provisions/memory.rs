//! Where secrets lie on a node: in a file system that is memory, and nowhere else.

use rustix::fs::statfs;
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The node has no place for secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has no folder in memory for secrets: {0}; start the agent under systemd (RuntimeDirectory=baton), or give it a tmpfs at /run/baton"
)]
pub(crate) struct NoMemory(String);

/// The folders tried, the best first.
pub(crate) fn candidates() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    // systemd separates several by colons.
    let runtime = variable("RUNTIME_DIRECTORY")
        .and_then(|paths| std::env::split_paths(&paths).next())
        .filter(|path| path.is_absolute());
    let system = (user == 0).then(|| PathBuf::from("/run/baton"));
    let session =
        variable("XDG_RUNTIME_DIR").map(|path| path.join("baton")).filter(|path| path.is_absolute());
    let shared = PathBuf::from(format!("/dev/shm/baton-{user}"));
    runtime.into_iter().chain(system).chain(session).chain([shared]).collect()
}

/// The folder of the agent whose state directory is `state`: several agents of one host stay apart.
fn name_of(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    let hex: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("secrets-{hex}")
}

/// Finds the place for the secrets of the agent whose state directory is `state`. Its own folder is made when there is
/// something to put into it.
///
/// # Errors
/// No candidate is in memory and ours; says of each why not.
pub(crate) fn open(candidates: &[PathBuf], state: &Path) -> Result<PathBuf, NoMemory> {
    let mut why = Vec::new();
    for candidate in candidates {
        match make(candidate).and_then(|()| in_memory(candidate)) {
            Ok(()) => return Ok(candidate.join(name_of(state))),
            Err(error) => why.push(format!("{}: {error}", candidate.display())),
        }
    }
    Err(NoMemory(why.join("; ")))
}

/// Removes what is left of the secrets of the node whose state directory is `state`: for whoever ends a whole node
/// without its agent. Needs no agent; a node that goes on gets them anew from its coordinator.
///
/// # Errors
/// Those of the file system.
pub fn forget_secrets(state: &Path) -> io::Result<()> {
    let state = fs::canonicalize(state)?;
    for folder in candidates().iter().map(|candidate| candidate.join(name_of(&state))) {
        match fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A folder that others may pass through, but not list, and that nobody else can have put there.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is there and is not this user's folder"));
    }
    Ok(())
}

fn in_memory(folder: &Path) -> io::Result<()> {
    #[allow(clippy::useless_conversion, reason = "its width differs between machines")]
    let kind = i64::from(statfs(folder)?.f_type);
    if MEMORY.contains(&kind) {
        return Ok(());
    }
    Err(io::Error::other("it is on a disk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_disk_is_refused_with_its_name() {
        // The source tree is on a disk; where it is not, there is nothing to see.
        let disk = Path::new(env!("CARGO_MANIFEST_DIR"));
        if in_memory(disk).is_ok() {
            return;
        }
        let folder = tempfile::tempdir_in(disk).unwrap();
        let candidate = folder.path().join("run");
        let error = open(std::slice::from_ref(&candidate), Path::new("/state")).unwrap_err().to_string();
        assert!(error.contains("it is on a disk") && error.contains("RuntimeDirectory"), "{error}");
        assert!(error.contains(&candidate.display().to_string()), "{error}");
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", folder.path().join("run")).unwrap();
        assert!(make(&folder.path().join("run")).is_err());
    }

    #[test]
    fn two_agents_of_one_host_stay_apart() {
        let Ok(shared) = tempfile::tempdir_in("/dev/shm") else { return };
        let candidates = [shared.path().join("baton")];
        let one = open(&candidates, Path::new("/a")).unwrap();
        assert_ne!(one, open(&candidates, Path::new("/b")).unwrap());
        assert_eq!(one, open(&candidates, Path::new("/a")).unwrap());
    }
}
