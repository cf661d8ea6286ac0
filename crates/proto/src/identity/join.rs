//! Getting a certificate, first by a token and later by the certificate before it.

use super::channel::connect_to_join;
use super::error::IdentityError;
use super::files::Identity;
use super::name::Subject;
use super::pin::find_authority;
use super::token::Token;
use crate::v1;
use crate::v1::enrollment_client::EnrollmentClient;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// The coordinator signs within this time or the call is given up; the token stays usable if it did not.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// As what a host or a person joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinAs {
    /// The node's or operator's name.
    pub name: String,
    /// Nodes: the IP address its services are reached at; empty for operators.
    pub address: String,
    /// Nodes: its labels.
    pub labels: BTreeMap<String, String>,
}

/// Trades a one-time token for an identity at the coordinator at `address` (`HOST:PORT`).
///
/// The token's secret is sent only after the coordinator has proved to be of the authority that the token names.
///
/// # Errors
/// [`IdentityError::WrongAuthority`] before anything was sent; [`IdentityError::Refused`] with the coordinator's
/// reason (a wrong, used or expired token, a name that is taken).
pub async fn join(address: &str, token: &Token, joiner: JoinAs) -> Result<Identity, IdentityError> {
    let subject = Subject::new(token.role, &joiner.name)?;
    let authority = find_authority(address, token.authority).await?;
    let channel = connect_to_join(address, authority).await?;
    let (key_pem, csr_pem) = request_certificate()?;
    let mut request = tonic::Request::new(v1::JoinRequest {
        token: token.to_string(),
        csr_pem,
        name: joiner.name,
        address: joiner.address,
        labels: joiner.labels,
    });
    request.set_timeout(CALL_TIMEOUT);
    let answer = EnrollmentClient::new(channel).join(request).await.map_err(refused)?.into_inner();
    accept(answer, key_pem, &subject, token)
}

/// Trades `identity`, which must not have ended, for a fresh one of the same name, over a channel that was
/// [`super::connect`]ed with it. Save it, then connect anew.
///
/// # Errors
/// [`IdentityError::Refused`] with the coordinator's reason.
pub async fn renew(channel: Channel, identity: &Identity) -> Result<Identity, IdentityError> {
    let (key_pem, csr_pem) = request_certificate()?;
    let mut request = tonic::Request::new(v1::RenewRequest { csr_pem });
    request.set_timeout(CALL_TIMEOUT);
    let answer = EnrollmentClient::new(channel).renew(request).await.map_err(refused)?.into_inner();
    let renewed = Identity {
        certificate_pem: answer.certificate_pem,
        key_pem,
        authority_pem: identity.authority_pem.clone(),
    };
    if renewed.subject()? != identity.subject()? {
        return Err(IdentityError::unusable(
            "the coordinator's answer",
            "its certificate is for another name than ours",
        ));
    }
    super::tls::client(renewed.authority()?, Some(&renewed))?;
    Ok(renewed)
}

/// Makes a fresh ECDSA P-256 key and a certificate request for it: `(key, request)`, both in PEM.
///
/// The request names nobody: the name in a certificate is the authority's to give.
///
/// # Errors
/// When the system gives no randomness.
pub fn request_certificate() -> Result<(String, String), IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::unusable("a fresh key", error);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let request = parameters.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
    Ok((key.serialize_pem(), request))
}

/// Checks the answer before anything is kept: our authority, our name, our key.
fn accept(
    answer: v1::JoinResponse,
    key_pem: String,
    subject: &Subject,
    token: &Token,
) -> Result<Identity, IdentityError> {
    use sha2::{Digest as _, Sha256};
    let wrong = |detail: &str| IdentityError::unusable("the coordinator's answer", detail);
    let identity =
        Identity { certificate_pem: answer.certificate_pem, key_pem, authority_pem: answer.authority_pem };
    if Sha256::digest(identity.authority()?).as_slice() != token.authority.0 {
        return Err(wrong("its authority is not the one that the token names"));
    }
    if identity.subject()?.1 != *subject {
        return Err(wrong("its certificate is for another name than the one asked for"));
    }
    super::tls::client(identity.authority()?, Some(&identity))?;
    Ok(identity)
}

fn refused(status: Status) -> IdentityError {
    let retryable = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::ResourceExhausted
    );
    IdentityError::Refused { message: status.message().to_owned(), retryable }
}
