//! Whose the folders of an instance are.

use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, Uid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Entries given away at most; a home with more keeps its owners below that, and the log says so.
const ENTRIES_MAX: usize = 100_000;
/// Folders inside one another that are entered.
const DEPTH_MAX: usize = 64;

/// Gives a home with everything in it to this user and group, where it belongs to another: a release may run as
/// someone else than the one before. Links are given away themselves, and never followed.
///
/// # Errors
/// The folder cannot be opened or given away.
pub(super) fn give(home: &Path, user: u32, group: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(home, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&folder)?;
    if (stat.st_uid, stat.st_gid) == (user, group) {
        return Ok(());
    }
    let mut giving = Giving { user: Uid::from_raw(user), group: Gid::from_raw(group), left: ENTRIES_MAX };
    giving.below(folder.as_fd(), 0);
    if giving.left == 0 {
        tracing::warn!(home = %home.display(), "not everything in a home was given to its user: too many entries");
    }
    // Last: where this is done, all was.
    Ok(rustix::fs::fchown(&folder, Some(giving.user), Some(giving.group))?)
}

struct Giving {
    user: Uid,
    group: Gid,
    left: usize,
}

impl Giving {
    /// A workload may change its home meanwhile: what is gone or has become something else is passed over.
    fn below(&mut self, folder: BorrowedFd<'_>, depth: usize) {
        let Ok(entries) = Dir::read_from(folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            if let Some(inner) = open_folder(folder, name).filter(|_| depth < DEPTH_MAX) {
                self.below(inner.as_fd(), depth + 1);
            }
            let given = (Some(self.user), Some(self.group));
            let _ = rustix::fs::chownat(folder, name, given.0, given.1, AtFlags::SYMLINK_NOFOLLOW);
        }
    }
}

fn open_folder(above: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_home_is_given_whole_and_nothing_behind_its_links() {
        if !nix::unistd::geteuid().is_root() {
            return; // Only root gives files away; CI runs this as root.
        }
        let folder = tempfile::tempdir().unwrap();
        let (home, outside) = (folder.path().join("home"), folder.path().join("outside"));
        std::fs::create_dir_all(home.join("a/b")).unwrap();
        std::fs::write(home.join("a/b/file"), "x").unwrap();
        std::fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, home.join("link")).unwrap();
        give(&home, 33, 34).unwrap();
        let owner = |path: &Path| {
            let metadata = path.symlink_metadata().unwrap();
            (metadata.uid(), metadata.gid())
        };
        for given in [home.clone(), home.join("a"), home.join("a/b/file"), home.join("link")] {
            assert_eq!(owner(&given), (33, 34), "{}", given.display());
        }
        assert_eq!(owner(&outside), (0, 0));
    }
}
