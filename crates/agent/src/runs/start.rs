//! Starting a run.

use super::channel::Channel;
use super::confine::Confined;
use super::contain::Group;
use super::handle::{RunHandle, Shared};
use super::link::{Link, runs_since};
use super::process::{Held, hex};
use super::record::{RunRecord, Stored};
use super::{RunSpec, Runs};
use crate::shim::config::{Description, MARK_PREFIX, WATCHDOG_PREFIX};
use crate::shim::notify::NAME_PREFIX;
use crate::shim::protocol::{LISTENERS_MAX, Message, Refusal, Request, State};
use crate::shim::statefile::{Recorded, STATE_FILE};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// From the spawn of a shim to its first word.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// From a shim's promise to end to its end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// Orders on their way to a shim.
pub(super) const ORDERS_MAX: usize = 16;
/// What a shim could not tell anyone (a panic) is kept here.
const SHIM_LOG: &str = "shim.log";

/// A run could not be started; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run's directory exists: run numbers are never used twice.
    #[error("{0} exists already; a run number must not be used twice")]
    Exists(PathBuf),
    /// The spec cannot be passed on (a NUL byte in an argument, too many sockets, an environment too large).
    #[error("the workload cannot be described to its shim: {0}")]
    Spec(String),
    /// The system refused.
    #[error("{what} for the run in {directory}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The run's directory.
        directory: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The shim ended or kept silent instead of taking over.
    #[error("the shim did not start: {0}")]
    Shim(String),
}

pub(super) async fn start(runs: &Runs, spec: RunSpec) -> Result<RunHandle, StartError> {
    let directory = runs.directory(&spec.instance, spec.run);
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StartError::Exists(directory));
        }
        Err(source) => return Err(StartError::Io { what: "making a directory", directory, source }),
    }
    let mut group = None;
    let started = start_in(runs, spec, &directory, &mut group).await;
    if started.is_err() {
        if let Some(group) = &group {
            let _ = group.kill();
            let _ = group.remove().await;
        }
        let _ = fs::remove_dir_all(&directory);
    }
    started
}

async fn start_in(
    runs: &Runs,
    spec: RunSpec,
    directory: &Path,
    group: &mut Option<Group>,
) -> Result<RunHandle, StartError> {
    let failed = |what| {
        let directory = directory.to_owned();
        move |source: io::Error| StartError::Io { what, directory, source }
    };
    if spec.listeners.len() > LISTENERS_MAX {
        let text =
            format!("{} listening sockets; at most {LISTENERS_MAX} are possible", spec.listeners.len());
        return Err(StartError::Spec(text));
    }
    let (cookie, mark) = (random()?, random()?);
    let name = format!("{}-{}", spec.instance, spec.run);
    let named = runs.containment.group(&format!("{name}-{}", &hex(&mark)[..16]));
    let stored = Stored {
        record: RunRecord {
            instance: spec.instance.clone(),
            run: spec.run,
            release: spec.release,
            ports: spec.ports.clone(),
        },
        cookie,
        mark,
        group: named.as_ref().map(|group| group.path.clone()),
        listeners: spec.listeners.iter().map(|l| (l.name.clone(), l.place.clone())).collect(),
    };
    // Written before the group is made: an agent that dies in between leaves none that nobody knows of.
    stored.write(directory).map_err(failed("writing run.json"))?;
    let limits = spec.confinement.limits();
    if let Some(named) = named {
        *group = named.make(limits).map_err(failed("making a control group with the service's limits"))?;
    }
    let limiting = group.as_ref().and_then(|group| group.limiting(limits));
    let confined =
        Confined::lay_out(&spec.confinement, directory, limiting).map_err(failed("making a sandbox"))?;
    let config = describe(&spec, &stored, &confined).map_err(StartError::Spec)?;
    let files =
        open_files(&spec, directory, group.as_ref(), &config).map_err(failed("opening the shim's files"))?;

    let (channel, theirs) = Channel::pair().map_err(failed("making a socket"))?;
    let mut child = spawn(runs, directory, &name, theirs).map_err(failed("executing the shim"))?;
    let mut fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    fds.extend(spec.listeners.iter().map(|listener| listener.socket.as_fd()));
    let begin = Request::Begin { listeners: spec.listeners.len() as u8, group: group.is_some() };
    let state = match begin_shim(&channel, &begin, &fds).await {
        Ok(state) => state,
        Err(reason) => {
            // It is our child and not reaped yet, so its id is its own.
            let _ = child.kill().await;
            return Err(StartError::Shim(reason));
        }
    };
    if let Some(group) = group.clone() {
        // Not waited for: it takes a grace period of the kernel.
        tokio::task::spawn_blocking(move || group.take_shim(state.shim.pid));
    }
    let spoken = Spoken { stored, state, channel, early: Vec::new(), child: Some(child) };
    Ok(attach(runs, directory, spoken, spec.listeners.into()))
}

/// A shim that has been spoken with.
pub(super) struct Spoken {
    pub(super) stored: Stored,
    pub(super) state: State,
    pub(super) channel: Channel,
    /// What it told before the run's task began.
    pub(super) early: Vec<Message>,
    /// Its process, where this agent started it.
    pub(super) child: Option<Child>,
}

