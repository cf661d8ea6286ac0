//! An upload: bytes are appended to a partial file, hashed as they come, and put in place when all of it is right.

use super::{ArtifactError, Artifacts, feed, mark_of, sync_dir};
use baton_model::id::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

/// Left free on the disk for the store and the journal when an artifact is accepted.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// An upload under way. Dropping it keeps what has come, so that it can go on later.
pub(crate) struct Upload {
    claim: Claim,
    digest: Digest,
    size_bytes: u64,
    received: u64,
    hash: Sha256,
    file: File,
    path: PathBuf,
}

impl Upload {
    /// Begins or resumes an upload at `offset`. `None` when the artifact is here already.
    pub(crate) fn begin(
        artifacts: &Arc<Artifacts>,
        digest: Digest,
        size_bytes: u64,
        offset: u64,
    ) -> Result<Option<Self>, ArtifactError> {
        if artifacts.stat(digest).complete {
            return Ok(None);
        }
        if size_bytes > artifacts.limit_bytes {
            return Err(ArtifactError::TooLarge { digest, size: size_bytes, limit: artifacts.limit_bytes });
        }
        if !artifacts.uploading.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return Err(ArtifactError::Busy(digest));
        }
        let claim = Claim { artifacts: Arc::clone(artifacts), digest };
        let path = artifacts.partial(digest);
        let failed = |source| ArtifactError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let have = file.metadata().map_err(failed)?.len();
        if offset > have || offset > size_bytes {
            return Err(ArtifactError::WrongOffset { digest, have: have.min(size_bytes), offset });
        }
        let needed = size_bytes - offset;
        let free = free_bytes(&artifacts.dir).map_err(failed)?.saturating_add(have - offset);
        if needed.saturating_add(RESERVE_BYTES) > free {
            return Err(ArtifactError::NoRoom { digest, needed: needed + RESERVE_BYTES, free });
        }
        file.set_len(offset).map_err(failed)?;
        let mut hash = Sha256::new();
        feed(&mut file, &mut hash).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Some(Self { claim, digest, size_bytes, received: offset, hash, file, path }))
    }

    /// Appends the bytes that came next.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), ArtifactError> {
        let received = self.received + data.len() as u64;
        if received > self.size_bytes {
            self.discard();
            return Err(ArtifactError::WrongSize {
                digest: self.digest,
                announced: self.size_bytes,
                received,
            });
        }
        self.file.write_all(data).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArtifactError::NoRoom {
                digest: self.digest,
                needed: self.size_bytes - self.received,
                free: 0,
            },
            _ => ArtifactError::Io { path: self.path.clone(), source },
        })?;
        self.hash.update(data);
        self.received = received;
        Ok(())
    }

    /// Whether every announced byte has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.received == self.size_bytes
    }

    /// How much is here so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// All has come: checks the digest, makes it durable and puts it in place.
    pub(crate) fn finish(self) -> Result<(), ArtifactError> {
        if !self.is_complete() {
            return Err(ArtifactError::WrongSize {
                digest: self.digest,
                announced: self.size_bytes,
                received: self.received,
            });
        }
        let actual = Digest(self.hash.clone().finalize().into());
        if actual != self.digest {
            self.discard();
            return Err(ArtifactError::WrongDigest { announced: self.digest, actual });
        }
        let target = self.claim.artifacts.blob(self.digest);
        let failed = |source| ArtifactError::Io { path: target.clone(), source };
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, &target).map_err(failed)?;
        sync_dir(&self.claim.artifacts.dir).map_err(failed)?;
        // Hashed just now, as it came: the first node need not wait for another pass over it.
        let meta = self.file.metadata().map_err(failed)?;
        self.claim.artifacts.remember(self.digest, mark_of(&meta));
        Ok(())
    }

    /// What has come is of no use: the next upload starts anew.
    fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a partial artifact");
        }
    }
}

/// The right to upload one artifact, given back when it is dropped.
struct Claim {
    artifacts: Arc<Artifacts>,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.artifacts.uploading.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

fn free_bytes(dir: &std::path::Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
