//! Artifacts: blobs named by the SHA-256 of their bytes, in one folder.
//!
//! ```text
//! artifacts/<digest>           complete: its bytes had this digest when it was put here
//! artifacts/partial/<digest>   an upload that has not ended; it can go on where it stopped
//! ```
//!
//! A blob is hashed while it arrives and once more before it is first served after a start, or after its file has
//! changed; the node hashes it again. A blob that does not have its digest any more is taken away, so that the next
//! deploy uploads it anew.

mod collect;
mod upload;

pub(crate) use collect::{COLLECT_EVERY, collect};
pub(crate) use upload::Upload;

use baton_model::id::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes sent to a node in one message.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;
/// Blobs opened for nodes at a time: a thousand nodes that ask for one not yet verified must not hash it a thousand
/// times beside one another.
const OPENING_MAX: usize = 2;
/// Read at a time when a file is hashed.
const HASH_BUFFER_BYTES: usize = 1024 * 1024;

/// What can go wrong with an artifact.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error("artifact {0} is not here; upload it first (`baton deploy` does so)")]
    Missing(Digest),
    #[error("artifact {digest} has {size} bytes, and {limit} is the limit of this coordinator")]
    TooLarge { digest: Digest, size: u64, limit: u64 },
    #[error(
        "no room for artifact {digest}: {needed} bytes are needed and {free} are free on the coordinator's disk; make room there and try again"
    )]
    NoRoom { digest: Digest, needed: u64, free: u64 },
    #[error("an upload of artifact {0} is under way; wait until it has ended, then try again")]
    Busy(Digest),
    #[error(
        "the upload of artifact {digest} can go on at byte {have} or before, not at {offset}; ask how much is here and try again"
    )]
    WrongOffset { digest: Digest, have: u64, offset: u64 },
    #[error("artifact {digest} was announced with {announced} bytes and {received} came; nothing was kept")]
    WrongSize { digest: Digest, announced: u64, received: u64 },
    #[error(
        "what was uploaded as artifact {announced} has the digest {actual}; nothing was kept, upload it again"
    )]
    WrongDigest { announced: Digest, actual: Digest },
    #[error(
        "artifact {0} has changed on the coordinator's disk and was taken away; deploy it again to upload it anew, and look after the disk"
    )]
    Corrupt(Digest),
    #[error("cannot use the artifact file {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// How much of an artifact is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) complete: bool,
    /// Bytes that need not be sent again.
    pub(crate) offset: u64,
}

/// What tells one state of a file from another without reading it.
type FileMark = (u64, u64, i64, i64);

/// The folder of artifacts. Its functions block; call them from a thread that may.
#[derive(Debug)]
pub(crate) struct Artifacts {
    dir: PathBuf,
    limit_bytes: u64,
    /// Uploads under way: one per artifact.
    uploading: Mutex<BTreeSet<Digest>>,
    /// Blobs whose bytes were found right since the start, and the state their file was in.
    verified: Mutex<BTreeMap<Digest, FileMark>>,
    /// Deploys hold it to read, the collector to write: what a deploy found here is not taken away under it.
    pub(crate) in_use: tokio::sync::RwLock<()>,
    /// Held while a blob is opened for a node.
    pub(crate) opening: tokio::sync::Semaphore,
}

impl Artifacts {
    /// Opens the folder, making it where it is not there.
    pub(crate) fn open(dir: PathBuf, limit_bytes: u64) -> Result<Arc<Self>, ArtifactError> {
        let partial = dir.join("partial");
        fs::create_dir_all(&partial).map_err(|source| ArtifactError::Io { path: partial, source })?;
        Ok(Arc::new(Self {
            dir,
            limit_bytes,
            uploading: Mutex::default(),
            verified: Mutex::default(),
            in_use: tokio::sync::RwLock::default(),
            opening: tokio::sync::Semaphore::new(OPENING_MAX),
        }))
    }

    /// Says how much of an artifact is here.
    pub(crate) fn stat(&self, digest: Digest) -> Stat {
        if let Ok(meta) = fs::metadata(self.blob(digest)) {
            return Stat { complete: true, offset: meta.len() };
        }
        let offset = fs::metadata(self.partial(digest)).map_or(0, |meta| meta.len());
        Stat { complete: false, offset }
    }

    /// Opens a blob at `offset` for a node, after having made sure once that its bytes are right.
    pub(crate) fn read(&self, digest: Digest, offset: u64) -> Result<ArtifactReader, ArtifactError> {
        let path = self.blob(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Missing(digest));
            }
            Err(source) => return Err(ArtifactError::Io { path, source }),
        };
        let failed = |source| ArtifactError::Io { path: path.clone(), source };
        let meta = file.metadata().map_err(failed)?;
        let mark = mark_of(&meta);
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) == Some(&mark);
        if !known {
            let actual = hash_to_end(&mut file, Sha256::new()).map_err(failed)?.0;
            if actual != digest {
                match fs::remove_file(&path) {
                    // Another node's reader may have found it, too.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    Ok(()) | Err(_) => return Err(ArtifactError::Corrupt(digest)),
                }
            }
            self.remember(digest, mark);
        }
        if offset > meta.len() {
            return Err(ArtifactError::WrongOffset { digest, have: meta.len(), offset });
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(ArtifactReader { file, path })
    }

    fn remember(&self, digest: Digest, mark: FileMark) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, mark);
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn partial(&self, digest: Digest) -> PathBuf {
        self.dir.join("partial").join(digest.to_string())
    }
}

/// A blob being read.
#[derive(Debug)]
pub(crate) struct ArtifactReader {
    file: File,
    path: PathBuf,
}

impl ArtifactReader {
    /// The next chunk; empty at the end.
    pub(crate) fn next_chunk(&mut self) -> Result<bytes::Bytes, ArtifactError> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let limit = CHUNK_BYTES as u64;
        (&mut self.file)
            .take(limit)
            .read_to_end(&mut chunk)
            .map_err(|source| ArtifactError::Io { path: self.path.clone(), source })?;
        Ok(chunk.into())
    }
}

fn mark_of(meta: &fs::Metadata) -> FileMark {
    (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}

/// Hashes what is left of a file; returns the digest, and how many bytes there were.
fn hash_to_end(file: &mut File, mut hash: Sha256) -> io::Result<(Digest, u64)> {
    let length = feed(file, &mut hash)?;
    Ok((Digest(hash.finalize().into()), length))
}

fn feed(file: &mut File, hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(length);
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}

/// Makes the names in a folder durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
