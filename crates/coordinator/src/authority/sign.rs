//! Signing: a key from a request, everything else from us.

use super::error::AuthorityError;
use super::key::{AuthorityKey, BACKDATED};
use baton_proto::identity::{SERVER_NAME, Subject};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey, SanType,
};
use std::time::{Duration, SystemTime};

/// A request for one key has a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// The key of a certificate request, whose own signature proves that the asker holds it. Nothing else in the
/// request is looked at.
pub(super) fn requested_key(csr_pem: &str) -> Result<PublicKey, AuthorityError> {
    if csr_pem.len() > REQUEST_BYTES_MAX {
        return Err(AuthorityError::BadRequest(format!("it has more than {REQUEST_BYTES_MAX} bytes")));
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|error| AuthorityError::BadRequest(error.to_string()))?;
    if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
        return Err(AuthorityError::BadRequest("its key is not ECDSA P-256".to_owned()));
    }
    Ok(request.public_key)
}

/// A certificate in PEM, and when it ends.
pub(super) fn certificate(
    authority: &AuthorityKey,
    subject: &Subject,
    public_key: &PublicKey,
    lifetime: Duration,
    now: SystemTime,
) -> Result<(String, SystemTime), AuthorityError> {
    let signing = |error: rcgen::Error| AuthorityError::Signing(error.to_string());
    let not_after = now + lifetime;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, subject.to_string());
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    // A certificate for a few seconds must not look as if most of its life were over.
    parameters.not_before = (now - BACKDATED.min(lifetime)).into();
    parameters.not_after = not_after.into();
    let uri = subject.uri(authority.cluster()).as_str().try_into().map_err(signing)?;
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    // Apart, so that no member can pose as the coordinator, nor the other way round.
    parameters.extended_key_usages = match subject {
        Subject::Node(_) | Subject::Gateway(_) | Subject::Operator(_) => {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        }
        Subject::Coordinator => {
            parameters.subject_alt_names.push(SanType::DnsName(SERVER_NAME.try_into().map_err(signing)?));
            vec![ExtendedKeyUsagePurpose::ServerAuth]
        }
    };
    let certificate = parameters.signed_by(public_key, authority.issuer()).map_err(signing)?;
    Ok((certificate.pem(), not_after))
}
