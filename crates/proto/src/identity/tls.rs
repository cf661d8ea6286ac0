//! The TLS configurations of both sides: version 1.3, ring, HTTP/2, and nothing to choose.

use super::error::IdentityError;
use super::files::Identity;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;

/// The TLS name of every coordinator, whatever address it is reached at: trust comes from the authority, not from
/// an address.
pub const SERVER_NAME: &str = "baton-coordinator";

const ALPN_HTTP2: &[u8] = b"h2";

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a constant DNS name")
}

fn roots(authority: CertificateDer<'static>) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority).map_err(|error| IdentityError::unusable("the authority's certificate", error))?;
    Ok(Arc::new(roots))
}

/// A client that trusts only `authority`, with our certificate where we have one already.
pub(super) fn client(
    authority: CertificateDer<'static>,
    ours: Option<&Identity>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots(authority)?);
    let mut config = match ours {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain()?, identity.key()?)
            .map_err(|error| IdentityError::unusable("our certificate", error))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    // A resumed session would skip the server's look at our certificate, and with it the error that tells us it ended.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A client that leaves the judgement of the server's chain to `verifier`.
pub(super) fn client_with(verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Arc::new(config)
}

/// A server that shows its whole chain, authority included (a joiner pins it), and accepts clients of its
/// authority, or clients without a certificate (they may only join).
pub(super) fn server(identity: &Identity) -> Result<Arc<ServerConfig>, IdentityError> {
    let authority = identity.authority()?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority.clone())?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| IdentityError::unusable("the authority's certificate", error))?;
    let mut chain = identity.chain()?;
    chain.push(authority);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, identity.key()?)
        .map_err(|error| IdentityError::unusable("the coordinator's certificate", error))?;
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    // No resumption: every connection shows its certificate, so that an expired one ends with the connection.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
