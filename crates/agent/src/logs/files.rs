//! The files of a run's log, and where its last lines begin.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Read at a time when looking for the beginning of the last lines.
const BLOCK: u64 = 32 * 1024;

/// The runs that have logs in `folder`, the one written to last at the end. Run numbers alone would not do: the
/// candidate of a swap that failed has a higher one than the run that serves on.
pub(super) fn runs(folder: &Path) -> io::Result<Vec<u64>> {
    let mut runs = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            let written = fs::metadata(entry.path().join("current")).and_then(|current| current.modified());
            runs.push((written.unwrap_or(std::time::UNIX_EPOCH), run));
        }
    }
    runs.sort_unstable();
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// The files of one run, oldest first: `current.N`, ..., `current.1`, `current`.
pub(super) fn of_run(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut rotated: Vec<u32> = Vec::new();
    let mut current = false;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == "current" {
            current = true;
        } else if let Some(number) = name.strip_prefix("current.").and_then(|number| number.parse().ok()) {
            rotated.push(number);
        }
    }
    rotated.sort_unstable_by(|a, b| b.cmp(a));
    let mut files: Vec<PathBuf> =
        rotated.into_iter().map(|number| folder.join(format!("current.{number}"))).collect();
    if current {
        files.push(folder.join("current"));
    }
    Ok(files)
}

/// The same file, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(pub(super) u64);

pub(super) fn id_of(file: &File) -> io::Result<FileId> {
    Ok(FileId(file.metadata()?.ino()))
}

/// Where the last `wanted` lines begin, and how many there are (fewer when the file has no more).
pub(super) fn last_lines(file: &mut File, wanted: u64) -> io::Result<(u64, u64)> {
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((end, 0));
    }
    let mut lines = 0;
    let mut at = end;
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
    while at > 0 {
        let from = at.saturating_sub(BLOCK);
        let length = usize::try_from(at - from).unwrap_or(usize::MAX);
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block[..length])?;
        for i in (0..length).rev() {
            let place = from + i as u64;
            // The newline at the very end ends the last line and begins none.
            if block[i] == b'\n' && place + 1 < end {
                lines += 1;
                if lines == wanted {
                    return Ok((place + 1, lines));
                }
            }
        }
        at = from;
    }
    Ok((0, if end > 0 { lines + 1 } else { 0 }))
}
