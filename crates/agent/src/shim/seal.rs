//! What the files of an artifact were like when every byte of them had been checked: so that a restart that must be
//! quick, and that may have no agent to ask, still executes nothing that has changed since (invariant
//! `verified-bytes`).
//!
//! The agent hashes the whole tree and notes of each file, beside its digest, its inode and the time of its last
//! change (ctime, which only the kernel sets). The shim compares these before it executes anything: about a
//! microsecond for each file. What differs is hashed. Before a restart that follows a crash in a row, which waits
//! anyway, small files are hashed although nothing differs: a disk that lost a bit tells no change of times.
//!
//! ```text
//! tree path, then for each entry: 1 kind  4 mode  8 size  8 inode  8 device  8 + 4 ctime  32 SHA-256  path
//! ```
//! Integers are little-endian; a path is its length (u16), its bytes and a NUL. The digest of a link is that of its target.

#![allow(clippy::result_large_err, reason = "a shim allocates nothing: what is broken is told in place")]

use super::memory;
use super::protocol::{NOTE_BYTES, Note};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest seal: an artifact of the most entries with names of ordinary length.
pub(crate) const SEAL_BYTES_MAX: usize = 32 << 20;
/// Hashed at most before one restart although nothing seems to have changed; a tenth of a second of work.
const HASHED_UNCHANGED_MAX: u64 = 64 << 20;
/// Hashed at a time.
const BUFFER_BYTES: usize = 32 << 10;
/// Longest path and longest target of a link (PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of an entry before its path.
const ENTRY_BYTES: usize = 1 + 4 + 8 + IDENTITY_BYTES + 32;
/// Inode, device and ctime.
const IDENTITY_BYTES: usize = 8 + 8 + 8 + 4;
const IDENTITY_AT: usize = 1 + 4 + 8;
const DIGEST_AT: usize = IDENTITY_AT + IDENTITY_BYTES;

const FOLDER: u8 = 0;
const FILE: u8 = 1;
const LINK: u8 = 2;

/// The files of one artifact, checked. Empty: nothing is known of them, and nothing is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    bytes: Vec<u8>,
}

impl Seal {
    /// A seal of what lies in `tree`; entries follow.
    #[must_use]
    pub(crate) fn of(tree: &Path) -> Self {
        let mut seal = Self::default();
        seal.path(tree);
        seal
    }

    /// A folder.
    pub(crate) fn folder(&mut self, path: &Path) {
        self.entry(FOLDER, path, 0, 0, [0; IDENTITY_BYTES], [0; 32]);
    }

    /// A file whose content had this digest; `stat` was taken before it was read.
    pub(crate) fn file(&mut self, path: &Path, stat: &Stat, sha256: [u8; 32]) {
        self.entry(FILE, path, permissions(stat), stat.st_size as u64, identity(stat), sha256);
    }

    /// A link to `target`; its digest alone is compared.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) {
        let sha256 = Sha256::digest(target.as_os_str().as_bytes()).into();
        self.entry(LINK, path, 0, 0, [0; IDENTITY_BYTES], sha256);
    }

    /// As it is handed to the shim.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn entry(
        &mut self,
        kind: u8,
        path: &Path,
        mode: u32,
        size: u64,
        identity: [u8; IDENTITY_BYTES],
        sha256: [u8; 32],
    ) {
        self.bytes.push(kind);
        self.bytes.extend(mode.to_le_bytes());
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend(identity);
        self.bytes.extend(sha256);
        self.path(path);
    }

    fn path(&mut self, path: &Path) {
        let bytes = path.as_os_str().as_bytes();
        // Both the archive's names and the node's own folders are shorter than PATH_MAX.
        let bytes = &bytes[..bytes.len().min(PATH_BYTES_MAX)];
        self.bytes.extend((bytes.len() as u16).to_le_bytes());
        self.bytes.extend(bytes);
        self.bytes.push(0);
    }
}

/// The seal in a shim's memory.
pub(super) struct Sealed {
    bytes: &'static mut [u8],
}

/// What is not as it was; the text names it.
#[derive(Debug)]
pub(super) struct Broken(pub(super) Note);

