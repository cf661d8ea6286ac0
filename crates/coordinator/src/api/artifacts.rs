//! Uploads of artifacts.

use super::status::Refusal;
use crate::artifacts::{Stat, Upload};
use crate::state::Coordinator;
use baton_model::id::Digest;
use baton_proto::v1::{self, upload_artifact_request::Part};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Status, Streaming};

/// An upload that sends nothing for this long is ended; what came is kept.
const UPLOAD_SILENCE: Duration = Duration::from_secs(60);

pub(super) async fn stat(
    coordinator: &Arc<Coordinator>,
    request: v1::StatArtifactRequest,
) -> Result<v1::StatArtifactResponse, Refusal> {
    let digest: Digest = request.digest.parse()?;
    let artifacts = Arc::clone(&coordinator.artifacts);
    let stat = blocking(move || artifacts.stat(digest)).await?;
    Ok(answer(stat))
}

/// Takes an upload in, to its end or to where it breaks off.
pub(super) async fn upload(
    coordinator: &Arc<Coordinator>,
    mut stream: Streaming<v1::UploadArtifactRequest>,
) -> Result<v1::StatArtifactResponse, Status> {
    let Some(Part::Start(start)) = next(&mut stream).await? else {
        return Err(Refusal::Invalid(
            "an upload begins with the artifact's digest and size; upgrade the CLI".to_owned(),
        )
        .into());
    };
    let digest: Digest = start.digest.parse().map_err(Refusal::from)?;
    let artifacts = Arc::clone(&coordinator.artifacts);
    let begun = blocking(move || Upload::begin(&artifacts, digest, start.size_bytes, start.offset))
        .await?
        .map_err(Refusal::from)?;
    let Some(mut upload) = begun else {
        return Ok(answer(Stat { complete: true, offset: start.size_bytes }));
    };
    while !upload.is_complete() {
        let data = match next(&mut stream).await? {
            Some(Part::Data(data)) => data,
            Some(Part::Start(_)) => {
                return Err(
                    Refusal::Invalid("an upload has one beginning only; upgrade the CLI".to_owned()).into()
                );
            }
            None => return Ok(answer(Stat { complete: false, offset: upload.received() })),
        };
        let appended = blocking(move || upload.append(&data).map(|()| upload)).await?;
        upload = appended.map_err(Refusal::from)?;
    }
    if let Some(part) = next(&mut stream).await? {
        return Err(too_much(upload, part).await.into());
    }
    blocking(move || upload.finish()).await?.map_err(Refusal::from)?;
    Ok(answer(Stat { complete: true, offset: start.size_bytes }))
}

/// More came than was announced.
async fn too_much(mut upload: Upload, part: Part) -> Refusal {
    let data = match part {
        Part::Data(data) => data,
        Part::Start(_) => {
            return Refusal::Invalid("an upload has one beginning only; upgrade the CLI".to_owned());
        }
    };
    match blocking(move || upload.append(&data)).await {
        Ok(Ok(())) => Refusal::Invalid("an upload goes on after its end; upgrade the CLI".to_owned()),
        Ok(Err(error)) => error.into(),
        Err(refusal) => refusal,
    }
}

async fn next(stream: &mut Streaming<v1::UploadArtifactRequest>) -> Result<Option<Part>, Status> {
    let silent = |_| {
        Refusal::Unavailable(format!(
            "the upload sent nothing for {} seconds; what came is kept, go on with it",
            UPLOAD_SILENCE.as_secs()
        ))
    };
    match tokio::time::timeout(UPLOAD_SILENCE, stream.message()).await.map_err(silent)?? {
        Some(v1::UploadArtifactRequest { part: Some(part) }) => Ok(Some(part)),
        Some(v1::UploadArtifactRequest { part: None }) => Err(Refusal::Invalid(
            "an upload sent something this coordinator does not know; upgrade the coordinator".to_owned(),
        )
        .into()),
        None => Ok(None),
    }
}

fn answer(stat: Stat) -> v1::StatArtifactResponse {
    v1::StatArtifactResponse { complete: stat.complete, offset: stat.offset }
}

/// Runs what waits for the disk where that holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::Defect(error.to_string()))
}
