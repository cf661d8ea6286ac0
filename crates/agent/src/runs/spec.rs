//! What a run is started from.

use super::confine::Confinement;
use super::journal::JournalOutput;
use super::sockets::Listener;
pub use crate::shim::lifecycle::{Lifecycle, Reload, Timed};
pub use crate::shim::seal::Seal;
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::spec::{LogPolicy, RestartPolicy};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Everything a shim needs to run a workload. Values are final: nothing is expanded any more.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// The instance.
    pub instance: InstanceId,
    /// The run's number; one directory and one shim each.
    pub run: RunNumber,
    /// The release it runs; kept for adoption.
    pub release: ReleaseNumber,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments, without the program's own name (`argv[0]` is the program's path).
    pub args: Vec<OsString>,
    /// Its whole environment; nothing is inherited from the agent. The shim adds `BATON_RUN` (a random mark, by
    /// which processes left behind are known as ours) and, with listeners, `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory, an absolute path.
    pub cwd: PathBuf,
    /// Where its logs go: `current`, then `current.1` (newest) and so on. Made if missing. At any time only one run
    /// may write into a directory, so give each run its own.
    pub log_dir: PathBuf,
    /// Bounds of those logs.
    pub logs: LogPolicy,
    /// Where its lines go besides.
    pub journal: Option<JournalOutput>,
    /// When and how fast it is restarted.
    pub restart: RestartPolicy,
    /// Listening sockets, handed over as descriptors 3, 4, ... in this order, named by `Listener::name`.
    pub listeners: Vec<Listener>,
    /// All its ports by name (also the dynamic ones), kept for adoption and told with each start.
    pub ports: BTreeMap<String, u16>,
    /// What is done around it.
    pub lifecycle: Lifecycle,
    /// What its files were like when they were checked: the shim executes nothing that has changed since.
    pub seal: Seal,
    /// What it may use and touch.
    pub confinement: Confinement,
}
