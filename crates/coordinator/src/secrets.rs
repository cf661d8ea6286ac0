//! Secrets: kept encrypted, given to the nodes whose releases name them, shown to nobody.
//!
//! A secret has revisions; a value never changes under its revision, and a revision is never used twice. A release is
//! made with the newest revision of each secret that it names, and keeps it: so a new value reaches a service by a
//! deploy, with its stages and gates, and an undo brings the old value back. A revision is kept as long as it is the
//! newest or a release names it.

mod key;

use crate::records::{self, Records, RecordsError, SECRETS, SERVICES};
use baton_engine::cycle::Versioned;
use baton_model::configuration::SecretKey;
use baton_model::desired::Service;
use baton_model::id::{Revision, SecretName};
use baton_model::secret::Secret;
use baton_model::spec::ServiceSpec;
use baton_model::status::{SecretRevision, SecretStatus};
use baton_model::time::UnixMs;
use key::{Key, Sealed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::RwLock;

/// Most secrets of a cluster.
const SECRETS_MAX: usize = 1000;
/// Most revisions of one secret that releases may hold on to.
const REVISIONS_MAX: usize = 64;

/// Why a secret was not set, read or removed. None of these shows a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file of the key.
    #[error("cannot {action} {path}, the key that secrets are encrypted with")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There are secrets, and their key is gone.
    #[error(
        "{path} is missing, and the store holds secrets that only its key opens; restore it from a backup, or remove the secrets from the store"
    )]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// The stored value does not open with this key.
    #[error(
        "revision {} of secret `{}` does not open with the key in secrets.key: one of the two is not of this cluster; restore both from one backup, or set the secret again",
        .0.revision, .0.name
    )]
    Cipher(SecretKey),
    /// No such secret.
    #[error("there is no secret `{0}`; set it with `baton secret set {0}`, or look at `baton secret ls`")]
    Unknown(SecretName),
    /// A release names it.
    #[error("secret `{name}` is in use by {users}; deploy without it, or remove the service, first")]
    InUse {
        /// The secret.
        name: SecretName,
        /// The releases.
        users: String,
    },
    /// It is larger than a secret may be, or empty.
    #[error("the value has {0} bytes; a secret has 1 to {max}", max = Secret::BYTES_MAX)]
    Size(usize),
    /// A limit was reached.
    #[error("{0}")]
    TooMany(String),
    /// The store.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// A secret in the store. One that was removed keeps its record, so that no revision is used again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SecretRecord {
    name: SecretName,
    last_revision: u64,
    revisions: BTreeMap<u64, RevisionRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RevisionRecord {
    /// In hexadecimal digits, as the text is.
    nonce: String,
    text: String,
    size_bytes: u64,
    created_at: UnixMs,
    created_by: String,
}

/// The secrets of a cluster.
pub(crate) struct Secrets {
    key: Key,
    records: Records,
    /// Held for reading while a release is made that names secrets, for writing while revisions are dropped.
    pub(crate) in_use: RwLock<()>,
}

impl Secrets {
    /// Opens the secrets of a coordinator's folder; makes their key with the first start.
    pub(crate) async fn open(dir: &Path, records: Records) -> Result<Self, SecretsError> {
        let stored = records.list::<SecretRecord>(SECRETS).await?;
        let needed = stored.iter().any(|(_, read)| !read.value.revisions.is_empty());
        Ok(Self { key: Key::open(dir, needed)?, records, in_use: RwLock::new(()) })
    }

    /// Keeps a value as the newest revision.
    pub(crate) async fn set(
        &self,
        name: &SecretName,
        value: Secret,
        by: &str,
        now: UnixMs,
    ) -> Result<SecretStatus, SecretsError> {
        let size = value.expose().len();
        if !(1..=Secret::BYTES_MAX).contains(&size) {
            return Err(SecretsError::Size(size));
        }
        let _alone = self.in_use.write().await;
        let (at, mut record) = match self.read(name).await? {
            Some(read) => (read.revision, read.value),
            None => (Revision(0), self.new_record(name).await?),
        };
        let users = self.users(name).await?;
        record.revisions.retain(|revision, _| users.contains_key(revision));
        if record.revisions.len() >= REVISIONS_MAX {
            return Err(SecretsError::TooMany(format!(
                "releases hold on to {REVISIONS_MAX} revisions of secret `{name}`; remove services that are not needed"
            )));
        }
        let key = SecretKey { name: name.clone(), revision: record.last_revision + 1 };
        let sealed = self.key.seal(&key, &value)?;
        let revision = RevisionRecord {
            nonce: hex(&sealed.nonce),
            text: hex(&sealed.text),
            size_bytes: size as u64,
            created_at: now,
            created_by: by.to_owned(),
        };
        record.last_revision = key.revision;
        record.revisions.insert(key.revision, revision);
        self.records.put(&records::secret(name), at, &record).await?;
        Ok(status(record, &users, now))
    }

