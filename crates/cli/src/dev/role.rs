//! One role of a local cluster as a process of its own, restarted when it ends, as systemd would.

use crate::fault::Fault;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// From the end of a role to its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// The longest such pause; it doubles to this while runs stay shorter than [`SHORT_RUN`].
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A run shorter than this did not really start.
const SHORT_RUN: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct RoleSpec {
    /// `coordinator`, or a node's name.
    pub(crate) name: String,
    /// Arguments to this same binary.
    pub(crate) args: Vec<OsString>,
    /// Where its stdout and stderr go.
    pub(crate) log: PathBuf,
}

/// Something a role did, for whoever watches the cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub(crate) enum RoleNotice {
    /// It runs again.
    Restarted {
        /// The role.
        role: String,
        /// Its process.
        pid: u32,
    },
    /// Its process ended though nobody asked it to.
    Ended {
        /// The role.
        role: String,
        /// Its process.
        pid: u32,
        /// The exit code or signal.
        how: String,
    },
}

/// A supervised role.
#[derive(Debug)]
pub(crate) struct Role {
    /// `coordinator`, or a node's name.
    pub(crate) name: String,
    pid: watch::Receiver<Option<u32>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Role {
    /// Starts it and keeps it running until [`Self::stop`].
    ///
    /// # Errors
    /// When its log cannot be written or it cannot be started at all.
    pub(crate) fn start(spec: RoleSpec, notices: mpsc::Sender<RoleNotice>) -> Result<Self, Fault> {
        let child = spawn(&spec)?;
        let (pid, seen) = watch::channel(child.id());
        let stop = CancellationToken::new();
        let name = spec.name.clone();
        let task = tokio::spawn(supervise(spec, child, pid, notices, stop.clone()));
        Ok(Self { name, pid: seen, stop, task })
    }

    /// Its process now; `None` between two runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Follows its process from run to run.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<u32>> {
        self.pid.clone()
    }

    /// Ends it: SIGTERM, and SIGKILL to what does not go in time.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // The task ends within its own limits and cannot fail.
        let _ = self.task.await;
    }
}

async fn supervise(
    spec: RoleSpec,
    mut child: Child,
    pid: watch::Sender<Option<u32>>,
    notices: mpsc::Sender<RoleNotice>,
    stop: CancellationToken,
) {
    let mut pause = RESTART_PAUSE;
    loop {
        let began = Instant::now();
        let id = child.id().unwrap_or_default();
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => return terminate(child).await,
        };
        pid.send_replace(None);
        let how = status.map_or_else(|error| error.to_string(), ending);
        tell(&notices, RoleNotice::Ended { role: spec.name.clone(), pid: id, how });
        if began.elapsed() >= SHORT_RUN {
            pause = RESTART_PAUSE;
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
            // Out of processes or memory for a moment: the next round tries again.
            if let Ok(child) = spawn(&spec) {
                break child;
            }
        };
        pid.send_replace(child.id());
        tell(
            &notices,
            RoleNotice::Restarted { role: spec.name.clone(), pid: child.id().unwrap_or_default() },
        );
    }
}

/// Notices are for people; one that nobody has room for is dropped.
fn tell(notices: &mpsc::Sender<RoleNotice>, notice: RoleNotice) {
    let _ = notices.try_send(notice);
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn spawn(spec: &RoleSpec) -> Result<Child, Fault> {
    let failed = |what: &Path, error: &std::io::Error| {
        Fault::new(
            format!("cannot start {}: {}: {error}", spec.name, what.display()),
            "make room, or use another --dir",
        )
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)
        .map_err(|error| failed(&spec.log, &error))?;
    let errors = log.try_clone().map_err(|error| failed(&spec.log, &error))?;
    // The file this process was started from, even if it was replaced on disk since.
    let program = Path::new("/proc/self/exe");
    Command::new(std::env::current_exe().ok().filter(|path| path.exists()).as_deref().unwrap_or(program))
        .args(&spec.args)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C on the terminal must reach only us: we stop the roles in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(program, &error))
}

async fn terminate(mut child: Child) {
    use nix::sys::signal::{Signal, kill};
    // The child is ours and not yet reaped, so its pid cannot mean another process.
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        // It cannot be gone: it was not reaped.
        let _ = child.kill().await;
    }
}

/// The last lines of a role's log, for an error about it.
pub(crate) fn last_words(log: &Path) -> String {
    const LINES: usize = 3;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}
