//! The same over real connections on loopback: pinned joins, expired certificates, plaintext, TLS 1.2.

use super::{HOUR, World, world_at};
use crate::authority::{Authority, JoinAsk, Lifetimes};
use baton_proto::identity::{
    Identity, IdentityError, JoinAs, Peer, Role, SERVER_NAME, ServerTls, Token, connect, connect_at,
    incoming, join, peer, renew, server_tls,
};
use baton_proto::v1;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tonic::{Request, Response, Status};

/// As much of the coordinator's API as joining needs.
struct Service {
    authority: Arc<Authority>,
}

#[tonic::async_trait]
impl Enrollment for Service {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        let ask = JoinAsk { token: &request.token, name: &request.name, csr_pem: &request.csr_pem };
        answer(self.authority.join(ask, SystemTime::now()).await)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let peer = peer(&request)?;
        answer(self.authority.renew(&peer, &request.into_inner().csr_pem, SystemTime::now()).await)
    }
}

fn answer(
    issued: Result<crate::authority::Issued, crate::authority::AuthorityError>,
) -> Result<Response<v1::JoinResponse>, Status> {
    let issued = issued.map_err(|error| Status::failed_precondition(error.to_string()))?;
    Ok(Response::new(v1::JoinResponse {
        certificate_pem: issued.certificate_pem,
        authority_pem: issued.authority_pem,
        not_after_unix_s: 0,
        cluster: "home".to_owned(),
    }))
}

/// A coordinator that serves until it is dropped.
struct Serving {
    world: World,
    address: String,
    server: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serving() -> Serving {
    let world = world_at(SystemTime::now(), Lifetimes::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = server_tls(&world.authority.server_identity(SystemTime::now()).unwrap()).unwrap();
    let service = EnrollmentServer::new(Service { authority: Arc::clone(&world.authority) });
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(incoming(listener, tls))).abort_handle();
    Serving { world, address, server }
}

impl Serving {
    async fn token(&self) -> Token {
        self.world.authority.create_token(Role::Node, None, HOUR, SystemTime::now()).await.unwrap().0
    }

    async fn join(&self, token: &Token, name: &str) -> Result<Identity, IdentityError> {
        join(&self.address, token, JoinAs { name: name.to_owned(), ..JoinAs::default() }).await
    }

    /// An identity that was made at `then`.
    async fn identity_of(&self, then: SystemTime) -> Identity {
        self.world.authority.enroll_operator("ann", then).await.unwrap()
    }
}

/// A client that only looks at what it is served.
pub(super) struct Looker;

pub(super) async fn listening(tls: ServerTls) -> (Looker, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio_stream::StreamExt;
        let mut connections = incoming(listener, tls);
        while connections.next().await.is_some() {}
    });
    (Looker, address)
}

