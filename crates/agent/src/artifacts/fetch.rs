//! Fetches an artifact from the coordinator into a partial file, hashing it while it streams.

use super::ArtifactError;
use baton_model::artifact::Artifact;
use baton_model::id::Digest;
use baton_proto::v1::FetchArtifactRequest;
use baton_proto::v1::agent_service_client::AgentServiceClient;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tonic::transport::Channel;

/// A coordinator that sends nothing for this long is not going to; the partial file is kept.
const STALL: Duration = Duration::from_secs(10);
/// Bytes read at a time when a partial file is hashed again.
const HASH_BUFFER: usize = 64 * 1024;

/// Brings the whole artifact into `part`, going on where an earlier fetch stopped. When this returns, the file's
/// length and SHA-256 are those that were announced.
///
/// # Errors
/// [`ArtifactError`]; a partial file is kept unless its content is wrong.
pub(crate) async fn fetch(channel: Channel, artifact: &Artifact, part: &Path) -> Result<(), ArtifactError> {
    let mut partial = Partial::open(artifact, part)?;
    if partial.length < artifact.size_bytes {
        receive(channel, artifact, &mut partial).await?;
    }
    partial.finish(artifact, part)
}

async fn receive(channel: Channel, artifact: &Artifact, partial: &mut Partial) -> Result<(), ArtifactError> {
    let unavailable = |reason: String| ArtifactError::Unavailable { digest: artifact.digest, reason };
    let request = FetchArtifactRequest { digest: artifact.digest.to_string(), offset: partial.length };
    let mut client = AgentServiceClient::new(channel);
    let stalled = || unavailable(format!("nothing came for {} s", STALL.as_secs()));
    let answer = tokio::time::timeout(STALL, client.fetch_artifact(request)).await.map_err(|_| stalled())?;
    let mut chunks = answer.map_err(|status| unavailable(status.message().to_owned()))?.into_inner();
    loop {
        let chunk = tokio::time::timeout(STALL, chunks.message()).await.map_err(|_| stalled())?;
        match chunk.map_err(|status| unavailable(status.message().to_owned()))? {
            Some(chunk) => partial.append(artifact, &chunk.data)?,
            None if partial.length == artifact.size_bytes => return Ok(()),
            None => {
                return Err(unavailable(format!(
                    "it ended after {} of {} bytes; the rest is fetched next time",
                    partial.length, artifact.size_bytes
                )));
            }
        }
    }
}

/// What is here of an artifact so far.
struct Partial {
    file: File,
    length: u64,
    hash: Sha256,
}

impl Partial {
    fn open(artifact: &Artifact, path: &Path) -> Result<Self, ArtifactError> {
        Self::read(path, artifact.size_bytes).map_err(io_error(artifact.digest, "open", path))
    }

    fn read(path: &Path, size_bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut partial = Self { length: 0, hash: Sha256::new(), file: file.try_clone()? };
        if file.metadata()?.len() > size_bytes {
            // Not what it should be: start over.
            file.set_len(0)?;
        }
        let mut buffer = vec![0; HASH_BUFFER];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(partial),
                n => {
                    partial.hash.update(&buffer[..n]);
                    partial.length += n as u64;
                }
            }
        }
    }

    fn append(&mut self, artifact: &Artifact, data: &[u8]) -> Result<(), ArtifactError> {
        if self.length + data.len() as u64 > artifact.size_bytes {
            // What came is not what was announced, so nothing of it can be trusted: start over next time.
            let _ = self.file.set_len(0);
            return Err(ArtifactError::Damaged {
                digest: artifact.digest,
                reason: format!("more than its {} bytes came", artifact.size_bytes),
            });
        }
        // The offset is shared with the handle that read the file, so this goes on at its end. Chunks are small
        // and go to the page cache; handing each to another thread would cost more than it frees.
        self.file.write_all(data).map_err(|source| ArtifactError::Io {
            digest: artifact.digest,
            what: "write what was fetched".to_owned(),
            source,
        })?;
        self.hash.update(data);
        self.length += data.len() as u64;
        Ok(())
    }

    fn finish(self, artifact: &Artifact, path: &Path) -> Result<(), ArtifactError> {
        let found = Digest(self.hash.finalize().into());
        if found == artifact.digest {
            return Ok(());
        }
        fs::remove_file(path).map_err(io_error(artifact.digest, "remove", path))?;
        Err(ArtifactError::Damaged {
            digest: artifact.digest,
            reason: format!("its SHA-256 is {}", found.short()),
        })
    }
}

pub(super) fn io_error(
    digest: Digest,
    what: &str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ArtifactError + use<> {
    let what = format!("{what} {}", path.display());
    move |source| ArtifactError::Io { digest, what, source }
}
