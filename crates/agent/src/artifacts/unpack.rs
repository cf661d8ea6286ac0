//! Unpacks an artifact into a fresh folder, and refuses everything that could reach out of it.
//!
//! The archive comes from whoever may deploy; the agent often runs as root. So: only files, folders and symbolic
//! links that stay inside; parents of a file are folders that this very unpacking made, never links; no entry
//! twice; no more bytes than were announced; no set-id bits. The caller removes the folder when this fails.

use super::manifest::{Item, Manifest, resolve};
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::id::Digest;
use sha2::{Digest as _, Sha256};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Entries of one archive. More would make each check of the tree take minutes.
pub(crate) const ENTRIES_MAX: usize = 100_000;
/// What an archive takes beside its content at most: a header, padding and a long name per entry.
const OVERHEAD_PER_ENTRY: u64 = 8 * 1024;
/// What lies between the contents of two entries: padding, headers, and names that are too long for a header. The tar
/// crate holds such names in memory, so an archive of nothing else must end here. Names of Linux have 4 KiB.
const BETWEEN_ENTRIES: u64 = 64 * 1024;
/// Bytes moved at a time.
const COPY_BUFFER: usize = 64 * 1024;

/// Why an artifact could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The content is not acceptable; trying again gives the same.
    #[error("{0}")]
    Refused(String),
    /// The disk refused.
    #[error("cannot {what}")]
    Io { what: String, source: io::Error },
}

type Result<T> = std::result::Result<T, UnpackError>;

/// Unpacks `blob`, whose digest was checked, into the empty folder `tree`.
///
/// # Errors
/// [`UnpackError`]; the folder may then hold a part of the content.
pub(crate) fn unpack(artifact: &Artifact, blob: &Path, tree: &Path) -> Result<Manifest> {
    let open = || File::open(blob).map_err(io_error(format!("read {}", blob.display())));
    match &artifact.format {
        ArtifactFormat::File { name } => place_file(artifact, name, blob, tree),
        ArtifactFormat::Tar => unpack_tar(BufReader::new(open()?), artifact.unpacked_bytes, tree),
        ArtifactFormat::TarGzip => {
            let reader = flate2::read::MultiGzDecoder::new(open()?);
            unpack_tar(reader, artifact.unpacked_bytes, tree)
        }
        ArtifactFormat::TarZstd => {
            let reader = zstd::stream::read::Decoder::new(open()?).map_err(archive_error("its start"))?;
            unpack_tar(reader, artifact.unpacked_bytes, tree)
        }
    }
}

/// A single file: the blob itself, moved, under its name and executable.
fn place_file(artifact: &Artifact, name: &str, blob: &Path, tree: &Path) -> Result<Manifest> {
    let path = clean_path(name.as_bytes())?;
    if path.components().count() != 1 {
        return Err(UnpackError::Refused(format!("`{name}` is not a plain file name")));
    }
    let to = tree.join(&path);
    fs::rename(blob, &to).map_err(io_error(format!("move it to {}", to.display())))?;
    set_mode(&to, 0o555)?;
    let item = Item::File { sha256: artifact.digest, size_bytes: artifact.size_bytes, mode: 0o555 };
    Ok(Manifest { entries: [(path, item)].into() })
}

fn unpack_tar(reader: impl Read, announced_bytes: u64, tree: &Path) -> Result<Manifest> {
    let ceiling = announced_bytes.saturating_add(ENTRIES_MAX as u64 * OVERHEAD_PER_ENTRY);
    let allowance = Cell::new(BETWEEN_ENTRIES);
    let mut archive = tar::Archive::new(Metered { reader: reader.take(ceiling), allowance: &allowance });
    let mut unpacking =
        Unpacking { tree, left: announced_bytes, manifest: Manifest::default(), named: BTreeSet::new() };
    let mut entries = 0;
    let mut list = archive.entries().map_err(archive_error("its start"))?;
    loop {
        allowance.set(BETWEEN_ENTRIES);
        let Some(entry) = list.next() else { break };
        // What is content is counted where it is written.
        allowance.set(u64::MAX);
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(UnpackError::Refused(format!(
                "it has more than {ENTRIES_MAX} entries; deploy a compressed bundle inside it instead"
            )));
        }
        unpacking.entry(entry.map_err(archive_error("an entry"))?)?;
    }
    // The compression's own checksum comes last: an archive that was cut off there is noticed too.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(archive_error("its end"))?;
    unpacking.finish()
}

/// Reads no more than it is allowed to.
struct Metered<'a, R> {
    reader: R,
    allowance: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = usize::try_from(self.allowance.get()).unwrap_or(usize::MAX).min(buffer.len());
        if allowed == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a name or a header of it is far too long"));
        }
        let n = self.reader.read(&mut buffer[..allowed])?;
        self.allowance.set(self.allowance.get() - n as u64);
        Ok(n)
    }
}

struct Unpacking<'a> {
    tree: &'a Path,
    /// Content bytes that may still come.
    left: u64,
    manifest: Manifest,
    /// What the archive itself has named; folders may also exist because a file needed them.
    named: BTreeSet<PathBuf>,
}

