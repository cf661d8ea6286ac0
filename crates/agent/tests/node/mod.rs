//! A node's runs in a temporary folder, with real shims and real workloads.
#![allow(dead_code)] // Each test file uses its part.

use baton_agent::runs::{
    Adoption, Containment, Listener, RunEvent, RunEventKind, RunHandle, RunSpec, Runs, Seal,
};
use baton_model::id::{InstanceId, PortName, ReleaseNumber, RunNumber};
use baton_model::spec::{LogPolicy, RestartMode, RestartPolicy};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Generous: a loaded machine must not fail a test.
pub(crate) const WITHIN: Duration = Duration::from_secs(180);

/// One node's runs. Whatever still runs when it is dropped is killed with its run's shim.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runs: Runs,
    pub(crate) events: mpsc::Receiver<RunEvent>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Containment::detect())
    }

    pub(crate) fn with(containment: Containment) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), containment)
    }

    pub(crate) fn in_folder(folder: tempfile::TempDir, containment: Containment) -> Self {
        let (runs, events) = runs_in(folder.path(), containment);
        Self { folder, runs, events }
    }

    /// The agent died and starts again: new tasks, the same folder.
    pub(crate) fn restart(&mut self) {
        let (runs, events) = runs_in(self.folder.path(), self.runs.containment().clone());
        self.runs = runs;
        self.events = events;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of `/bin/sh -c script`.
    pub(crate) fn shell(&self, run: u64, script: &str) -> RunSpec {
        RunSpec {
            instance: "web.1".parse::<InstanceId>().unwrap(),
            run: RunNumber(run),
            release: ReleaseNumber(1),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
            cwd: self.folder.path().into(),
            log_dir: self.path(&format!("log-{run}")),
            logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
            journal: None,
            restart: policy(RestartMode::Always),
            listeners: Vec::new(),
            ports: BTreeMap::new(),
            lifecycle: Default::default(),
            seal: Seal::default(),
            confinement: Default::default(),
        }
    }

    pub(crate) async fn event(&mut self) -> RunEventKind {
        tokio::time::timeout(WITHIN, self.events.recv())
            .await
            .expect("an event in time")
            .expect("a run lives")
            .kind
    }

    /// The next event, which must be a start.
    pub(crate) async fn started(&mut self) -> u32 {
        match self.event().await {
            RunEventKind::Started { pid, .. } => pid,
            other => panic!("expected a start, got {other:?}"),
        }
    }

    /// Stops a run, ends its shim and forgets it.
    pub(crate) async fn finish(&mut self, handle: RunHandle) {
        handle.kill().await.unwrap();
        while !matches!(self.event().await, RunEventKind::Stopped { .. }) {}
        handle.quit().await.unwrap();
        forget(&self.runs, &handle).await;
    }

    pub(crate) async fn adopt(&self, run: u64) -> Adoption {
        let directory = self.runs.directory(&"web.1".parse().unwrap(), RunNumber(run));
        self.runs.adopt(&directory).await.unwrap()
    }

    pub(crate) async fn adopted(&self, run: u64) -> baton_agent::runs::Adopted {
        match self.adopt(run).await {
            Adoption::Adopted(adopted) => *adopted,
            Adoption::Gone { reason, .. } => panic!("the run is gone: {reason}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A failed test must leave no process behind: these were started by this test's shims.
        for directory in self.runs.list().unwrap_or_default() {
            let text = std::fs::read_to_string(directory.join("shim.state")).unwrap_or_default();
            if let Some(pid) = text.split(' ').nth(2).and_then(|word| word.parse().ok())
                && is_shim(pid)
            {
                for child in baton_agent::runs::process::descendants(pid).unwrap_or_default() {
                    kill(child);
                }
                kill(pid);
                while lives(pid) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let record = std::fs::read(directory.join("run.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            if let Some(group) = record["group"].as_str() {
                for part in ["work", "shim", ""] {
                    let _ = std::fs::remove_dir(Path::new(group).join(part));
                }
            }
        }
    }
}

fn runs_in(folder: &Path, containment: Containment) -> (Runs, mpsc::Receiver<RunEvent>) {
    Runs::new(folder.join("runs"), env!("CARGO_BIN_EXE_baton-shim-test"), containment).unwrap()
}

fn is_shim(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|text| text.split(|b| *b == 0).nth(1) == Some(b"shim"))
}

pub(crate) async fn forget(runs: &Runs, handle: &RunHandle) {
    // At once: a shim that said it will end is waited for.
    runs.forget(handle.instance(), handle.run()).await.unwrap();
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + WITHIN;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn policy(mode: RestartMode) -> RestartPolicy {
    RestartPolicy {
        mode,
        base: Millis(50),
        max: Millis(200),
        reset_after: Millis::secs(60),
        crash_loop_after: 3,
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The process that started this one.
pub(crate) fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

pub(crate) fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

pub(crate) fn listener() -> Listener {
    baton_agent::runs::listen(
        PortName::new("http").unwrap(),
        "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap(),
    )
    .unwrap()
}

/// A port of loopback that nobody else of this machine's tests picks, nor the kernel for a connection: those are from
/// 32768 on.
pub(crate) fn own_port() -> u16 {
    static PICKED: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 200) as u16 * 50;
    first + PICKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The process id that a workload wrote into a file.
pub(crate) async fn pid_in(path: &Path) -> u32 {
    let read = || std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    eventually("a process id is written", || async { read().is_some() }).await;
    read().unwrap()
}
