//! Runs: the agent's side of the shims.
//!
//! A *run* is one shim with its workload, from its start until it is wholly gone; a swap of an instance is two runs
//! side by side for a while. This room starts runs ([`Runs::start`]), takes over those that outlived an earlier agent
//! ([`Runs::adopt`]), speaks with their shims ([`RunHandle`]) and tells what happens to them ([`RunEvent`]).
//! Beside it stand the parts of a swap: `sockets` makes the listening sockets, `steer` says which run gets new
//! connections, `drain` waits for the old run's connections, `straggle` relays those that come too late.
//!
//! A signal is sent only to a process that is proven to be ours; see `adopt` and `lost`.

mod adopt;
mod channel;
pub(crate) mod confine;
mod contain;
pub mod drain;
mod event;
mod filter;
mod handle;
mod journal;
pub mod libraries;
mod link;
mod lost;
mod place;
mod preflight;
pub mod process;
mod record;
mod rescue;
pub mod sockets;
mod spec;
mod start;
pub mod steer;
pub mod straggle;
mod tcp;
mod udp;
mod unix;

pub use adopt::{AdoptError, Adopted, Adoption};
pub use confine::{Confinement, Host, Needs, Refusal};
pub use contain::{Containment, ContainmentKind};
pub use event::{RunEvent, RunEventKind};
pub(crate) use handle::signal_number;
pub use handle::{Notified, RunError, RunHandle, RunState};
pub use journal::{JOURNAL_SOCKET, JournalOutput};
pub use place::{Place, UnixPlace};
pub use preflight::{PreflightError, preflight};
pub use record::RunRecord;
pub use sockets::{Listener, SocketError, listen};
pub use spec::{Lifecycle, Reload, RunSpec, Seal, Timed};
pub use start::StartError;

use baton_model::id::{InstanceId, RunNumber};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};
use tokio::sync::mpsc;

/// Events not yet taken by the agent's driver; a full queue makes the runs' tasks wait, and the shims keep what
/// happened meanwhile in their history.
const EVENTS_MAX: usize = 1024;

/// All runs of this node.
#[derive(Clone, Debug)]
pub struct Runs {
    dir: PathBuf,
    exe: PathBuf,
    containment: Containment,
    host: Arc<Host>,
    events: mpsc::Sender<RunEvent>,
}

impl Runs {
    /// Keeps its run directories below `dir` (made if missing, mode 0700) and starts shims as `exe shim`.
    ///
    /// The second value tells the events of every run of these `Runs`, in order per run.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(
        dir: impl Into<PathBuf>,
        exe: impl Into<PathBuf>,
        containment: Containment,
    ) -> io::Result<(Self, mpsc::Receiver<RunEvent>)> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = dir.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let host = Arc::new(Host::find(&containment).with_journal(Path::new(JOURNAL_SOCKET)));
        Ok((Self { dir, exe: exe.into(), containment, host, events }, receiver))
    }

    /// The same, with the system's journal at another place.
    #[must_use]
    pub fn with_journal(mut self, socket: &Path) -> Self {
        self.host = Arc::new(self.host.with_journal(socket));
        self
    }

    /// How processes are contained on this node.
    #[must_use]
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// What this node can do for its workloads.
    #[must_use]
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The directory of a run: `<dir>/<service>.<slot>-<run>`.
    #[must_use]
    pub fn directory(&self, instance: &InstanceId, run: RunNumber) -> PathBuf {
        self.dir.join(format!("{instance}-{run}"))
    }

    /// The directories of all runs that have not been forgotten, for [`Runs::adopt`] after a restart of the agent.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut directories = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            }
        }
        directories.sort();
        Ok(directories)
    }

    /// Starts a shim and its workload. When this returns, the shim has taken everything over and lives on without
    /// the agent; the workload's own start follows as [`RunEventKind::Started`] (or `Exited` with `Exit::Exec`).
    ///
    /// # Errors
    /// [`StartError`]; nothing of the run is left then.
    pub async fn start(&self, spec: RunSpec) -> Result<RunHandle, StartError> {
        start::start(self, spec).await
    }

    /// Takes over the run in this directory (one of [`Runs::list`]), with proof that the shim is the one that was
    /// started there: boot id, process id and start time, and the cookie over its socket.
    ///
    /// # Errors
    /// [`AdoptError`] when it cannot be told whether the run lives; nothing was signalled then, try again.
    pub async fn adopt(&self, directory: &Path) -> Result<Adoption, AdoptError> {
        adopt::adopt(self, directory).await
    }

    /// Removes the directory (and the control group) of a run whose shim has gone. Idempotent.
    /// The log directory is the caller's and stays.
    ///
    /// # Errors
    /// The shim still lives, or the directory cannot be removed.
    pub async fn forget(&self, instance: &InstanceId, run: RunNumber) -> io::Result<()> {
        start::forget(&self.directory(instance, run)).await
    }
}

/// Removes the control groups of the runs below `dir` in which no process is left: for whoever ends a whole node
/// without its agent, as a local cluster does. Needs no agent, and never ends a process.
pub fn remove_empty_groups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some(path) = record::Stored::read(&entry.path()).ok().and_then(|stored| stored.group) {
            contain::Group { path }.remove_if_empty();
        }
    }
}