    async fn new_record(&self, name: &SecretName) -> Result<SecretRecord, SecretsError> {
        if self.records.list::<SecretRecord>(SECRETS).await?.len() >= SECRETS_MAX {
            return Err(SecretsError::TooMany(format!(
                "a cluster has at most {SECRETS_MAX} secrets, removed ones among them"
            )));
        }
        Ok(SecretRecord { name: name.clone(), last_revision: 0, revisions: BTreeMap::new() })
    }

    /// All secrets, by name.
    pub(crate) async fn list(&self, now: UnixMs) -> Result<Vec<SecretStatus>, SecretsError> {
        let services = self.services().await?;
        let stored = self.records.list::<SecretRecord>(SECRETS).await?;
        let present = stored.into_iter().map(|(_, read)| read.value).filter(|it| !it.revisions.is_empty());
        Ok(present.map(|record| status(record.clone(), &users_in(&services, &record.name), now)).collect())
    }

    /// Forgets a secret that no release names.
    pub(crate) async fn remove(&self, name: &SecretName) -> Result<(), SecretsError> {
        let _alone = self.in_use.write().await;
        let unknown = || SecretsError::Unknown(name.clone());
        let Versioned { revision, value: mut record } = self.read(name).await?.ok_or_else(unknown)?;
        if record.revisions.is_empty() {
            return Err(unknown());
        }
        let users: Vec<String> = self.users(name).await?.into_values().flatten().collect();
        if !users.is_empty() {
            return Err(SecretsError::InUse { name: name.clone(), users: users.join(", ") });
        }
        record.revisions.clear();
        self.records.put(&records::secret(name), revision, &record).await?;
        Ok(())
    }

    /// Gives each secret that a release names its newest revision. [`Self::in_use`] is held by the caller until the
    /// release is written.
    pub(crate) async fn pin(&self, spec: &mut ServiceSpec) -> Result<(), SecretsError> {
        for used in spec.configuration.secrets.values_mut() {
            let record = self.read(&used.secret).await?.map(|read| read.value);
            let newest = record.and_then(|record| record.revisions.keys().next_back().copied());
            used.revision = newest.ok_or_else(|| SecretsError::Unknown(used.secret.clone()))?;
        }
        Ok(())
    }

    /// The value of one revision.
    pub(crate) async fn value(&self, key: &SecretKey) -> Result<Secret, SecretsError> {
        let record = self.read(&key.name).await?.map(|read| read.value);
        let revision = record.and_then(|mut record| record.revisions.remove(&key.revision));
        let revision = revision.ok_or_else(|| SecretsError::Unknown(key.name.clone()))?;
        let damaged = || SecretsError::Cipher(key.clone());
        let nonce = unhex(&revision.nonce).and_then(|nonce| nonce.try_into().ok()).ok_or_else(damaged)?;
        let text = unhex(&revision.text).ok_or_else(damaged)?;
        self.key.open_value(key, Sealed { nonce, text })
    }

    async fn read(&self, name: &SecretName) -> Result<Option<Versioned<SecretRecord>>, SecretsError> {
        Ok(self.records.get(&records::secret(name)).await?)
    }

    async fn services(&self) -> Result<Vec<Service>, SecretsError> {
        let services = self.records.list::<Service>(SERVICES).await?;
        Ok(services.into_iter().map(|(_, read)| read.value).collect())
    }

    /// The releases that name each revision.
    async fn users(&self, name: &SecretName) -> Result<BTreeMap<u64, Vec<String>>, SecretsError> {
        Ok(users_in(&self.services().await?, name))
    }
}

fn users_in(services: &[Service], name: &SecretName) -> BTreeMap<u64, Vec<String>> {
    let mut users: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for release in services.iter().flat_map(|service| service.releases.values()) {
        let used = release.spec.configuration.secrets.values().filter(|used| used.secret == *name);
        for used in used {
            let user = format!("{} {}", release.spec.name, release.version);
            let of_revision = users.entry(used.revision).or_default();
            if !of_revision.contains(&user) {
                of_revision.push(user);
            }
        }
    }
    users
}

fn status(record: SecretRecord, users: &BTreeMap<u64, Vec<String>>, now: UnixMs) -> SecretStatus {
    let revision = |(revision, kept): (u64, RevisionRecord)| SecretRevision {
        revision,
        created_at: kept.created_at,
        created_by: kept.created_by,
        size_bytes: kept.size_bytes,
        used_by: users.get(&revision).cloned().unwrap_or_default(),
    };
    SecretStatus { name: record.name, revisions: record.revisions.into_iter().map(revision).collect(), now }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