impl Sealed {
    /// Keeps a copy of what the agent sent.
    ///
    /// # Errors
    /// There is no memory, or it is not a seal.
    pub(super) fn keep(bytes: &[u8]) -> io::Result<Self> {
        let kept = memory::map(bytes.len())?;
        kept.copy_from_slice(bytes);
        let mut at = 0;
        if !kept.is_empty() {
            at = path_at(kept, at).ok_or(io::ErrorKind::InvalidData)?.1;
            while at < kept.len() {
                at = path_at(kept, at + ENTRY_BYTES).ok_or(io::ErrorKind::InvalidData)?.1;
            }
        }
        Ok(Self { bytes: kept })
    }

    /// Compares every file with the seal. `thorough`: also hashes what seems unchanged, within a bound.
    ///
    /// # Errors
    /// [`Broken`]: it must not be executed.
    pub(super) fn check(&mut self, thorough: bool) -> Result<(), Broken> {
        let Some((tree, mut at)) = path_at(self.bytes, 0) else { return Ok(()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = rustix::fs::open(tree, flags, Mode::empty())
            .map_err(|error| broken(c"its folder", "cannot be opened", Some(error)))?;
        let mut unchanged_left = if thorough { HASHED_UNCHANGED_MAX } else { 0 };
        while at < self.bytes.len() {
            let (entry, rest) = self.bytes[at..].split_at_mut(ENTRY_BYTES);
            let Some((path, end)) = path_at(rest, 0) else { return Ok(()) };
            compare(tree.as_fd(), path, entry, &mut unchanged_left)?;
            at += ENTRY_BYTES + end;
        }
        Ok(())
    }
}

/// The path that begins at a place, and where it ends.
fn path_at(bytes: &[u8], at: usize) -> Option<(&CStr, usize)> {
    let len = u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
    let end = at + 2 + usize::from(len) + 1;
    Some((CStr::from_bytes_with_nul(bytes.get(at + 2..end)?).ok()?, end))
}

fn compare(
    tree: BorrowedFd<'_>,
    path: &CStr,
    entry: &mut [u8],
    unchanged_left: &mut u64,
) -> Result<(), Broken> {
    let stat = rustix::fs::statat(tree, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => broken(path, "is missing", None),
        other => broken(path, "cannot be looked at", Some(other)),
    })?;
    match entry[0] {
        FOLDER if is(&stat, libc::S_IFDIR) => Ok(()),
        FOLDER => Err(broken(path, "is no longer a folder", None)),
        LINK if !is(&stat, libc::S_IFLNK) => Err(broken(path, "is no longer a link", None)),
        LINK => compare_link(tree, path, &entry[DIGEST_AT..]),
        _ if !is(&stat, libc::S_IFREG) => Err(broken(path, "is no longer a file", None)),
        _ => compare_file(tree, path, &stat, entry, unchanged_left),
    }
}

fn compare_file(
    tree: BorrowedFd<'_>,
    path: &CStr,
    stat: &Stat,
    entry: &mut [u8],
    unchanged_left: &mut u64,
) -> Result<(), Broken> {
    let size = stat.st_size as u64;
    if entry[1..5] != permissions(stat).to_le_bytes() {
        return Err(broken(path, "has other permissions", None));
    }
    if entry[5..IDENTITY_AT] != size.to_le_bytes() {
        return Err(broken(path, "has another length", None));
    }
    if entry[IDENTITY_AT..DIGEST_AT] == identity(stat) {
        match unchanged_left.checked_sub(size) {
            Some(left) if left > 0 => *unchanged_left = left,
            Some(_) | None => return Ok(()),
        }
    }
    let (found, hashed) = hash(tree, path).map_err(|error| broken(path, "cannot be read", Some(error)))?;
    if entry[DIGEST_AT..] != found {
        return Err(broken(path, "has other content", None));
    }
    // Written anew with the same content: an artifact that was mended.
    entry[IDENTITY_AT..DIGEST_AT].copy_from_slice(&identity(&hashed));
    Ok(())
}

fn compare_link(tree: BorrowedFd<'_>, path: &CStr, digest: &[u8]) -> Result<(), Broken> {
    let mut target = [0_u8; PATH_BYTES_MAX];
    let len = rustix::fs::readlinkat_raw(tree, path, &mut target[..])
        .map_err(|error| broken(path, "cannot be read", Some(error)))?;
    let found: [u8; 32] = Sha256::digest(&target[..len]).into();
    if found == digest { Ok(()) } else { Err(broken(path, "points elsewhere", None)) }
}

/// The digest of a file, and its identity from before it was read.
fn hash(tree: BorrowedFd<'_>, path: &CStr) -> Result<([u8; 32], Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(tree, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let mut hash = Sha256::new();
    let mut buffer = [0_u8; BUFFER_BYTES];
    loop {
        match rustix::io::read(&file, &mut buffer) {
            Ok(0) => return Ok((hash.finalize().into(), stat)),
            Ok(n) => hash.update(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is(stat: &Stat, kind: libc::mode_t) -> bool {
    stat.st_mode & libc::S_IFMT == kind
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn identity(stat: &Stat) -> [u8; IDENTITY_BYTES] {
    let mut bytes = [0; IDENTITY_BYTES];
    bytes[..8].copy_from_slice(&stat.st_ino.to_le_bytes());
    bytes[8..16].copy_from_slice(&stat.st_dev.to_le_bytes());
    bytes[16..24].copy_from_slice(&stat.st_ctime.to_le_bytes());
    bytes[24..].copy_from_slice(&(stat.st_ctime_nsec as u32).to_le_bytes());
    bytes
}

fn broken(path: &CStr, what: &str, error: Option<Errno>) -> Broken {
    let mut text = [0; NOTE_BYTES];
    let mut rest = &mut text[..];
    // A path that is too long is cut at its front: its end says more.
    let path = path.to_bytes();
    let room = NOTE_BYTES - 64;
    let path = &path[path.len().saturating_sub(room)..];
    let _ = rest.write_all(path).and_then(|()| match error {
        Some(error) => write!(rest, " {what} (errno {})", error.raw_os_error()),
        None => write!(rest, " {what}"),
    });
    let len = NOTE_BYTES - rest.len();
    Broken(Note::new(&text[..len]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn sealed(tree: &Path) -> Sealed {
        let mut seal = Seal::of(tree);
        seal.folder(Path::new("bin"));
        let stat = rustix::fs::stat(tree.join("bin/web")).unwrap();
        seal.file(
            Path::new("bin/web"),
            &stat,
            Sha256::digest(fs::read(tree.join("bin/web")).unwrap()).into(),
        );
        seal.link(Path::new("current"), Path::new("bin/web"));
        Sealed::keep(seal.bytes()).unwrap()
    }

    /// What the shim says after a change; the second asks for a thorough check.
    fn check(change: impl Fn(&Path), expect: Result<(), &str>) {
        for thorough in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let tree = folder.path();
            fs::create_dir(tree.join("bin")).unwrap();
            fs::write(tree.join("bin/web"), "0123456789").unwrap();
            std::os::unix::fs::symlink("bin/web", tree.join("current")).unwrap();
            let mut sealed = sealed(tree);
            sealed.check(thorough).unwrap();
            // A clock tick, so that the change has a time of its own.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(tree);
            for _ in 0..2 {
                let said =
                    sealed.check(thorough).map_err(|b| String::from_utf8_lossy(b.0.bytes()).into_owned());
                assert_eq!(said, expect.map_err(str::to_owned));
            }
        }
    }

    #[test]
    fn whatever_changed_is_told_and_what_was_only_written_anew_is_not() {
        check(|_| {}, Ok(()));
        check(|tree| fs::write(tree.join("bin/web"), "0123456789").unwrap(), Ok(()));
        check(|tree| fs::write(tree.join("other"), "").unwrap(), Ok(()));
        check(
            |tree| fs::write(tree.join("bin/web"), "0123456788").unwrap(),
            Err("bin/web has other content"),
        );
        check(|tree| fs::write(tree.join("bin/web"), "0123").unwrap(), Err("bin/web has another length"));
        check(|tree| fs::remove_file(tree.join("bin/web")).unwrap(), Err("bin/web is missing"));
        check(
            |tree| {
                fs::set_permissions(tree.join("bin/web"), fs::Permissions::from_mode(0o777)).unwrap();
            },
            Err("bin/web has other permissions"),
        );
        check(
            |tree| {
                fs::remove_file(tree.join("current")).unwrap();
                std::os::unix::fs::symlink("/bin/sh", tree.join("current")).unwrap();
            },
            Err("current points elsewhere"),
        );
        check(|tree| fs::remove_dir_all(tree.join("bin")).unwrap(), Err("bin is missing"));
        check(|tree| fs::remove_dir_all(tree).unwrap(), Err("its folder cannot be opened (errno 2)"));
    }

    #[test]
    fn without_a_seal_nothing_is_compared() {
        Sealed::keep(Seal::default().bytes()).unwrap().check(true).unwrap();
        assert!(Sealed::keep(&[9, 9, 9]).is_err());
    }
}
