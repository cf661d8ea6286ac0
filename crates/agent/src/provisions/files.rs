//! A folder of small files that a workload reads: all of a set are replaced, or none.

use crate::durable;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// Whose the files are, where they are not the agent's own: user and group.
pub(super) type Owner = Option<(u32, u32)>;

/// Makes `folder` hold exactly these files. Each is replaced as a whole, and one that is right already is not touched:
/// who watches it must not be woken for nothing.
///
/// # Errors
/// Those of the file system. Until the last file was written beside its old one, nothing has changed.
pub(super) fn replace_all(
    folder: &Path,
    files: &BTreeMap<&str, &[u8]>,
    mode: u32,
    owner: Owner,
) -> io::Result<()> {
    make_folder(folder, owner)?;
    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|present| present == *bytes) {
            continue;
        }
        let beside = folder.join(format!(".{name}.new"));
        if let Err(error) = write(&beside, bytes, mode, owner) {
            written.iter().for_each(|(beside, _): &(PathBuf, PathBuf)| drop(fs::remove_file(beside)));
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        written.push((beside, path));
    }
    for (beside, path) in written {
        fs::rename(beside, path)?;
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| files.contains_key(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    durable::sync_folder(folder)
}

/// The agent's folder, which the workload's group may enter: a workload cannot change what it is given.
fn make_folder(folder: &Path, owner: Owner) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if let Some((_, group)) = owner {
        chown(folder, None, Some(group))?;
        fs::set_permissions(folder, Permissions::from_mode(0o750))?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
    }
    // Whatever the agent's umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn set<'f>(files: &[(&'f str, &'f str)]) -> BTreeMap<&'f str, &'f [u8]> {
        files.iter().map(|(name, text)| (*name, text.as_bytes())).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_set_takes_the_place_of_another_and_what_is_right_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("web.1-1");
        replace_all(&folder, &set(&[("a", "1"), ("b", "1"), ("gone", "1")]), 0o400, None).unwrap();
        let kept = fs::metadata(folder.join("a")).unwrap().ino();
        replace_all(&folder, &set(&[("a", "1"), ("b", "2")]), 0o400, None).unwrap();
        assert_eq!(names(&folder), ["a", "b"]);
        assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "2");
        assert_eq!(fs::metadata(folder.join("a")).unwrap().ino(), kept);
        assert_eq!(fs::metadata(folder.join("b")).unwrap().mode() & 0o7777, 0o400);
    }

    #[test]
    fn one_that_cannot_be_written_leaves_all_as_they_were() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("web.1-1");
        replace_all(&folder, &set(&[("a", "1"), ("b", "1")]), 0o444, None).unwrap();
        fs::create_dir(folder.join(".b.new")).unwrap();
        assert!(replace_all(&folder, &set(&[("a", "2"), ("b", "2")]), 0o444, None).is_err());
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
        assert_eq!(names(&folder), [".b.new", "a", "b"]);
    }
}
