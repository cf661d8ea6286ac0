//! What is kept, for how long, and that nothing of it can be read in the store.

use super::key::KEY_FILE;
use super::*;
use crate::store::{SqliteStore, Store};
use std::sync::Arc;

const NOW: UnixMs = UnixMs(1_000);

struct Folder {
    dir: tempfile::TempDir,
    secrets: Secrets,
}

async fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let secrets = open(dir.path()).await;
    Folder { dir, secrets }
}

async fn open(dir: &Path) -> Secrets {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.join("store.db")).unwrap());
    Secrets::open(dir, Records::new(store)).await.unwrap()
}

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

impl Folder {
    async fn set(&self, secret: &str, value: &str) -> SecretStatus {
        let value = Secret::new(value.as_bytes().to_vec());
        self.secrets.set(&name(secret), value, "ada", NOW).await.unwrap()
    }
}

fn revisions(status: &SecretStatus) -> Vec<u64> {
    status.revisions.iter().map(|revision| revision.revision).collect()
}

#[tokio::test]
async fn a_value_comes_back_after_a_restart_and_is_nowhere_in_the_folder() {
    let folder = folder().await;
    folder.set("db", "correct-horse-battery").await;
    let Folder { dir, secrets } = folder;
    drop(secrets);
    let again = open(dir.path()).await;
    let key = SecretKey { name: name("db"), revision: 1 };
    assert_eq!(again.value(&key).await.unwrap().expose(), b"correct-horse-battery");
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(13).any(|window| window == b"correct-horse"));
        assert!(!bytes.windows(8).any(|window| window == &hex(b"correct-horse").as_bytes()[..8]));
    }
}

#[tokio::test]
async fn only_the_newest_is_kept_where_no_release_names_an_older_one() {
    let folder = folder().await;
    folder.set("db", "one").await;
    assert_eq!(revisions(&folder.set("db", "two").await), [2]);
    let gone = SecretKey { name: name("db"), revision: 1 };
    assert!(matches!(folder.secrets.value(&gone).await, Err(SecretsError::Unknown(_))));
}

#[tokio::test]
async fn a_revision_is_never_used_again() {
    let folder = folder().await;
    folder.set("db", "one").await;
    folder.secrets.remove(&name("db")).await.unwrap();
    assert!(folder.secrets.list(NOW).await.unwrap().is_empty());
    assert!(matches!(folder.secrets.remove(&name("db")).await, Err(SecretsError::Unknown(_))));
    assert_eq!(revisions(&folder.set("db", "two").await), [2]);
}

#[tokio::test]
async fn what_is_no_secret_is_refused() {
    let folder = folder().await;
    for size in [0, Secret::BYTES_MAX + 1] {
        let value = Secret::new(vec![7; size]);
        let error = folder.secrets.set(&name("db"), value, "ada", NOW).await.unwrap_err();
        assert!(matches!(error, SecretsError::Size(bytes) if bytes == size), "{error}");
    }
}

#[tokio::test]
async fn a_coordinator_whose_key_is_gone_does_not_start() {
    let folder = folder().await;
    folder.set("db", "one").await;
    let Folder { dir, secrets } = folder;
    drop(secrets);
    std::fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path().join("store.db")).unwrap());
    let error = Secrets::open(dir.path(), Records::new(store)).await.err().unwrap();
    assert!(matches!(error, SecretsError::KeyMissing { .. }), "{error}");
}
