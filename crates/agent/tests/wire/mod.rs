//! The coordinator's end of the wire, with real TLS: sends the plans it is given and keeps what it is told.

use baton_model::plan::NodePlan;
use baton_proto::identity::{Identity, incoming, server_tls};
use baton_proto::v1::agent_message::Message as Say;
use baton_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use baton_proto::v1::coordinator_message::Message as Hear;
use baton_proto::v1::{self, AgentMessage, ArtifactChunk, CoordinatorMessage, FetchArtifactRequest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// An authority that signs whatever a test needs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// An identity of this name: `coordinator`, or `node/NAME`.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names =
            vec![SanType::URI(format!("spiffe://test/{name}").try_into().unwrap())];
        if name == "coordinator" {
            parameters.subject_alt_names.push(SanType::DnsName("baton-coordinator".try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            authority_pem: self.pem.clone(),
        }
    }
}

/// What the coordinator knows; outlives its server.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) plan: watch::Sender<Option<NodePlan>>,
    pub(crate) observed: watch::Sender<v1::Observed>,
    pub(crate) events: Arc<Mutex<BTreeMap<u64, v1::AgentEvent>>>,
    pub(crate) logs: Arc<Mutex<Vec<v1::LogLines>>>,
    pub(crate) metrics: watch::Sender<Option<v1::NodeMetrics>>,
    pub(crate) ask_logs: watch::Sender<Option<v1::LogRequest>>,
    pub(crate) blobs: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self {
            plan: watch::Sender::new(None),
            observed: watch::Sender::new(v1::Observed::default()),
            events: Arc::default(),
            logs: Arc::default(),
            metrics: watch::Sender::new(None),
            ask_logs: watch::Sender::new(None),
            blobs: Arc::default(),
        }
    }

    /// Serves on `address` until the handle is aborted.
    pub(crate) async fn serve(
        &self,
        authority: &Authority,
        address: SocketAddr,
    ) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_tls(&authority.identity("coordinator")).unwrap();
        let service = AgentServiceServer::new(self.clone());
        let server = tokio::spawn(async move {
            let served = tonic::transport::Server::builder().add_service(service);
            served.serve_with_incoming(incoming(listener, tls)).await.unwrap();
        });
        (address, server)
    }

    pub(crate) fn event(&self, kind: &str) -> Option<v1::AgentEvent> {
        self.events.lock().unwrap().values().find(|event| event.kind == kind).cloned()
    }

    fn take(&self, said: Say) -> Option<Hear> {
        match said {
            Say::Hello(_) => {
                Some(Hear::Welcome(v1::Welcome { session: 1, heartbeat_ms: 100, silence_ms: 5_000 }))
            }
            Say::Heartbeat(beat) => Some(Hear::Heartbeat(beat)),
            Say::Observed(observed) => {
                self.observed.send_replace(observed);
                None
            }
            Say::Metrics(metrics) => {
                self.metrics.send_replace(Some(metrics));
                None
            }
            Say::Event(event) => {
                let through = event.sequence;
                self.events.lock().unwrap().insert(through, event);
                Some(Hear::EventsStored(v1::EventsStored { through }))
            }
            Say::LogLines(lines) => {
                self.logs.lock().unwrap().push(lines);
                None
            }
            // Nothing here asks for an upgrade.
            Say::UpgradeFailure(_) => None,
        }
    }
}

#[tonic::async_trait]
impl AgentService for Wire {
    type SessionStream = ReceiverStream<Result<CoordinatorMessage, Status>>;
    type FetchArtifactStream = ReceiverStream<Result<ArtifactChunk, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut said = request.into_inner();
        let (out, outbox) = mpsc::channel(64);
        let wire = self.clone();
        tokio::spawn(async move {
            let mut plan = wire.plan.subscribe();
            let mut ask = wire.ask_logs.subscribe();
            plan.mark_changed();
            let mut welcomed = false;
            loop {
                let hear = tokio::select! {
                    said = said.message() => match said {
                        Ok(Some(said)) => wire.take(said.message.unwrap()),
                        Ok(None) | Err(_) => return,
                    },
                    _ = plan.changed(), if welcomed => plan.borrow_and_update().clone().map(|plan| Hear::Plan(plan.into())),
                    _ = ask.changed(), if welcomed => ask.borrow_and_update().clone().map(Hear::LogRequest),
                };
                welcomed |= matches!(hear, Some(Hear::Welcome(_)));
                if let Some(hear) = hear
                    && out.send(Ok(CoordinatorMessage { message: Some(hear) })).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbox)))
    }

    async fn fetch_artifact(
        &self,
        request: Request<FetchArtifactRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        let request = request.into_inner();
        let blob = self.blobs.lock().unwrap().get(&request.digest).cloned();
        let rest =
            blob.ok_or_else(|| Status::not_found("no such artifact"))?.split_off(request.offset as usize);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for data in rest.chunks(64 * 1024) {
                if sender.send(Ok(ArtifactChunk { data: data.to_vec().into() })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
