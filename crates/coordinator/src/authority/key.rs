//! The authority's key and certificate, and the one file they are kept in.

use super::error::AuthorityError;
use baton_model::id::{Digest, NodeName};
use baton_proto::identity::write_private;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The file, in the folder given to `init` and `open`: the private key and the certificate, in PEM.
pub const FILE_NAME: &str = "authority.pem";

/// An authority outlives the hardware it is made on; replacing it means that everyone joins again.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// Certificates begin this long before they are made, for hosts whose clocks are late.
pub(super) const BACKDATED: Duration = Duration::from_secs(5 * 60);
/// The certificate's common name is this and the cluster's name.
const COMMON_NAME: &str = "Baton authority of ";

/// The authority's key, ready to sign.
pub(super) struct AuthorityKey {
    cluster: String,
    certificate_pem: String,
    fingerprint: Digest,
    issuer: Issuer<'static, KeyPair>,
}

impl AuthorityKey {
    pub(super) fn make(cluster: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        // In URIs and file names: the rule of node names serves well.
        NodeName::new(cluster)
            .map_err(|error| AuthorityError::BadRequest(error.0.replace("node name", "cluster name")))?;
        let signing = |error: rcgen::Error| AuthorityError::Signing(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(signing)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, format!("{COMMON_NAME}{cluster}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.not_before = (now - BACKDATED).into();
        parameters.not_after = (now + LIFETIME).into();
        let certificate = parameters.self_signed(&key).map_err(signing)?;
        Self::new(certificate.pem(), key).map_err(AuthorityError::Signing)
    }

    fn new(certificate_pem: String, key: KeyPair) -> Result<Self, String> {
        let der =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err("its key and its certificate do not belong together".to_owned());
        }
        let mut names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        let cluster = names
            .next()
            .and_then(|name| name.strip_prefix(COMMON_NAME))
            .ok_or("its certificate is not a Baton authority's")?;
        let cluster = cluster.to_owned();
        let fingerprint = Digest(Sha256::digest(&der).into());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| error.to_string())?;
        Ok(Self { cluster, certificate_pem, fingerprint, issuer })
    }

    /// Keeps it in a folder that has none yet.
    pub(super) fn save_new(&self, dir: &Path) -> Result<(), AuthorityError> {
        let path = dir.join(FILE_NAME);
        let failed = |action, source| AuthorityError::File { action, path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(|error| failed("make the folder of", error))?;
        if path.try_exists().map_err(|error| failed("look for", error))? {
            return Err(AuthorityError::Exists { path });
        }
        let text = format!("{}{}", self.issuer.key().serialize_pem(), self.certificate_pem);
        write_private(&path, text.as_bytes()).map_err(|error| failed("write", error))
    }

    pub(super) fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| AuthorityError::File { action: "read", path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Missing { path });
            }
            Err(error) => return Err(failed(error)),
        };
        let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let source = io::Error::other(format!(
                "others may read the authority's key (mode {mode:03o}); run `chmod 600` on it"
            ));
            return Err(failed(source));
        }
        let damaged = |detail: String| AuthorityError::Damaged { path: path.clone(), detail };
        let begin = text
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or_else(|| damaged("it holds no certificate".to_owned()))?;
        let (key_pem, certificate_pem) = text.split_at(begin);
        let key = KeyPair::from_pem(key_pem).map_err(|error| damaged(format!("its key: {error}")))?;
        Self::new(certificate_pem.to_owned(), key).map_err(damaged)
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}
