//! The first meeting: finds the authority by its fingerprint, before anything secret is sent.

use super::channel;
use super::error::IdentityError;
use super::tls;
use baton_model::id::Digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsConnector;

/// Handshakes with whoever listens at `address` and answers the authority's certificate, if its SHA-256 is
/// `fingerprint` and it has signed the coordinator's certificate.
///
/// # Errors
/// [`IdentityError::WrongAuthority`] when it is another authority; nothing was sent to it then but the handshake.
pub(super) async fn find_authority(
    address: &str,
    fingerprint: Digest,
) -> Result<CertificateDer<'static>, IdentityError> {
    let verifier = Arc::new(PinVerifier { fingerprint, provider: tls::provider(), found: Mutex::new(None) });
    let connector =
        TlsConnector::from(tls::client_with(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>));
    channel::meet(address, async |stream| {
        let met = connector.connect(tls::server_name(), stream).await;
        met.map(drop).map_err(|error| channel::explain(&error, address, "this host"))
    })
    .await?;
    let found = verifier.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    found.ok_or_else(|| IdentityError::WrongAuthority {
        address: address.to_owned(),
        detail: "it showed no authority".to_owned(),
    })
}

/// Trusts the one authority whose fingerprint the token names, and keeps its certificate.
#[derive(Debug)]
struct PinVerifier {
    fingerprint: Digest,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = others.iter().find(|other| Sha256::digest(other).as_slice() == self.fingerprint.0);
        let authority =
            pinned.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let verified = webpki.verify_server_cert(leaf, &[], name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
