//! An identity on disk: one file, so that a certificate and its key can never be of two different times.

use super::error::IdentityError;
use super::name::Subject;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file an identity is kept in, inside the folder given to [`Identity::load`] and [`Identity::save`].
pub const FILE_NAME: &str = "identity.pem";
/// No identity is larger; a larger file is something else.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A certificate, its key, and the authority that signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Our certificate, leaf first, in PEM.
    pub certificate_pem: String,
    /// Its private key (PKCS #8), in PEM.
    pub key_pem: String,
    /// The authority's certificate, in PEM.
    pub authority_pem: String,
}

/// Without the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("subject", &self.subject().ok()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the identity kept in the folder `dir`.
    ///
    /// # Errors
    /// [`IdentityError::NotJoined`] where there is none; otherwise the file and what is wrong with it, a key that
    /// others may read included.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FILE_NAME);
        let failed = |source| IdentityError::File { action: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::NotJoined { path });
            }
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        let named = || path.display().to_string();
        if mode & 0o077 != 0 {
            let detail = format!(
                "its private key may be read by other users (mode {mode:03o}); run `chmod 600` on it, and join again if someone may have read it"
            );
            return Err(IdentityError::unusable(named(), detail));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(IdentityError::unusable(named(), "it is far too large to be an identity"));
        }
        let text = io::read_to_string(file).map_err(failed)?;
        let identity = Self::from_pem(&text).map_err(|detail| {
            IdentityError::unusable(named(), format!("{detail}; restore it, or join again with `--force`"))
        })?;
        Ok(identity)
    }

    /// Keeps the identity in the folder `dir` (made if missing), readable by its owner only. After a crash at any
    /// moment the file holds either the old identity or the new one.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let failed =
            |action, path: &Path, source| IdentityError::File { action, path: path.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|error| failed("create", dir, error))?;
        let path = dir.join(FILE_NAME);
        write_private(&path, self.to_pem().as_bytes()).map_err(|error| failed("write", &path, error))
    }

    /// Who this identity is: the cluster, and the name in it.
    ///
    /// # Errors
    /// When the certificate carries no name of ours.
    pub fn subject(&self) -> Result<(String, Subject), IdentityError> {
        Subject::of_certificate(&self.leaf()?).ok_or_else(|| {
            IdentityError::unusable(
                "our certificate",
                "it carries no SPIFFE id of a node, an operator or a coordinator",
            )
        })
    }

    /// When the certificate ends.
    ///
    /// # Errors
    /// When the certificate cannot be parsed.
    pub fn not_after(&self) -> Result<SystemTime, IdentityError> {
        Ok(self.validity()?.1)
    }

    /// From when to when the certificate is valid; what is to be renewed after a part of its life needs both.
    ///
    /// # Errors
    /// When the certificate cannot be parsed.
    pub fn validity(&self) -> Result<(SystemTime, SystemTime), IdentityError> {
        let leaf = self.leaf()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf)
            .map_err(|error| IdentityError::unusable("our certificate", error))?;
        Ok((
            system_time(parsed.validity().not_before.timestamp()),
            system_time(parsed.validity().not_after.timestamp()),
        ))
    }

    /// The end of the certificate as people read it, in UTC.
    ///
    /// # Errors
    /// When the certificate cannot be parsed.
    pub fn ended_on(&self) -> Result<String, IdentityError> {
        let leaf = self.leaf()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf)
            .map_err(|error| IdentityError::unusable("our certificate", error))?;
        Ok(parsed.validity().not_after.to_string())
    }

    /// When the certificate should be renewed: after two thirds of its life, so that a third is left for trying.
    ///
    /// # Errors
    /// When the certificate cannot be parsed.
    pub fn renew_at(&self) -> Result<SystemTime, IdentityError> {
        let (from, until) = self.validity()?;
        let life = until.duration_since(from).unwrap_or(Duration::ZERO);
        Ok(from + life * 2 / 3)
    }

    pub(crate) fn leaf(&self) -> Result<CertificateDer<'static>, IdentityError> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| IdentityError::unusable("our certificate", error))
    }

    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect();
        certificates.map_err(|error| IdentityError::unusable("our certificate", error))
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| IdentityError::unusable("our private key", error))
    }

    pub(crate) fn authority(&self) -> Result<CertificateDer<'static>, IdentityError> {
        CertificateDer::from_pem_slice(self.authority_pem.as_bytes())
            .map_err(|error| IdentityError::unusable("our authority's certificate", error))
    }

    fn to_pem(&self) -> String {
        let mut text = String::new();
        for part in [&self.key_pem, &self.certificate_pem, &self.authority_pem] {
            text.push_str(part.trim_end());
            text.push('\n');
        }
        text
    }

    /// Takes apart what `to_pem` wrote: a key, one or more certificates with the leaf first, the authority last.
    fn from_pem(text: &str) -> Result<Self, String> {
        let mut key_pem = None;
        let mut certificates = Vec::new();
        for block in pem_blocks(text)? {
            match block.lines().next() {
                Some("-----BEGIN PRIVATE KEY-----") => key_pem = Some(block),
                Some("-----BEGIN CERTIFICATE-----") => certificates.push(block),
                Some(_) | None => {
                    return Err(
                        "it holds a section that is neither a certificate nor a PKCS #8 key".to_owned()
                    );
                }
            }
        }
        let key_pem = key_pem.ok_or("it holds no private key")?;
        let authority_pem = certificates.pop().ok_or("it holds no certificate")?;
        if certificates.is_empty() {
            return Err("it holds only one certificate; ours and the authority's are expected".to_owned());
        }
        let identity = Self { certificate_pem: certificates.concat(), key_pem, authority_pem };
        let checked = identity.subject().and(identity.key().map(drop)).and(identity.authority().map(drop));
        checked.map_err(|error| error.to_string())?;
        Ok(identity)
    }
}

fn system_time(unix_s: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_s).unwrap_or(0))
}

/// The PEM blocks of a text, each with its BEGIN and END lines.
fn pem_blocks(text: &str) -> Result<Vec<String>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim_end) {
        if line.starts_with("-----BEGIN ") {
            open = Some(String::new());
        }
        let Some(mut block) = open.take() else { continue };
        block.push_str(line);
        block.push('\n');
        if line.starts_with("-----END ") {
            blocks.push(block);
        } else {
            open = Some(block);
        }
    }
    if open.is_some() {
        return Err("its last section is cut short".to_owned());
    }
    Ok(blocks)
}

/// Gives all that is in the folder `dir` to whoever owns the folder itself: root may make a cluster or a gateway for the
/// user that is to run it, as the Debian packages have them.
///
/// # Errors
/// Those of the system.
pub fn give_to_owner(dir: &Path) -> io::Result<()> {
    let owner = std::fs::metadata(dir)?;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if (metadata.uid(), metadata.gid()) != (owner.uid(), owner.gid()) {
                lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
            }
        }
    }
    Ok(())
}

/// Replaces `path` by a file that only its owner can read, durably: write beside it, sync, rename, sync the folder.
///
/// # Errors
/// Those of the system; what was at `path` is then as it was.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside: PathBuf = path.to_owned();
    beside.as_mut_os_string().push(format!(".{}.new", std::process::id()));
    // A leftover of a process that had our id and crashed would make `create_new` fail for ever.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