impl Looker {
    pub(super) async fn served_certificate(&mut self, address: &str) -> Vec<u8> {
        let stream = handshake(address, trusting_all(&[&rustls::version::TLS13])).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

/// Trusts whoever answers: for tests that look at what a server offers.
#[derive(Debug)]
struct TrustAll(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn trusting_all(versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let any = world_at(SystemTime::now(), Lifetimes::default());
    let server = any.authority.server_identity(SystemTime::now()).unwrap();
    roots.add(CertificateDer::from_pem_slice(server.authority_pem.as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll(verifier)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn handshake(
    address: &str,
    config: rustls::ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER_NAME).unwrap(), stream).await
}

#[tokio::test]
async fn a_host_joins_with_a_token_and_renews() {
    let serving = serving().await;
    let identity = serving.join(&serving.token().await, "n1").await.unwrap();
    let (cluster, subject) = identity.subject().unwrap();
    assert_eq!((cluster.as_str(), subject.to_string().as_str()), ("home", "node n1"));
    let channel = connect(&serving.address, &identity).await.unwrap();
    let renewed = renew(channel, &identity).await.unwrap();
    assert_ne!(renewed.key_pem, identity.key_pem);
    assert_eq!(renewed.subject().unwrap(), identity.subject().unwrap());
    connect(&serving.address, &renewed).await.unwrap();
}

#[tokio::test]
async fn a_used_token_is_refused_over_the_wire_with_the_reason() {
    let serving = serving().await;
    let token = serving.token().await;
    serving.join(&token, "n1").await.unwrap();
    let error = serving.join(&token, "n2").await.unwrap_err();
    assert!(matches!(error, IdentityError::Refused { retryable: false, .. }), "{error:?}");
    assert!(error.to_string().contains("used") && error.to_string().contains("by node n1"), "{error}");
}

/// The token pins another authority: nothing must be sent, so the token is still good where it belongs.
#[tokio::test]
async fn a_coordinator_with_the_wrong_pin_learns_nothing() {
    let (ours, theirs) = (serving().await, serving().await);
    let token = ours.token().await;
    let error = theirs.join(&token, "n1").await.unwrap_err();
    assert!(matches!(error, IdentityError::WrongAuthority { .. }) && !error.retryable(), "{error:?}");
    ours.join(&token, "n1").await.expect("unused");
}

/// Shows the pinned authority's certificate beside a leaf that it has not signed.
#[tokio::test]
async fn the_right_authority_with_a_foreign_leaf_is_refused() {
    let (ours, theirs) = (serving().await, serving().await);
    let mut mixed = theirs.world.authority.server_identity(SystemTime::now()).unwrap();
    mixed.authority_pem = ours.world.authority.server_identity(SystemTime::now()).unwrap().authority_pem;
    let (_, address) = listening(server_tls(&mixed).unwrap()).await;
    let error =
        join(&address, &ours.token().await, JoinAs { name: "n1".to_owned(), ..JoinAs::default() }).await;
    assert!(matches!(error, Err(IdentityError::WrongAuthority { .. })), "{error:?}");
}

/// A member's certificate is of the right authority too, and yet no coordinator's.
#[tokio::test]
async fn a_member_cannot_pose_as_the_coordinator() {
    let serving = serving().await;
    let member = serving.join(&serving.token().await, "n1").await.unwrap();
    let (_, address) = listening(server_tls(&member).unwrap()).await;
    let error = connect(&address, &member).await.unwrap_err();
    assert!(
        matches!(error, IdentityError::WrongName { .. } | IdentityError::WrongAuthority { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_coordinator_of_another_authority_is_told() {
    let (ours, theirs) = (serving().await, serving().await);
    let identity = ours.join(&ours.token().await, "n1").await.unwrap();
    let error = connect(&theirs.address, &identity).await.unwrap_err();
    assert!(matches!(error, IdentityError::WrongAuthority { .. }), "{error:?}");
    // The other way round: the server does not know our authority.
    let mut posing = identity;
    posing.authority_pem = theirs.world.authority.server_identity(SystemTime::now()).unwrap().authority_pem;
    let error = connect(&theirs.address, &posing).await.unwrap_err();
    assert!(matches!(error, IdentityError::NotAccepted { .. }), "{error:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_told_before_and_after_it_is_sent() {
    let serving = serving().await;
    let old = serving.identity_of(SystemTime::now() - 200 * 24 * HOUR).await;
    let error = connect(&serving.address, &old).await.unwrap_err();
    assert!(matches!(error, IdentityError::Expired { .. }), "{error:?}");
    assert!(error.to_string().contains("operator ann") && error.to_string().contains("--force"), "{error}");
    // A host whose clock is late thinks that it is good, and the coordinator's alert is what tells.
    let error = connect_at(&serving.address, &old, SystemTime::now() - 199 * 24 * HOUR).await.unwrap_err();
    assert!(
        matches!(&error, IdentityError::Expired { detail, .. } if detail.contains("coordinator")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_call_without_a_certificate_may_only_join() {
    let serving = serving().await;
    let mut config = trusting_all(&[&rustls::version::TLS13]);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (address, config) = (serving.address.clone(), Arc::new(config));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint
        .connect_with_connector(tower::service_fn(move |_: http::Uri| {
            let (address, config) = (address.clone(), (*config).clone());
            async move { handshake(&address, config).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .unwrap();
    let status =
        EnrollmentClient::new(channel).renew(v1::RenewRequest { csr_pem: String::new() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(status.message().contains("join first"), "{status}");
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let serving = serving().await;
    handshake(&serving.address, trusting_all(&[&rustls::version::TLS13]))
        .await
        .expect("the client itself is fine");
    let error = handshake(&serving.address, trusting_all(&[&rustls::version::TLS12])).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn a_plaintext_client_gets_nothing_and_disturbs_nobody() {
    let serving = serving().await;
    let mut plain = TcpStream::connect(&serving.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut answer)).await.expect("closed");
    // A TLS alert record (type 21) at most.
    assert!(read.is_err() || answer.is_empty() || answer[0] == 21, "{answer:?}");
    serving.join(&serving.token().await, "n1").await.unwrap();
}

#[tokio::test]
async fn a_wrong_address_is_told_in_bounded_time() {
    let serving = serving().await;
    let identity = serving.join(&serving.token().await, "n1").await.unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = connect(&free, &identity).await.unwrap_err();
    assert!(matches!(error, IdentityError::Unreachable { .. }) && error.retryable(), "{error:?}");
    assert!(error.to_string().contains(&free), "{error}");
    for nonsense in ["", "a b", "http://x", "127.0.0.1"] {
        let error = connect(nonsense, &identity).await.unwrap_err();
        assert!(matches!(error, IdentityError::NotAnAddress { .. }), "{nonsense}: {error:?}");
    }
    // Something that speaks, but not TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        }
    });
    let error = connect(&address, &identity).await.unwrap_err();
    assert!(
        matches!(error, IdentityError::NotACoordinator { .. } | IdentityError::Unreachable { .. }),
        "{error:?}"
    );
    // Something that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let begun = tokio::time::Instant::now();
    let error = connect(&address, &identity).await.unwrap_err();
    assert!(matches!(error, IdentityError::Unreachable { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_handler_sees_the_peer_of_the_certificate() {
    // `Renew` names the peer by its certificate; a member that was removed is refused by name.
    let serving = serving().await;
    let identity = serving.join(&serving.token().await, "n1").await.unwrap();
    let channel = connect(&serving.address, &identity).await.unwrap();
    serving.world.authority.forget(&Peer::Node("n1".parse().unwrap())).await.unwrap();
    let error = renew(channel, &identity).await.unwrap_err();
    assert!(error.to_string().contains("node n1 is no longer a member"), "{error}");
}
