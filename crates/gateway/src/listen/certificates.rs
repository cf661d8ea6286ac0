//! Certificates by host name, looked at again and again: a file that changed is taken without a connection lost, and one
//! that is no good is refused with the reason while the old one stays.

use crate::config::CertificateFiles;
use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The chain is empty, or its first certificate cannot be parsed.
    #[error("{path} is not a chain of certificates: {reason}")]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is past its end, or before its beginning.
    #[error("the certificate in {path} is not valid now: it is for {from} to {until}")]
    Time {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        from: String,
        /// Its end.
        until: String,
    },
    /// It names no host.
    #[error("the certificate in {path} names no host: it needs a DNS subject alternative name")]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("the key in {key} does not belong to the certificate in {chain}: {reason}")]
    Mismatch {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The certificates in force; shared by all listeners.
#[derive(Debug)]
pub(crate) struct Certificates {
    in_force: ArcSwap<ByName>,
}

#[derive(Debug, Default)]
struct ByName {
    /// Names as they are, and `*.name` for one label below it (RFC 6125, 6.4.3).
    names: BTreeMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// The first that is no good, and why.
    pub(crate) fn load(files: &[CertificateFiles]) -> Result<Arc<Self>, CertificateError> {
        let in_force = ArcSwap::from_pointee(read_all(files, SystemTime::now())?);
        Ok(Arc::new(Self { in_force }))
    }

    /// Reads and checks all files again, and takes them in if all are good: whole, or not at all.
    ///
    /// # Errors
    /// The first that is no good, and why; what is in force stays.
    pub(crate) fn reload(&self, files: &[CertificateFiles]) -> Result<(), CertificateError> {
        self.in_force.store(Arc::new(read_all(files, SystemTime::now())?));
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.in_force.load();
        hello.server_name().and_then(|name| certificates.find(name)).or_else(|| certificates.first.clone())
    }
}

impl ByName {
    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let above = || name.split_once('.').and_then(|(_, above)| self.names.get(&format!("*.{above}")));
        self.names.get(&name).or_else(above).cloned()
    }
}

fn read_all(files: &[CertificateFiles], now: SystemTime) -> Result<ByName, CertificateError> {
    let mut all = ByName::default();
    for file in files {
        let (names, key) = read(file, now)?;
        let key = Arc::new(key);
        all.first.get_or_insert_with(|| Arc::clone(&key));
        for name in names {
            all.names.entry(name).or_insert_with(|| Arc::clone(&key));
        }
    }
    Ok(all)
}

fn read(files: &CertificateFiles, now: SystemTime) -> Result<(Vec<String>, CertifiedKey), CertificateError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls_pki_types::pem::Error| CertificateError::Read { path, reason: error.to_string() }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.chain)
        .and_then(Iterator::collect)
        .map_err(unreadable(&files.chain))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
    let names = check(&files.chain, &chain, now)?;
    let key =
        CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(|error| {
            CertificateError::Mismatch {
                chain: files.chain.clone(),
                key: files.key.clone(),
                reason: error.to_string(),
            }
        })?;
    Ok((names, key))
}

/// The names of the first certificate, if it is valid at `now`.
fn check(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<Vec<String>, CertificateError> {
    let bad = |reason: String| CertificateError::Chain { path: path.to_owned(), reason };
    let first = chain.first().ok_or_else(|| bad("there is none in it".to_owned()))?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|error| bad(error.to_string()))?;
    let validity = certificate.validity();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    if seconds < validity.not_before.timestamp() || seconds > validity.not_after.timestamp() {
        return Err(CertificateError::Time {
            path: path.to_owned(),
            from: validity.not_before.to_string(),
            until: validity.not_after.to_string(),
        });
    }
    let alternative = certificate.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
    let names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err(CertificateError::Nameless { path: path.to_owned() });
    }
    Ok(names)
}

/// Looks at the files for as long as it is polled, and takes in what has changed.
pub(crate) async fn watch(certificates: Arc<Certificates>, files: Vec<CertificateFiles>) {
    let mut seen = stamps(&files);
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        seen = now;
        match certificates.reload(&files) {
            Ok(()) => tracing::info!("new certificates are in force"),
            Err(error) => tracing::error!(%error, "the certificates in force stay: repair the new ones"),
        }
    }
}

/// What tells that a file is another one: its times, size and number.
fn stamps(files: &[CertificateFiles]) -> Vec<Option<(i64, i64, u64, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino()))
    };
    files.iter().flat_map(|it| [stamp(&it.chain), stamp(&it.key)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        folder: tempfile::TempDir,
    }

    impl Made {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().expect("a folder") }
        }

        fn files(&self, name: &str) -> CertificateFiles {
            CertificateFiles {
                chain: self.folder.path().join(format!("{name}.pem")),
                key: self.folder.path().join(format!("{name}.key")),
            }
        }

        /// A certificate for `hosts`, valid in these years.
        fn write(&self, name: &str, hosts: &[&str], years: (i32, i32)) -> CertificateFiles {
            let hosts: Vec<String> = hosts.iter().map(|it| (*it).to_owned()).collect();
            let mut parameters = rcgen::CertificateParams::new(hosts).expect("names");
            parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = parameters.self_signed(&key).expect("signed");
            let files = self.files(name);
            std::fs::write(&files.chain, certificate.pem()).expect("written");
            std::fs::write(&files.key, key.serialize_pem()).expect("written");
            files
        }
    }

    #[test]
    fn a_name_finds_its_certificate_and_a_star_covers_one_label() {
        let made = Made::new();
        let files = [
            made.write("one", &["one.test"], (2020, 4000)),
            made.write("stars", &["*.two.test"], (2020, 4000)),
        ];
        let all = read_all(&files, SystemTime::now()).expect("good");
        let first = all.first.clone().expect("a first");
        assert!(Arc::ptr_eq(&all.find("ONE.test").expect("its own"), &first));
        assert!(!Arc::ptr_eq(&all.find("a.two.test").expect("below the star"), &first));
        assert!(all.find("a.b.two.test").is_none() && all.find("two.test").is_none());
    }

    #[test]
    fn what_is_no_good_is_refused_with_its_reason() {
        let made = Made::new();
        let good = made.write("good", &["a.test"], (2020, 4000));
        let other = made.write("other", &["b.test"], (2020, 4000));
        let cases = [
            (made.write("old", &["a.test"], (2019, 2020)), "not valid now"),
            (made.write("early", &["a.test"], (3990, 4000)), "not valid now"),
            (made.write("nameless", &[], (2020, 4000)), "names no host"),
            (CertificateFiles { chain: good.chain.clone(), key: other.key }, "does not belong"),
            (CertificateFiles { chain: good.key.clone(), key: good.key.clone() }, "not a chain"),
            (made.files("absent"), "cannot read"),
        ];
        for (files, says) in cases {
            let error = read_all(std::slice::from_ref(&files), SystemTime::now()).expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_reload_is_whole_or_nothing() {
        let made = Made::new();
        let files = [made.write("a", &["a.test"], (2020, 4000)), made.write("b", &["b.test"], (2020, 4000))];
        let certificates = Certificates::load(&files).expect("good");
        let before = certificates.in_force.load_full();
        made.write("a", &["a.test"], (2020, 4000));
        made.write("b", &["b.test"], (2019, 2020));
        certificates.reload(&files).expect_err("the second one is old");
        assert!(Arc::ptr_eq(&before, &certificates.in_force.load_full()));
        made.write("b", &["b.test"], (2020, 4000));
        certificates.reload(&files).expect("good again");
        assert!(!Arc::ptr_eq(&before, &certificates.in_force.load_full()));
    }
}
