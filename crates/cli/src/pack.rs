//! From what a service file calls its artifact to the bytes that are sent, and their identity.
//!
//! A single file and an archive are sent as they are; a folder is packed into an archive, the same bytes for the
//! same content on every machine. What is sent has been read to its end and found safe to unpack: whatever a node
//! would refuse is refused here, before anything happens, and by name.

mod archive;
mod folder;
mod program;
mod upload;

pub(crate) use upload::{ProgressLine, upload};

use anyhow::Context as _;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::id::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Largest artifact, as sent. Beyond it is data, which belongs into a store of data and not into a release.
pub(crate) const BLOB_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Largest artifact, unpacked; bounds what a small archive can swell to.
pub(crate) const UNPACKED_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Most files, folders and links in an artifact: as many as a node unpacks.
pub(crate) const ENTRIES_MAX: usize = 100_000;
/// What an entry takes on a node besides its bytes: its block is not full, and it has an inode.
const ENTRY_OVERHEAD: u64 = 4096;

/// An artifact that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Packed {
    /// Its identity.
    pub(crate) artifact: Artifact,
    /// What the operator should know, though it is no mistake.
    pub(crate) warnings: Vec<String>,
    blob: Blob,
}

#[derive(Debug)]
enum Blob {
    /// The source itself.
    Source(PathBuf),
    /// A packed folder; gone when this is dropped.
    Temporary(tempfile::NamedTempFile),
}

impl Packed {
    /// The file that holds the bytes; it exists as long as `self` does.
    pub(crate) fn path(&self) -> &Path {
        match &self.blob {
            Blob::Source(path) => path,
            Blob::Temporary(file) => file.path(),
        }
    }
}

/// Why an artifact cannot be sent: what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct PackError {
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: String,
}

impl PackError {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }

    /// Something on this machine failed at `path`.
    fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let help = if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            format!("make room in {}, or set TMPDIR to a folder with more", std::env::temp_dir().display())
        } else {
            "check that it exists and that you may read it; a relative path counts from the service file's folder"
                .to_owned()
        };
        Self::new(format!("{} cannot be {doing}: {error}", path.display()), help)
    }
}

/// A program that a release runs beside its own: for a hook, a reload or a check.
#[derive(Debug)]
pub(crate) struct Helper {
    /// The field that names it.
    pub(crate) field: String,
    /// The first word of its command.
    pub(crate) program: String,
}

/// Packs `source`, whose release will run `program` (the first word of `exec`) and these helpers.
///
/// # Errors
/// [`PackError`] when the source cannot be read, is not safe to unpack, is too large, or does not hold the programs.
pub(crate) fn pack(source: &Path, program: &str, helpers: &[Helper]) -> Result<Packed, PackError> {
    let metadata = std::fs::metadata(source).map_err(|e| PackError::io("read", source, &e))?;
    if metadata.is_dir() {
        let packed = folder::pack(source)?;
        let sent =
            archive::Source { blob: packed.path(), compression: archive::Compression::Zstd, name: source };
        let content = sent.inspect(program, helpers)?;
        return finish(Blob::Temporary(packed), ArtifactFormat::TarZstd, content);
    }
    if !metadata.is_file() {
        return Err(PackError::new(
            format!("{} is neither a file nor a folder", source.display()),
            "name a file, a folder or a tar archive",
        ));
    }
    if metadata.len() == 0 {
        return Err(PackError::new(
            format!("{} is empty", source.display()),
            "build it again, and deploy what the build made",
        ));
    }
    let blob = Blob::Source(source.to_owned());
    match archive::detect(source)? {
        Some(compression) => {
            let content =
                archive::Source { blob: source, compression, name: source }.inspect(program, helpers)?;
            finish(blob, compression.format(), content)
        }
        None => {
            let name = file_name(source)?;
            let warnings = program::of_single_file(source, &name, program, helpers)?;
            let content = Content { unpacked_bytes: metadata.len() + ENTRY_OVERHEAD, warnings };
            finish(blob, ArtifactFormat::File { name }, content)
        }
    }
}

/// What an artifact holds, as far as its release must know.
struct Content {
    unpacked_bytes: u64,
    warnings: Vec<String>,
}

fn finish(blob: Blob, format: ArtifactFormat, content: Content) -> Result<Packed, PackError> {
    let path = match &blob {
        Blob::Source(path) => path.as_path(),
        Blob::Temporary(file) => file.path(),
    };
    let (digest, size_bytes) = digest(path).map_err(|e| PackError::io("read", path, &e))?;
    if size_bytes > BLOB_MAX {
        return Err(PackError::new(
            format!("{} has {size_bytes} bytes, more than an artifact may have ({BLOB_MAX})", path.display()),
            "leave data out of the artifact; a release is program and configuration",
        ));
    }
    let artifact = Artifact { digest, size_bytes, format, unpacked_bytes: content.unpacked_bytes };
    Ok(Packed { artifact, warnings: content.warnings, blob })
}

fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((Digest(hasher.finalize().into()), size));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}

/// The name under which a single file is kept on the node.
fn file_name(source: &Path) -> Result<String, PackError> {
    let name = source.canonicalize().map_err(|e| PackError::io("read", source, &e))?;
    // A link's own name is what the person wrote; only `.` and the like need the real one.
    let name = source.file_name().or(name.file_name()).and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        PackError::new(
            format!("the name of {} is not UTF-8", source.display()),
            "rename the file to plain letters",
        )
    })
}

/// Opens the bytes for sending, from `offset` on.
///
/// # Errors
/// When the file is gone or shorter than that.
pub(crate) fn open_at(path: &Path, offset: u64) -> anyhow::Result<File> {
    let mut file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    file.seek(SeekFrom::Start(offset)).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
