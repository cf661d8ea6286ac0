//! The agent's life: build the rooms, adopt what runs, go on until cancelled, leave the workloads running.

use crate::artifacts::ArtifactStore;
use crate::config::{AgentConfig, StateDir, StateError};
use crate::driver::{Driver, Parts};
use crate::journal::Journal;
use crate::logs;
use crate::plan::PlanStore;
use crate::provisions::Provisions;
use crate::runs::{Containment, Runs};
use crate::session::{self, Session};
use crate::upgrade::{self, Departure, Own, Start, Upgrader};
use crate::{clock, metrics, notify};
use baton_model::observed::NodeFacts;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What the coordinator said, on its way to the driver; a full queue makes the session read no more.
const INSTRUCTIONS_MAX: usize = 8;
/// Threads for disk work (unpacking, hashing): more would not make one disk faster.
const BLOCKING_THREADS: usize = 4;

/// By now what a start or a change has stirred up is done: adoption, the session's TLS, a plan, a swap.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Why an agent could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is nowhere to connect to.
    #[error("{path} names no coordinator: give --coordinator HOST:PORT, or join again")]
    NoCoordinator {
        /// `agent.json`.
        path: String,
    },
    /// The system refused something that the agent cannot do without.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl AgentError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The runtime that an agent wants: one thread, and few for disk work that end when idle.
///
/// # Errors
/// The system gives no thread or descriptor.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
}

