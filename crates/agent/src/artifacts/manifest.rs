//! What an unpacked artifact consists of, so that the tree can be checked against it later.

use crate::runs::Seal;
use baton_model::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes hashed at a time: large enough to be quick, small enough for the agent's memory goal.
const HASH_BUFFER: usize = 64 * 1024;
/// The longest tick of a Linux kernel (CONFIG_HZ=100).
const TICK: Duration = Duration::from_millis(10);
/// A file that is written all the time is not waited for longer; neither is a clock that was set back.
const TICKS_WAITED_MAX: u32 = 3;

/// Everything in an artifact's tree, by its path relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) entries: BTreeMap<PathBuf, Item>,
}

/// One thing in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Item {
    /// A folder.
    Folder,
    /// A file: its content, length and permission bits.
    File { sha256: Digest, size_bytes: u64, mode: u32 },
    /// A symbolic link to something inside the tree.
    Link { target: PathBuf },
}

/// What a check of a tree found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// Every byte is as it was unpacked; these extra files, which nobody checked, were removed.
    Good { removed: Vec<PathBuf>, seal: Seal },
    /// This is not as it was unpacked.
    Damaged(String),
}

impl Manifest {
    /// Compares `tree` with what was unpacked and removes what was not.
    ///
    /// Extra files are removed because a program may load them (a `.pyc` beside its `.py`), and no byte is executed
    /// that was not checked.
    ///
    /// # Errors
    /// Those of the file system, save that a missing entry is damage.
    pub(crate) fn check(&self, tree: &Path) -> io::Result<Checked> {
        let mut seal = Seal::of(tree);
        for (path, item) in &self.entries {
            if let Some(damage) = compare(tree, path, item, &mut seal)? {
                return Ok(Checked::Damaged(format!("{}: {damage}", path.display())));
            }
        }
        let mut removed = Vec::new();
        self.remove_extra(tree, Path::new(""), &mut removed)?;
        Ok(Checked::Good { removed, seal })
    }

    fn remove_extra(&self, tree: &Path, folder: &Path, removed: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(tree.join(folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            match self.entries.get(&path) {
                Some(Item::Folder) => self.remove_extra(tree, &path, removed)?,
                Some(Item::File { .. } | Item::Link { .. }) => {}
                None => {
                    if entry.file_type()?.is_dir() {
                        fs::remove_dir_all(entry.path())?;
                    } else {
                        fs::remove_file(entry.path())?;
                    }
                    removed.push(path);
                }
            }
        }
        Ok(())
    }
}

/// Says how what lies at `path` differs from `item`, if it does.
fn compare(tree: &Path, inside: &Path, item: &Item, seal: &mut Seal) -> io::Result<Option<String>> {
    let path = &tree.join(inside);
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("is missing".to_owned())),
        Err(error) => return Err(error),
    };
    Ok(match item {
        Item::Folder if found.is_dir() => {
            seal.folder(inside);
            None
        }
        Item::Folder => Some("is no longer a folder".to_owned()),
        Item::Link { target } if found.is_symlink() => {
            seal.link(inside, target);
            (fs::read_link(path)? != *target).then(|| "points elsewhere".to_owned())
        }
        Item::Link { .. } => Some("is no longer a link".to_owned()),
        Item::File { .. } if !found.is_file() => Some("is no longer a file".to_owned()),
        Item::File { sha256, size_bytes, mode } => {
            if found.permissions().mode() & 0o7777 != *mode {
                Some("has other permissions".to_owned())
            } else if found.len() != *size_bytes {
                Some(format!("has {} bytes instead of {size_bytes}", found.len()))
            } else {
                let (found, stat) = hash_settled(path)?;
                seal.file(inside, &stat, sha256.0);
                (found != *sha256).then(|| "has other content".to_owned())
            }
        }
    })
}

/// SHA-256 of a file's content, and what the file was like before it was read; a link is not followed.
///
/// The times of files go in clock ticks. A file that was changed in this very tick is waited for: what is changed
/// after it was read then surely has a later time.
fn hash_settled(path: &Path) -> io::Result<(Digest, rustix::fs::Stat)> {
    let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut stat = rustix::fs::fstat(&file)?;
    for _ in 0..TICKS_WAITED_MAX {
        if !is_of_this_tick(&stat) {
            break;
        }
        std::thread::sleep(TICK);
        stat = rustix::fs::fstat(&file)?;
    }
    Ok((hash(&mut file)?, stat))
}

/// Whether the last change was so lately that another could have the same time. So is what lies in the future.
fn is_of_this_tick(stat: &rustix::fs::Stat) -> bool {
    let changed = Duration::new(stat.st_ctime.try_into().unwrap_or(0), stat.st_ctime_nsec as u32);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) < TICK
}

/// SHA-256 of what is left of a file.
fn hash(file: &mut File) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Where a path inside the tree leads when its links are followed within the manifest; `Err` says why it escapes.
///
/// Links are resolved one component at a time, as the kernel does it: a purely textual check would let
/// `a/up -> ..` and then `b -> a/up/../..` out.
pub(crate) fn resolve(entries: &BTreeMap<PathBuf, Item>, path: &Path) -> Result<PathBuf, String> {
    /// As in the kernel (path_resolution(7)).
    const HOPS_MAX: usize = 40;
    let mut hops = 0;
    let mut at = PathBuf::new();
    let mut left: Vec<std::ffi::OsString> =
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    while let Some(part) = left.pop() {
        match part.as_bytes() {
            b"." => continue,
            b".." => {
                if !at.pop() {
                    return Err("it leaves the artifact's folder".to_owned());
                }
                continue;
            }
            b"/" => return Err("it is absolute".to_owned()),
            _ => at.push(&part),
        }
        if let Some(Item::Link { target }) = entries.get(&at) {
            hops += 1;
            if hops > HOPS_MAX {
                return Err("its links go round in a circle".to_owned());
            }
            at.pop();
            left.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(target: &str) -> Item {
        Item::Link { target: target.into() }
    }

    #[test]
    fn links_resolve_inside_or_are_refused() {
        let entries = BTreeMap::from([
            ("a".into(), Item::Folder),
            ("a/b".into(), Item::Folder),
            ("a/b/up".into(), link("..")),
            ("good".into(), link("a/b/up/b")),
            ("out".into(), link("a/b/up/../..")),
            ("loop".into(), link("loop")),
            ("root".into(), link("/etc")),
        ]);
        let check = |path: &str| resolve(&entries, Path::new(path));
        assert_eq!(check("good").unwrap(), Path::new("a/b"));
        assert_eq!(check("good/../x").unwrap(), Path::new("a/x"));
        assert!(check("out").unwrap_err().contains("leaves"));
        assert!(check("loop").unwrap_err().contains("circle"));
        assert!(check("root").unwrap_err().contains("absolute"));
        assert!(check("../x").unwrap_err().contains("leaves"));
    }
}
