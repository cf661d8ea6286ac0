//! Why a coordinator cannot be made or cannot run; every message says what to do.

use crate::authority::AuthorityError;
use crate::records::RecordsError;
use crate::secrets::SecretsError;
use crate::store::StoreError;
use baton_proto::identity::IdentityError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a coordinator cannot be made or cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// A cluster would be made where something is already.
    #[error("{} is not empty; give a folder that is empty or does not exist yet (`--dir`)", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no cluster in the folder.
    #[error("there is no cluster in {}; make one first with `baton coordinator init --dir {}`", dir.display(), dir.display())]
    NoCluster {
        /// The folder.
        dir: PathBuf,
    },
    /// Another coordinator runs on the folder.
    #[error("another coordinator runs on {}; stop it first", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file or folder.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address (`--listen`) or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// An identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The folder of artifacts.
    #[error("cannot use the folder of artifacts: {0}")]
    Artifacts(String),
    /// The server ended by itself, or could not be built.
    #[error("cannot serve")]
    Serve {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
