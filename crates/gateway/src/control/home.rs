//! The gateway's folder: who it is, its certificate, and the table it serves by.

use baton_model::id::GatewayName;
use baton_model::route::RouteTable;
use baton_proto::identity::write_private;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks whether the folder is free.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Who a gateway is; written when it joins, read at each start (`gateway.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFile {
    /// Its name, as in its certificate.
    pub name: GatewayName,
    /// Coordinator addresses (`HOST:PORT`), tried in turn.
    pub coordinators: Vec<String>,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process has it.
    #[error("another gateway already uses {dir}: stop it first, or give this one its own --dir")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// It holds no gateway.
    #[error("{dir} holds no joined gateway: run `baton gateway join --dir {dir} ...` first")]
    NotJoined {
        /// The folder.
        dir: PathBuf,
    },
    /// It holds one already, and was not to be overwritten.
    #[error("{dir} already holds gateway `{name}`: use another --dir, or --force to replace its identity")]
    AlreadyJoined {
        /// The folder.
        dir: PathBuf,
        /// The gateway in it.
        name: GatewayName,
    },
    /// The file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, `create`, ...
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The folder.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    /// flock(2), while it is held: the kernel frees it however the gateway ends.
    lock: File,
}

impl Home {
    /// Makes the folder where it is missing. Another process of this gateway may still keep it: see [`Home::lock`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed("create", dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(failed("open", &path))?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// Takes the folder for this process; waits at most this long for one that is about to leave it.
    ///
    /// # Errors
    /// [`HomeError::InUse`] when another process keeps it, else what the file system says.
    pub async fn lock(&self, within: Duration) -> Result<(), HomeError> {
        let deadline = Instant::now() + within;
        loop {
            match self.lock.try_lock() {
                Ok(()) => return Ok(()),
                // flock(2) can only be waited for by a thread that blocks, which could not be given up.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_AGAIN).await;
                }
                Err(TryLockError::WouldBlock) => return Err(HomeError::InUse { dir: self.dir.clone() }),
                Err(TryLockError::Error(source)) => {
                    return Err(failed("lock", &self.dir.join("lock"))(source));
                }
            }
        }
    }

    /// Leaves the folder to another process of this gateway. Nothing may be kept in it any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn leave(&self) -> Result<(), HomeError> {
        self.lock.unlock().map_err(failed("unlock", &self.dir.join("lock")))
    }

    /// Who this gateway is.
    ///
    /// # Errors
    /// [`HomeError::NotJoined`] where none has joined with this folder.
    pub fn file(&self) -> Result<GatewayFile, HomeError> {
        let path = self.file_path();
        read_json(&path)
            .map_err(failed("read", &path))?
            .ok_or_else(|| HomeError::NotJoined { dir: self.dir.clone() })
    }

    /// Keeps who this gateway is.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn write_file(&self, file: &GatewayFile) -> Result<(), HomeError> {
        let path = self.file_path();
        let text = serde_json::to_vec(file).map_err(|error| failed("write", &path)(error.into()))?;
        write_private(&path, &text).map_err(failed("write", &path))
    }

    /// The table that was kept last; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no table: the gateway then begins without one, and gets one from its coordinator.
    pub fn table(&self) -> Result<Option<RouteTable>, HomeError> {
        let path = self.table_path();
        read_json(&path).map_err(failed("read", &path))
    }

    fn file_path(&self) -> PathBuf {
        self.dir.join("gateway.json")
    }

    /// `table.json`.
    pub(crate) fn table_path(&self) -> PathBuf {
        self.dir.join("table.json")
    }

    /// The certificate and its key, as `baton_proto::identity` keeps them.
    #[must_use]
    pub fn identity_dir(&self) -> PathBuf {
        self.dir.join("identity")
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError + use<> {
    let path = path.to_owned();
    move |source| HomeError::Io { action, path, source }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(Into::into),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_gateway_says_how_to_join() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert!(home.file().unwrap_err().to_string().contains("baton gateway join"));
        let file =
            GatewayFile { name: "edge-1".parse().unwrap(), coordinators: vec!["127.0.0.1:7443".to_owned()] };
        home.write_file(&file).unwrap();
        assert_eq!(home.file().unwrap(), file);
    }

    #[tokio::test]
    async fn a_folder_is_taken_over_once_the_other_has_left_it() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (Home::open(folder.path()).unwrap(), Home::open(folder.path()).unwrap());
        first.lock(Duration::ZERO).await.unwrap();
        let error = second.lock(Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("--dir"), "{error}");
        let (taken, left) = tokio::join!(second.lock(Duration::from_secs(20)), async { first.leave() });
        taken.unwrap();
        left.unwrap();
    }

    #[test]
    fn a_damaged_table_is_an_error_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert_eq!(home.table().unwrap(), None);
        fs::write(home.table_path(), "{\"revision\":").unwrap();
        assert!(home.table().unwrap_err().to_string().contains("table.json"));
    }
}