/// Starts the task of a run and gives the handle.
pub(super) fn attach(
    runs: &Runs,
    directory: &Path,
    spoken: Spoken,
    listeners: Arc<[super::Listener]>,
) -> RunHandle {
    let Spoken { stored, state, channel, early, child } = spoken;
    let shared = Arc::new(Shared::new(&stored, &state));
    let (sender, orders) = mpsc::channel(ORDERS_MAX);
    let link = Link {
        directory: directory.to_owned(),
        stored,
        shim: state.shim,
        shared: shared.clone(),
        events: runs.events.clone(),
        orders,
        child,
        told_seq: state.acknowledged_seq,
        told_pid: state.workload.pid,
        runs_since: runs_since(&state, state.acknowledged_seq),
    };
    tokio::spawn(link.run(channel, early));
    RunHandle { shared, listeners, orders: sender }
}

fn random() -> Result<[u8; 16], StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Spec(format!("no random bits: {error}")))?;
    Ok(bytes)
}

/// The configuration's bytes, with what the shim adds to the environment.
fn describe(spec: &RunSpec, stored: &Stored, confined: &Confined) -> Result<Vec<u8>, String> {
    const OURS: [&str; 8] = [
        "BATON_RUN",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "MAINPID",
    ];
    let mut env: Vec<Vec<u8>> = Vec::new();
    for (name, value) in spec.env.iter().filter(|(name, _)| OURS.iter().all(|ours| name != *ours)) {
        env.push(variable(name, value)?);
    }
    env.push(format!("{MARK_PREFIX}{}", hex(&stored.mark)).into_bytes());
    env.push(format!("NOTIFY_SOCKET=@{NAME_PREFIX}{}", hex(&stored.mark)).into_bytes());
    if let Some(often) = spec.lifecycle.watchdog {
        env.push(format!("{WATCHDOG_PREFIX}{}", often.0.saturating_mul(1000)).into_bytes());
    }
    if !spec.listeners.is_empty() {
        let names: Vec<&str> = spec.listeners.iter().map(|listener| listener.name.as_str()).collect();
        env.push(format!("LISTEN_FDS={}", names.len()).into_bytes());
        env.push(format!("LISTEN_FDNAMES={}", names.join(":")).into_bytes());
    }
    let program = spec.program.as_os_str().as_bytes();
    let mut args = vec![program];
    args.extend(spec.args.iter().map(|argument| argument.as_bytes()));
    let journal = spec.journal.as_ref().map(|it| (it.socket.as_os_str().as_bytes(), it.encoded_fields()));
    let description = Description {
        cookie: stored.cookie,
        mark: stored.mark,
        restart: &spec.restart,
        logs: spec.logs,
        program,
        cwd: spec.cwd.as_os_str().as_bytes(),
        args,
        env,
        seal: &spec.seal,
        lifecycle: &spec.lifecycle,
        confinement: confined.program(),
        limited: confined.is_limited(),
        journal: journal.as_ref().map(|(socket, fields)| (*socket, &fields[..])),
    };
    description.encode()
}

fn variable(name: &OsString, value: &OsString) -> Result<Vec<u8>, String> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(format!("`{}` is not a name of an environment variable", name.display()));
    }
    Ok([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// Configuration, run directory, log directory and control group, in the order the shim expects.
fn open_files(
    spec: &RunSpec,
    directory: &Path,
    group: Option<&Group>,
    config: &[u8],
) -> io::Result<Vec<OwnedFd>> {
    fs::create_dir_all(&spec.log_dir)?;
    // In memory only: the environment may hold secrets.
    let mut memory = File::from(rustix::fs::memfd_create("baton-run", rustix::fs::MemfdFlags::CLOEXEC)?);
    memory.write_all(config)?;
    let mut files = vec![memory.into(), File::open(directory)?.into(), File::open(&spec.log_dir)?.into()];
    if let Some(group) = group {
        files.push(File::open(group.work())?.into());
    }
    Ok(files)
}

fn spawn(runs: &Runs, directory: &Path, name: &str, channel: OwnedFd) -> io::Result<Child> {
    let log = OpenOptions::new().append(true).create(true).open(directory.join(SHIM_LOG))?;
    Command::new(&runs.exe)
        .args(["shim", name])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
}

async fn begin_shim(
    channel: &Channel,
    begin: &Request,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Result<State, String> {
    let speak = async {
        channel.send(begin, 1, fds).await?;
        channel.receive().await
    };
    match tokio::time::timeout(READY_WITHIN, speak).await {
        Err(_elapsed) => Err(format!("no word from it within {} s", READY_WITHIN.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(None)) => Err("it ended at once; is this program able to run as `baton shim`?".to_owned()),
        Ok(Ok(Some(incoming))) => match incoming.message {
            Message::State(state) => Ok(state),
            Message::Refused(Refusal::Setup { step, errno }) => {
                Err(format!("{step:?} failed: {}", io::Error::from_raw_os_error(errno)))
            }
            other => Err(format!("it said {other:?}")),
        },
    }
}

pub(super) async fn forget(directory: &Path) -> io::Result<()> {
    let recorded =
        fs::read_to_string(directory.join(STATE_FILE)).ok().and_then(|text| Recorded::parse(&text));
    if let Some(recorded) = recorded
        && super::process::boot_id()? == recorded.boot
        && !Held::ends_within(recorded.shim, ENDS_WITHIN).await
    {
        let text = format!("its shim (process {}) lives; let it quit first", recorded.shim.pid);
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    if let Some(path) = Stored::read(directory).ok().and_then(|stored| stored.group) {
        Group { path }.remove().await?;
    }
    let directory = directory.to_owned();
    // A private /tmp may hold much: not on the agent's own thread.
    match tokio::task::spawn_blocking(move || fs::remove_dir_all(directory)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}
