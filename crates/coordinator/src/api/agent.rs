//! What agents call.

use super::artifacts::blocking;
use super::status::Refusal;
use super::{Answers, node_of};
use crate::artifacts::{ArtifactError, ArtifactReader};
use crate::events::event;
use crate::sessions::stream;
use crate::state::Coordinator;
use baton_model::event::Severity;
use baton_model::id::{Digest, NodeName};
use baton_proto::identity::peer;
use baton_proto::v1::{self, agent_service_server::AgentService};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Chunks read ahead of a node.
const CHUNKS_AHEAD: usize = 4;

/// The service of agents.
pub(crate) struct AgentApi(pub(crate) Arc<Coordinator>);

#[tonic::async_trait]
impl AgentService for AgentApi {
    type SessionStream = Answers<v1::CoordinatorMessage>;
    type FetchArtifactStream = Answers<v1::ArtifactChunk>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = node_of(&self.0, peer(&request)).await?;
        let (outbound, answers) = mpsc::channel(1);
        tokio::spawn(stream::serve(Arc::clone(&self.0), node, request.into_inner(), outbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch_artifact(
        &self,
        request: Request<v1::FetchArtifactRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        let node = node_of(&self.0, peer(&request)).await?;
        let request = request.into_inner();
        let digest: Digest = request.digest.parse().map_err(Refusal::from)?;
        let opened = self.open(digest, request.offset).await?;
        let reader = opened.map_err(|error| {
            self.note_corruption(&node, &error);
            Refusal::from(error)
        })?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        tokio::spawn(send_chunks(reader, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks))))
    }
}

impl AgentApi {
    /// Opens an artifact; only a few at a time, because the first after a start is hashed from end to end.
    async fn open(
        &self,
        digest: Digest,
        offset: u64,
    ) -> Result<Result<ArtifactReader, ArtifactError>, Refusal> {
        let permit = self.0.artifacts.opening.acquire().await;
        let _permit = permit.map_err(|closed| Refusal::Defect(closed.to_string()))?;
        let artifacts = Arc::clone(&self.0.artifacts);
        blocking(move || artifacts.read(digest, offset)).await
    }

    fn note_corruption(&self, node: &NodeName, error: &ArtifactError) {
        if matches!(error, ArtifactError::Corrupt(_)) {
            let mut event = event(self.0.clock.now(), Severity::Error, "artifact-corrupt", error.to_string());
            event.node = Some(node.clone());
            self.0.journal.record(vec![event]);
        }
    }
}

/// Reads and sends until the end, or until nobody listens any more. No thread is held for a node that reads slowly.
async fn send_chunks(mut reader: ArtifactReader, sender: mpsc::Sender<Result<v1::ArtifactChunk, Status>>) {
    loop {
        let read = blocking(move || {
            let chunk = reader.next_chunk();
            (reader, chunk)
        });
        let message = match read.await {
            Ok((_, Ok(data))) if data.is_empty() => return,
            Ok((rest, Ok(data))) => {
                reader = rest;
                Ok(v1::ArtifactChunk { data })
            }
            Ok((_, Err(error))) => {
                // The end of the stream, whether or not the node still listens.
                let _ = sender.send(Err(Refusal::from(error).into())).await;
                return;
            }
            Err(refusal) => {
                let _ = sender.send(Err(refusal.into())).await;
                return;
            }
        };
        if sender.send(message).await.is_err() {
            return;
        }
    }
}
