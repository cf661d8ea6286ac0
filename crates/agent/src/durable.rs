//! Files that survive a crash at any moment: whole, either the old content or the new one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Replaces the file at `path` with `bytes`; when this returns, the new content is on the disk.
///
/// # Errors
/// Those of the file system; the old content is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    all_steps(&[(path, bytes)], Before::Goes).pop().unwrap_or(Ok(()))
}

/// What becomes of the content before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// It is gone when the new one is there.
    Goes,
    /// Its file stays as `NAME.new`, to be written the next time.
    IsSpare,
}

/// Like [`replace`], for several files that are written again and again; gives an answer for each, in their order. The
/// file of the content before stays beside each as a spare: a file system that makes and removes a file each time
/// looks longer for a free one with each that it has just removed (ext4 does), and after a boot there are hundreds.
///
/// The order of the steps is what makes it safe: write beside it, sync the bytes, rename over it, sync the folder
/// (see "All File Systems Are Not Created Equal", Pillai et al., OSDI 2014). Each step is done for all files before the
/// next, and writing them out is begun before any is waited for: so the file system commits all of them at once, where
/// one after the other would cost two commits for each.
pub(crate) fn replace_all(files: &[(&Path, &[u8])]) -> Vec<io::Result<()>> {
    all_steps(files, Before::IsSpare)
}

fn all_steps(files: &[(&Path, &[u8])], before: Before) -> Vec<io::Result<()>> {
    let mut all: Vec<io::Result<Replacement<'_>>> =
        files.iter().map(|(path, bytes)| Replacement::write(path, bytes)).collect();
    all.iter().flatten().for_each(|file| begin_writing_out(&file.file));
    step(&mut all, |file| file.file.sync_all());
    step(&mut all, |file| file.put_into_place(before));
    step(&mut all, |file| sync_folder(file.folder));
    all.into_iter().map(|outcome| outcome.map(drop)).collect()
}

/// Does something with each file that has come so far.
fn step<'a>(
    all: &mut [io::Result<Replacement<'a>>],
    mut act: impl FnMut(&Replacement<'a>) -> io::Result<()>,
) {
    for outcome in all {
        if let Ok(file) = outcome
            && let Err(error) = act(file)
        {
            // Half a file beside the good one is of no use to anyone; failing to remove it is harmless.
            let _ = fs::remove_file(&file.beside);
            *outcome = Err(error);
        }
    }
}

/// A file's new content, on its way.
struct Replacement<'a> {
    path: &'a Path,
    folder: &'a Path,
    beside: PathBuf,
    file: File,
}

impl<'a> Replacement<'a> {
    fn write(path: &'a Path, bytes: &[u8]) -> io::Result<Self> {
        let folder = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
        let mut name = path.file_name().ok_or_else(|| io::Error::other("a file without a name"))?.to_owned();
        name.push(".new");
        let beside = folder.join(name);
        // A spare is written over, and keeps its place on the disk.
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside)?;
        if let Err(error) = file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64)) {
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        Ok(Self { path, folder, beside, file })
    }

    fn put_into_place(&self, before: Before) -> io::Result<()> {
        if before == Before::IsSpare {
            let (here, both) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            // There is nothing to change places with yet, or the file system cannot do that.
            if rustix::fs::renameat_with(here, &self.beside, here, self.path, both).is_ok() {
                return Ok(());
            }
        }
        fs::rename(&self.beside, self.path)
    }
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Puts all that is below `folder`, and the folder itself, on the disk. Symbolic links are in their folders.
///
/// # Errors
/// Those of the file system.
pub(crate) fn sync_tree(folder: &Path) -> io::Result<()> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                // As in `replace_all`: all are on their way before one is waited for.
                begin_writing_out(&File::open(entry.path())?);
                files.push(entry.path());
            }
        }
    }
    // Opened anew: a tree may have more files than a process has descriptors.
    files.iter().chain(&folders).try_for_each(|path| File::open(path)?.sync_all())
}

/// The kernel writes out what is not needed in memory any more, without being waited for. A file system that cannot
/// does it when it is synced.
fn begin_writing_out(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Like [`replace`], for a value as JSON.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// Reads what [`replace_json`] wrote; `None` when there is no such file.
///
/// # Errors
/// Those of the file system, and `InvalidData` for content that is not a `T`; both name the file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| named(io::Error::new(io::ErrorKind::InvalidData, error))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_replacement_leaves_the_old_content_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace_json(&path, &1u32).unwrap();
        // A folder in the way of the temporary file makes the write fail.
        fs::create_dir(folder.path().join("a.json.new")).unwrap();
        assert!(replace_json(&path, &2u32).is_err());
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
    }

    #[test]
    fn of_several_files_each_has_an_answer_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let [good, bad, last] = ["a", "no-such-folder/b", "c"].map(|name| folder.path().join(name));
        let answers = replace_all(&[(&good, b"1"), (&bad, b"2"), (&last, b"3")]);
        let kinds: Vec<Option<io::ErrorKind>> =
            answers.into_iter().map(|answer| answer.err().map(|error| error.kind())).collect();
        assert_eq!(kinds, [None, Some(io::ErrorKind::NotFound), None]);
        assert_eq!((fs::read(&good).unwrap(), fs::read(&last).unwrap()), (b"1".to_vec(), b"3".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
    }

    #[test]
    fn what_is_written_again_and_again_uses_the_same_two_files() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut inodes = std::collections::BTreeSet::new();
        for content in ["a long one at first", "short", "and one that is longer than all others"] {
            for _ in 0..2 {
                replace_all(&[(&path, content.as_bytes())]).pop().unwrap().unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
                inodes.insert(fs::metadata(&path).unwrap().ino());
            }
        }
        assert_eq!((inodes.len(), fs::read_dir(folder.path()).unwrap().count()), (2, 2));
        // A file that is written once in a while leaves nothing of what it was.
        replace(&path, b"the last").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "the last");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn reading_tells_absent_from_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(read_json::<u32>(&path).unwrap(), None);
        fs::write(&path, "{").unwrap();
        let error = read_json::<u32>(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("a.json"), "{error}");
    }
}
