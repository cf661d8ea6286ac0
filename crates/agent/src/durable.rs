//! Files that survive a crash at any moment: whole, either the old content or the new one.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces the file at `path` with `bytes`; when this returns, the new content is on the disk.
///
/// The order is what makes it safe: write beside it, sync the bytes, rename over it, sync the folder
/// (see "All File Systems Are Not Created Equal", Pillai et al., OSDI 2014).
///
/// # Errors
/// Those of the file system; the old content is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file without a folder"))?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("a file without a name"))?.to_owned();
    name.push(".new");
    let beside = parent.join(name);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(parent)
    })();
    if written.is_err() {
        // Half a file beside the good one is of no use to anyone; failing to remove it is harmless.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
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
