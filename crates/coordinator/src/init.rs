//! Makes a cluster: its authority, its store, its name, and the way in for its first operator.

use crate::authority::{Authority, Lifetimes};
use crate::clock::wall_time;
use crate::error::CoordinatorError;
use crate::records::{CLUSTER, ClusterRecord, Records};
use crate::store::{SqliteStore, Store};
use baton_model::id::Revision;
use baton_proto::identity::{Identity, Role, give_to_owner};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// For how long the first operator's token can be used.
const FIRST_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// What a new cluster is made of.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// The coordinator's folder: empty, or not there yet.
    pub dir: PathBuf,
    /// The cluster's name, part of every identity.
    pub cluster: String,
    /// Where the coordinator listens unless it is run with another address.
    pub listen: SocketAddr,
    /// The first operator's name.
    pub operator: String,
    /// Where to save the first operator's identity; with `None` it joins with [`InitDone::operator_token`].
    pub operator_dir: Option<PathBuf>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct InitDone {
    /// The cluster's name.
    pub cluster: String,
    /// Where its coordinator will listen.
    pub listen: SocketAddr,
    /// A token with which an operator of the given name joins, once, within a day.
    pub operator_token: String,
    /// The first operator's identity, where it was asked to be saved.
    pub operator: Option<Identity>,
}

/// The store's file in a coordinator's folder.
pub(crate) fn store_path(dir: &Path) -> PathBuf {
    dir.join("store.db")
}

/// Makes a cluster in an empty folder.
///
/// # Errors
/// When the folder is not empty or cannot be written, or a name cannot be used. A folder that was begun is left for
/// an operator to look at; it is never taken for a cluster.
pub async fn init(options: InitOptions) -> Result<InitDone, CoordinatorError> {
    let InitOptions { dir, cluster, listen, operator, operator_dir } = options;
    make_empty_dir(&dir)?;
    let now = SystemTime::now();
    Authority::init(&dir, &cluster, now)?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(store_path(&dir))?);
    let authority = Authority::open(&dir, Arc::clone(&store), Lifetimes::default())?;
    let first = match &operator_dir {
        Some(operator_dir) => {
            let identity = authority.enroll_operator(&operator, now).await?;
            identity.save(operator_dir)?;
            Some(identity)
        }
        None => None,
    };
    let (token, _) = authority.create_token(Role::Operator, Some(&operator), FIRST_TOKEN_TTL, now).await?;
    // Written last: what has no cluster record is not a cluster.
    let record = ClusterRecord { name: cluster.clone(), created_at: wall_time(), listen };
    Records::new(store).put(CLUSTER, Revision(0), &record).await?;
    give_to_owner(&dir).map_err(|source| CoordinatorError::File { action: "give", path: dir, source })?;
    Ok(InitDone { cluster, listen, operator_token: token.to_string(), operator: first })
}

fn make_empty_dir(dir: &Path) -> Result<(), CoordinatorError> {
    let failed = |action| move |source| CoordinatorError::File { action, path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed("make"))?;
    if fs::read_dir(dir).map_err(failed("read"))?.next().is_some() {
        return Err(CoordinatorError::NotEmpty { dir: dir.to_owned() });
    }
    // It holds the authority's key and everything that was deployed.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed("protect"))
}