/// Runs the agent until `cancel`, or until it is to go on as another program; both leave every workload running under
/// its shim.
///
/// # Errors
/// [`AgentError`] when it cannot start; later troubles are told and lived with.
pub async fn run(config: AgentConfig, cancel: CancellationToken) -> Result<Departure, AgentError> {
    let state = Arc::new(StateDir::open(&config.dir)?);
    let node = Arc::new(state.agent_file()?);
    let coordinators =
        if config.coordinators.is_empty() { node.coordinators.clone() } else { config.coordinators.clone() };
    if coordinators.is_empty() {
        return Err(AgentError::NoCoordinator { path: state.agent_file_path().display().to_string() });
    }
    let boot_id = clock::boot_id().map_err(AgentError::io("read the boot id; is /proc mounted?"))?;
    let journal = Journal::open(&state.journal_path(), &boot_id).map_err(opening(state.journal_path()))?;
    let own = {
        let (root, boot_id, journal) = (state.root().to_owned(), boot_id.clone(), journal.clone());
        tokio::task::spawn_blocking(move || upgrade::begin(&root, &boot_id, &journal))
    };
    let own =
        match own.await.map_err(io::Error::other).flatten().map_err(opening(state.root().join("agent")))? {
            Start::As(own) => *own,
            Start::Become(program) => return Ok(Departure::Become(program)),
        };
    let plan = PlanStore::open(&state.plan_path(), &node.name).map_err(opening(state.plan_path()))?;
    let link = watch::Sender::new(None);
    let artifacts = ArtifactStore::open(&state.artifacts_dir(), link.subscribe(), journal.clone())
        .map_err(opening(state.artifacts_dir()))?;
    let provisions =
        Provisions::open(&state, Arc::clone(&node)).map_err(opening(state.root().join("provisions.json")))?;
    let shim = match config.shim_program {
        Some(program) => program,
        None => std::env::current_exe().map_err(AgentError::io("find this program's own file"))?,
    };
    let (runs, run_events) =
        Runs::new(state.runs_dir(), shim, Containment::detect()).map_err(opening(state.runs_dir()))?;
    let runs = runs.with_journal(&config.journal_socket);
    let facts = node_facts(&boot_id, &runs, &own);
    tracing::info!(node = %node.name, dir = %state.root().display(), containment = facts.containment, "agent starts");

    let parts = Parts {
        state: Arc::clone(&state),
        node: Arc::clone(&node),
        runs,
        artifacts: Arc::new(artifacts),
        provisions: Arc::new(provisions),
        journal: journal.clone(),
        plan,
        boot_id: boot_id.clone(),
    };
    let (mut driver, outlook) =
        Driver::open(parts, run_events).map_err(AgentError::io("read the instances' state"))?;
    driver.start().await.map_err(AgentError::io("list the runs"))?;

    let (instructions, mut said) = mpsc::channel(INSTRUCTIONS_MAX);
    let status = watch::Sender::new("starting".to_owned());
    let samples = watch::Sender::new(None);
    let samples_in = samples.subscribe();
    let _notify = AbortOnDropHandle::new(tokio::spawn(notify::keep(status.subscribe())));
    let _metrics = AbortOnDropHandle::new(tokio::spawn(metrics::keep(
        state.root().to_owned(),
        config.metrics_every,
        outlook.shims.clone(),
        samples,
    )));
    let _logs =
        AbortOnDropHandle::new(tokio::spawn(logs::keep_bounded(state.logs_dir(), config.log_bytes_max)));
    let leave = cancel.child_token();
    let (upgrader, upgrade) = Upgrader::new(
        own,
        config.upgrade_within,
        state.root().to_owned(),
        link.subscribe(),
        journal.clone(),
        leave.clone(),
    );
    let _upgrader = AbortOnDropHandle::new(tokio::spawn(upgrader.keep()));
    let _scraped = config.metrics.map(|address| {
        let sources = metrics::page::Sources {
            observed: outlook.observed.clone(),
            samples: samples_in.clone(),
            link: link.subscribe(),
            journal: journal.clone(),
        };
        let page = move || sources.text();
        AbortOnDropHandle::new(tokio::spawn(baton_metrics::port::keep(address, page, leave.clone())))
    });
    let root = state.root().to_owned();
    let quiet = outlook.observed.clone();
    let session = Session {
        state,
        node,
        coordinators,
        facts,
        outlook,
        metrics: samples_in,
        journal,
        instructions,
        link,
        status,
        upgrade,
    };
    let _session = AbortOnDropHandle::new(tokio::spawn(session::keep(session, leave.clone())));
    let _pages = AbortOnDropHandle::new(tokio::spawn(release_pages(quiet)));
    driver.drive(&mut said, &leave).await;
    let departure = upgrade::depart(&root, cancel.is_cancelled())
        .map_err(AgentError::io("read which program comes next"))?;
    match &departure {
        Departure::Stopped => {
            notify::stopping();
            tracing::info!("agent ends; its workloads go on");
        }
        Departure::Become(program) => {
            tracing::info!(program = %program.display(), "agent goes on as another program; its workloads go on");
        }
    }
    Ok(departure)
}

/// Gives back what a start, a deploy or a failure has mapped of the program, each time that nothing has happened
/// for a while: an idle agent lives on a few hundred pages of it.
async fn release_pages<T>(mut happens: watch::Receiver<T>) {
    loop {
        // Each change begins the wait anew; the sender lives as long as the driver.
        while let Ok(changed) = tokio::time::timeout(SETTLED_AFTER, happens.changed()).await {
            if changed.is_err() {
                return;
            }
        }
        crate::shim::release_program_pages();
        if happens.changed().await.is_err() {
            return;
        }
    }
}

fn opening(path: PathBuf) -> impl FnOnce(io::Error) -> AgentError {
    AgentError::io(format!("open {}", path.display()))
}

fn node_facts(boot_id: &str, runs: &Runs, own: &Own) -> NodeFacts {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    NodeFacts {
        agent_version: own.version.as_ref().map_or(env!("CARGO_PKG_VERSION").to_owned(), ToString::to_string),
        boot_id: boot_id.to_owned(),
        kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
        arch: text(uname.machine()),
        containment: runs.containment().kind().name().to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: metrics::memory_bytes(),
        ability: Some(runs.host().ability().clone()),
        program: Some(own.digest),
        // The session says it, as it is then.
        upgrade_failure: None,
    }
}
