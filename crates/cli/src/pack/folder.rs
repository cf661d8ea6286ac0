//! Packs a folder into an archive whose bytes depend on nothing but names, contents, links and who may execute:
//! the same folder gives the same digest on every machine, and so the same release.

use super::archive::link_target;
use super::{ENTRIES_MAX, PackError};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

/// zstd's own default: beyond it, time grows faster than what is saved.
const COMPRESSION_LEVEL: i32 = 3;
/// Deepest folder; Linux paths end at 4096 bytes, so no real tree is deeper.
const DEPTH_MAX: usize = 128;

/// Packs the folder at `root` into a temporary file.
///
/// # Errors
/// When something in it cannot be read, is neither file, folder nor link, or is a link that leaves the folder.
pub(super) fn pack(root: &Path) -> Result<NamedTempFile, PackError> {
    let target = NamedTempFile::new().map_err(|e| {
        PackError::new(format!("no temporary file can be made: {e}"), "set TMPDIR to a folder with room")
    })?;
    write_archive(root, target.as_file())?;
    Ok(target)
}

fn write_archive(root: &Path, target: &File) -> Result<(), PackError> {
    let write = |e: io::Error| {
        PackError::new(
            format!("{} cannot be packed: {e}", root.display()),
            "make room, or set TMPDIR to a folder with room",
        )
    };
    let mut encoder =
        zstd::stream::write::Encoder::new(BufWriter::new(target), COMPRESSION_LEVEL).map_err(write)?;
    encoder.include_checksum(true).map_err(write)?;
    let mut packer = Packer { root, archive: Builder::new(encoder), entries: 0 };
    packer.folder("", 0)?;
    let encoder = packer.archive.into_inner().map_err(write)?;
    encoder.finish().and_then(|mut file| file.flush()).map_err(write)
}

struct Packer<'r, W: Write> {
    root: &'r Path,
    archive: Builder<W>,
    entries: usize,
}

impl<W: Write> Packer<'_, W> {
    fn folder(&mut self, inside: &str, depth: usize) -> Result<(), PackError> {
        let path = self.path(inside);
        if depth > DEPTH_MAX {
            return Err(PackError::new(
                format!("{} is more than {DEPTH_MAX} folders deep", path.display()),
                "name a folder that holds only what is to be run",
            ));
        }
        let read = |e: io::Error| PackError::io("read", &path, &e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            let name = name.into_string().map_err(|name| {
                PackError::new(
                    format!("{}: the name {name:?} is not UTF-8", path.display()),
                    "rename it to plain letters, or take it out",
                )
            })?;
            names.push(name);
        }
        names.sort_unstable(); // Folders list in no order.
        for name in names {
            let inside = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            self.entry(&inside, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, inside: &str, depth: usize) -> Result<(), PackError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(PackError::new(
                format!("{} holds more than {ENTRIES_MAX} files", self.root.display()),
                "name a folder that holds only what is to be run",
            ));
        }
        let path = self.path(inside);
        let read = |e: io::Error| PackError::io("read", &path, &e);
        let metadata = std::fs::symlink_metadata(&path).map_err(read)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.archive
                .append_data(&mut header(EntryType::Directory, 0o755, 0), format!("{inside}/"), io::empty())
                .map_err(read)?;
            self.folder(inside, depth + 1)
        } else if kind.is_symlink() {
            self.link(inside, &path)
        } else if kind.is_file() {
            self.file(inside, &path, &metadata)
        } else {
            let kind = if kind.is_socket() {
                "a socket"
            } else if kind.is_fifo() {
                "a named pipe"
            } else {
                "a device"
            };
            Err(PackError::new(
                format!("{} is {kind}, which cannot be packed", path.display()),
                "take it out of the folder",
            ))
        }
    }

    fn link(&mut self, inside: &str, path: &Path) -> Result<(), PackError> {
        let target = std::fs::read_link(path).map_err(|e| PackError::io("read", path, &e))?;
        let text = target.to_string_lossy();
        link_target(inside, &text).map_err(|why| {
            PackError::new(
                format!("{} {why}", path.display()),
                "copy what it leads to into the folder: `cp -L`",
            )
        })?;
        self.archive
            .append_link(&mut header(EntryType::Symlink, 0o777, 0), inside, &target)
            .map_err(|e| PackError::io("packed", path, &e))
    }

    fn file(&mut self, inside: &str, path: &Path, metadata: &Metadata) -> Result<(), PackError> {
        let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let file = File::open(path).map_err(|e| PackError::io("read", path, &e))?;
        let exact = Exact { inner: file, left: metadata.len() };
        self.archive
            .append_data(&mut header(EntryType::Regular, mode, metadata.len()), inside, exact)
            .map_err(|e| PackError::io("packed", path, &e))
    }

    fn path(&self, inside: &str) -> PathBuf {
        if inside.is_empty() { self.root.to_owned() } else { self.root.join(inside) }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Gives exactly as many bytes as the header has promised, or fails: a file that is written to while it is packed
/// must not shift everything behind it.
struct Exact {
    inner: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::other("it became shorter while it was read; stop what writes to it"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