impl Unpacking<'_> {
    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = clean_path(&entry.path_bytes())?;
        if path.as_os_str().is_empty() {
            // The folder itself, as `tar -C dir .` writes it.
            return Ok(());
        }
        let shown = path.display().to_string();
        if !self.named.insert(path.clone()) {
            return Err(UnpackError::Refused(format!("`{shown}` is in it twice")));
        }
        self.folder(path.parent().unwrap_or(Path::new("")))?;
        match kind {
            EntryType::Directory => self.folder(&path),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.fresh(&path)?;
                self.file(&mut entry, path)
            }
            EntryType::Symlink => {
                self.fresh(&path)?;
                let target = entry.link_name().map_err(archive_error(&shown))?.unwrap_or_default();
                self.link(path, &target)
            }
            EntryType::Link => Err(UnpackError::Refused(format!(
                "`{shown}` is a hard link; pack it as a file or a symbolic link"
            ))),
            EntryType::Char | EntryType::Block | EntryType::Fifo => Err(UnpackError::Refused(format!(
                "`{shown}` is a device or a pipe; only files, folders and links may be in an artifact"
            ))),
            other => Err(UnpackError::Refused(format!(
                "`{shown}` is of an unknown kind ({:#04x}); only files, folders and links may be in an artifact",
                other.as_byte()
            ))),
        }
    }

    /// Something may come to `path`: nothing is there yet, not even a folder made for a file below it.
    fn fresh(&self, path: &Path) -> Result<()> {
        if self.manifest.entries.contains_key(path) {
            return Err(UnpackError::Refused(format!("`{}` is in it twice", path.display())));
        }
        Ok(())
    }

    /// Makes a folder and those above it, where they are missing; refuses to go through anything else.
    fn folder(&mut self, path: &Path) -> Result<()> {
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            match self.manifest.entries.get(&at) {
                Some(Item::Folder) => {}
                Some(Item::File { .. } | Item::Link { .. }) => {
                    return Err(UnpackError::Refused(format!(
                        "`{}` lies below `{}`, which is not a folder",
                        path.display(),
                        at.display()
                    )));
                }
                None => {
                    let to = self.tree.join(&at);
                    fs::create_dir(&to).map_err(io_error(format!("make the folder {}", to.display())))?;
                    set_mode(&to, 0o755)?;
                    self.manifest.entries.insert(at.clone(), Item::Folder);
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: PathBuf) -> Result<()> {
        let shown = path.display().to_string();
        let mode = (entry.header().mode().map_err(archive_error(&shown))? & 0o555) | 0o400;
        let announced = entry.size();
        let to = self.tree.join(&path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&to)
            .map_err(io_error(format!("make {}", to.display())))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; COPY_BUFFER];
        let mut size_bytes = 0u64;
        loop {
            let n = entry.read(&mut buffer).map_err(archive_error(&shown))?;
            if n == 0 {
                break;
            }
            self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
                UnpackError::Refused(format!(
                    "it unpacks to more bytes than were announced (at `{shown}`); pack it again"
                ))
            })?;
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n]).map_err(io_error(format!("write {}", to.display())))?;
            size_bytes += n as u64;
        }
        if size_bytes != announced {
            return Err(UnpackError::Refused(format!(
                "it is cut off: `{shown}` has {size_bytes} of {announced} bytes; pack it again"
            )));
        }
        set_mode(&to, mode)?;
        let item = Item::File { sha256: Digest(hash.finalize().into()), size_bytes, mode };
        self.manifest.entries.insert(path, item);
        Ok(())
    }

    fn link(&mut self, path: PathBuf, target: &Path) -> Result<()> {
        if target.to_str().is_none_or(str::is_empty) {
            return Err(UnpackError::Refused(format!("the link `{}` has no usable target", path.display())));
        }
        let to = self.tree.join(&path);
        std::os::unix::fs::symlink(target, &to)
            .map_err(io_error(format!("make the link {}", to.display())))?;
        self.manifest.entries.insert(path, Item::Link { target: target.to_owned() });
        Ok(())
    }

    /// Only now, with every link known, can it be said where each of them leads.
    fn finish(self) -> Result<Manifest> {
        let entries = &self.manifest.entries;
        for (path, item) in entries {
            if let Item::Link { target } = item {
                resolve(entries, path).map_err(|why| {
                    UnpackError::Refused(format!(
                        "the link `{}` to `{}` is not allowed: {why}",
                        path.display(),
                        target.display()
                    ))
                })?;
            }
        }
        if !entries.values().any(|item| matches!(item, Item::File { .. })) {
            return Err(UnpackError::Refused("there is no file in it".to_owned()));
        }
        Ok(self.manifest)
    }
}

/// A path of an archive as a plain relative one; refuses whatever could lead out of the folder.
fn clean_path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        UnpackError::Refused(format!("the name `{}` is not UTF-8", String::from_utf8_lossy(bytes)))
    })?;
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) if !text.contains('\0') => path.push(name),
            Component::CurDir => {}
            Component::Normal(_) => {
                return Err(UnpackError::Refused(format!("the name {text:?} holds a NUL byte")));
            }
            Component::ParentDir => {
                return Err(UnpackError::Refused(format!("`{text}` leaves the artifact's folder by `..`")));
            }
            Component::RootDir | Component::Prefix(_) => {
                return Err(UnpackError::Refused(format!(
                    "`{text}` is an absolute path; pack it relative to its folder"
                )));
            }
        }
    }
    Ok(path)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error(format!("set the permissions of {}", path.display())))
}

fn io_error(what: String) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError::Io { what, source }
}

/// Reading an archive fails either because the disk does (then there is an errno), or because of what is in it.
fn archive_error(at: &str) -> impl FnOnce(io::Error) -> UnpackError + use<> {
    let at = at.to_owned();
    move |error| {
        if error.raw_os_error().is_some() {
            return UnpackError::Io { what: "read the fetched archive".to_owned(), source: error };
        }
        UnpackError::Refused(format!("it cannot be read at {at} ({error}); pack it again"))
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
