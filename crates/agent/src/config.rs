//! The agent's state directory: what lies where, who the node is, and that only one agent uses it.

use crate::durable;
use crate::runs::JOURNAL_SOCKET;
use baton_model::id::{InstanceId, NodeName, RunNumber};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The state directory, made by [`crate::join`].
    pub dir: PathBuf,
    /// Coordinator addresses (`host:port`) to use instead of the stored ones, where any is given.
    pub coordinators: Vec<String>,
    /// The program started as the shim: this binary. `None`: the running executable.
    pub shim_program: Option<PathBuf>,
    /// Where Prometheus asks for `/metrics`; nowhere where it is not given.
    pub metrics: Option<SocketAddr>,
    /// How often a sample of metrics is taken.
    pub metrics_every: Duration,
    /// Bytes of logs kept on this node, of all instances together; the oldest rotated files go first.
    pub log_bytes_max: u64,
    /// A new program of the agent has reached the coordinator within this time, or the one before returns.
    pub upgrade_within: Duration,
    /// Where the system's journal listens, for services whose lines go there too.
    pub journal_socket: PathBuf,
}

/// Told nothing else, a new program is confirmed within this time, or the old one returns.
pub const UPGRADE_WITHIN_DEFAULT: Duration = Duration::from_secs(60);
/// Bytes of logs kept on a node unless told otherwise.
pub const LOG_BYTES_DEFAULT: u64 = 4 << 30;

impl AgentConfig {
    /// The usual configuration for the state directory `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            coordinators: Vec::new(),
            shim_program: None,
            metrics: None,
            metrics_every: Duration::from_secs(2),
            log_bytes_max: LOG_BYTES_DEFAULT,
            upgrade_within: UPGRADE_WITHIN_DEFAULT,
            journal_socket: JOURNAL_SOCKET.into(),
        }
    }
}

/// Who this node is; written when it joins, read at each start (`agent.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFile {
    /// The node's name, as in its certificate.
    pub name: NodeName,
    /// Coordinator addresses, tried in turn.
    pub coordinators: Vec<String>,
    /// The address that the node's services are reached at, and that its sockets are bound to.
    pub address: IpAddr,
    /// The node's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent has it.
    #[error("another agent (pid {pid}) already uses {dir}: stop it first, or give this agent its own --dir")]
    InUse {
        /// The directory.
        dir: String,
        /// The other agent, as it said itself.
        pid: String,
    },
    /// It holds no node.
    #[error("{dir} holds no joined node: run `baton agent join --dir {dir} ...` first")]
    NotJoined {
        /// The directory.
        dir: String,
    },
    /// It already holds a node, and was not to be overwritten.
    #[error("{dir} already holds node `{name}`: use another --dir, or --force to replace its identity")]
    AlreadyJoined {
        /// The directory.
        dir: String,
        /// The node in it.
        name: String,
    },
    /// The file system refused.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried: "read", "create".
        what: &'static str,
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

impl StateError {
    /// Wraps an error of the file system with what was tried, and where.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }
}

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// flock(2) on `lock`: the kernel frees it however the agent ends.
    lock: File,
}

impl Drop for StateDir {
    /// Closing alone would not do: a child that another thread forks has the open file too until it executes its program,
    /// and keeps the lock for as long.
    fn drop(&mut self) {
        // It fails only where it is not held.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// What [`StateDir::open`] makes in the directory.
    pub(crate) const LAID_OUT: [&str; 4] = ["instances", "artifacts", "logs", "lock"];

    /// Makes the directory's folders where they are missing and locks it.
    ///
    /// # Errors
    /// [`StateError::InUse`] when another agent has it, else what the file system says.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        for folder in ["", "instances", "artifacts", "logs"] {
            let path = root.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&path)
                .map_err(StateError::io("create", &path))?;
        }
        // Paths are handed to shims, which have another working directory.
        let root = fs::canonicalize(root).map_err(StateError::io("resolve", root))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(StateError::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(StateError::InUse { dir: root.display().to_string(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(StateError::io("lock", &path)(source)),
        }
        fs::write(&path, format!("{}\n", std::process::id())).map_err(StateError::io("write", &path))?;
        Ok(Self { root, lock })
    }

    /// The process that opened the directory `root` last, as it said itself.
    pub(crate) fn latest_holder(root: &Path) -> Option<u32> {
        fs::read_to_string(root.join("lock")).ok()?.trim().parse().ok()
    }

    /// Who this node is.
    ///
    /// # Errors
    /// [`StateError::NotJoined`] when nobody joined with this directory.
    pub fn agent_file(&self) -> Result<AgentFile, StateError> {
        let path = self.agent_file_path();
        durable::read_json(&path)
            .map_err(StateError::io("read", &path))?
            .ok_or_else(|| StateError::NotJoined { dir: self.root.display().to_string() })
    }

    /// Stores who this node is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_agent_file(&self, file: &AgentFile) -> Result<(), StateError> {
        let path = self.agent_file_path();
        durable::replace_json(&path, file).map_err(StateError::io("write", &path))
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `agent.json`.
    #[must_use]
    pub fn agent_file_path(&self) -> PathBuf {
        self.root.join("agent.json")
    }

    /// The node's certificate and key, as `baton_proto::identity` keeps them.
    #[must_use]
    pub fn identity_dir(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// `plan.json`, the newest plan.
    #[must_use]
    pub fn plan_path(&self) -> PathBuf {
        self.root.join("plan.json")
    }

    /// `events.jsonl`, the events that the coordinator has not stored yet.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// The content-addressed store.
    #[must_use]
    pub fn artifacts_dir(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    /// All instances.
    #[must_use]
    pub fn instances_dir(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// One instance.
    #[must_use]
    pub fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.instances_dir().join(id.to_string())
    }

    /// `instance.json`: the machine of one instance.
    #[must_use]
    pub fn instance_path(&self, id: &InstanceId) -> PathBuf {
        self.instance_dir(id).join("instance.json")
    }

    /// The workload's `HOME`: kept until the instance is removed.
    #[must_use]
    pub fn home_dir(&self, id: &InstanceId) -> PathBuf {
        self.instance_dir(id).join("home")
    }

    /// The directories of all runs: the shims' rooms.
    #[must_use]
    pub fn runs_dir(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The logs of all instances.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The logs of an instance, a folder per run; they outlive the instance.
    #[must_use]
    pub fn log_dir(&self, id: &InstanceId) -> PathBuf {
        self.logs_dir().join(id.to_string())
    }

    /// The logs of one run.
    #[must_use]
    pub fn run_log_dir(&self, id: &InstanceId, run: RunNumber) -> PathBuf {
        self.log_dir(id).join(run.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_never_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::open(folder.path()).unwrap();
        let error = StateDir::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains("--dir"), "{error}");
        drop(first);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_directory_without_a_node_says_how_to_join() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert!(state.agent_file().unwrap_err().to_string().contains("baton agent join"));
        let file = AgentFile {
            name: "n1".parse().unwrap(),
            coordinators: vec!["127.0.0.1:7000".into()],
            address: "127.0.0.2".parse().unwrap(),
            labels: BTreeMap::from([("zone".into(), "a".into())]),
        };
        state.write_agent_file(&file).unwrap();
        assert_eq!(state.agent_file().unwrap(), file);
    }
}
