//! A whole agent on a node of its own, and what it is told to run.
#![allow(dead_code)] // Each test file uses its part.

use crate::node::{eventually, kill, lives, own_port, policy};
use crate::wire::{Authority, Wire};
use baton_agent::{AgentConfig, AgentFile, StateDir};
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::id::{Digest, Generation, PortName, ReleaseNumber};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::rollout::{OnFailure, RolloutPolicy, Strategy};
use baton_model::spec::{
    Amount, Check, Checks, Count, LogPolicy, Placement, Port, PortKind, Probe, RestartMode, ServiceSpec,
    StopPolicy, StopSignal,
};
use baton_model::time::Millis;
use baton_proto::v1::{self, InstanceState};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// A server that takes its socket from the shim and answers with its version; a "bad" one fails its check.
const SERVER: &str = r#"
import os, signal, socket, sys, threading
version = os.environ["BATON_VERSION"]
status = "500 Oops" if version.startswith("bad") else "200 OK"
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_FDNAMES"] == "http", os.environ
listener = socket.socket(fileno=3)
listener.settimeout(0.05)
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
print("serving", version, flush=True)
def answer(connection):
    connection.settimeout(300)
    connection.recv(4096)
    connection.sendall(f"HTTP/1.0 {status}\r\nconnection: close\r\n\r\n{version}".encode())
    connection.close()
while not stopping.is_set():
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        continue
    answer(connection)
"#;

pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) wire: Wire,
    pub(crate) address: SocketAddr,
    pub(crate) server: tokio::task::JoinHandle<()>,
    pub(crate) port: u16,
}

/// An agent on a thread and a runtime of its own, so that ending it ends everything of it but the shims.
pub(crate) struct Agent {
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn stop(mut self) {
        self.cancel.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let (authority, wire) = (Authority::new(), Wire::new());
        // A test may serve there again.
        let (address, server) = wire.serve(&authority, ([127, 0, 0, 1], own_port()).into()).await;
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        authority.identity("node/n1").save(&state.identity_dir()).unwrap();
        let file = AgentFile {
            name: "n1".parse().unwrap(),
            coordinators: vec!["127.0.0.1:1".into(), address.to_string()],
            address: "127.0.0.1".parse().unwrap(),
            labels: BTreeMap::new(),
        };
        state.write_agent_file(&file).unwrap();
        Self { folder, authority, wire, address, server, port: own_port() }
    }

    pub(crate) fn agent(&self) -> Agent {
        let mut config = AgentConfig::new(self.folder.path());
        config.shim_program = Some(env!("CARGO_BIN_EXE_baton-shim-test").into());
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let thread = std::thread::spawn(move || {
            baton_agent::runtime().unwrap().block_on(baton_agent::run(config, cancelled)).unwrap();
        });
        Agent { cancel, thread: Some(thread) }
    }

    /// A release of the server; its artifact is known to the coordinator.
    pub(crate) fn release(&self, number: u64, version: &str) -> InstancePlan {
        let mut header = tar::Header::new_gnu();
        let text = format!("{SERVER}# {version}\n");
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, "server.py", text.as_bytes()).unwrap();
        let blob = zstd::encode_all(&archive.into_inner().unwrap()[..], 3).unwrap();
        let digest = Digest(Sha256::digest(&blob).into());
        self.wire.blobs.lock().unwrap().insert(digest.to_string(), blob.clone());
        let artifact = Artifact {
            digest,
            size_bytes: blob.len() as u64,
            format: ArtifactFormat::TarZstd,
            unpacked_bytes: text.len() as u64,
        };
        let mut spec = spec(self.port);
        if version.starts_with("bad") {
            spec.rollout.healthy_deadline = Millis(8_000);
        }
        InstancePlan {
            release: ReleaseNumber(number),
            version: version.parse().unwrap(),
            attempt: 1,
            reload: 0,
            released: Default::default(),
            artifact,
            spec,
        }
    }

    pub(crate) fn deploy(&self, generation: u64, plan: Option<InstancePlan>) {
        self.deploy_all(generation, plan.into_iter().collect());
    }

    /// The first instance of each service.
    pub(crate) fn deploy_all(&self, generation: u64, plans: Vec<InstancePlan>) {
        let first = |plan: InstancePlan| (format!("{}.1", plan.spec.name).parse().unwrap(), plan);
        let instances = plans.into_iter().map(first).collect();
        let plan = NodePlan { node: "n1".parse().unwrap(), generation: Generation(generation), instances };
        self.wire.plan.send_replace(Some(plan));
    }

    pub(crate) fn seen(&self) -> Option<v1::Instance> {
        self.wire.observed.borrow().instances.first().cloned()
    }

    /// Waits until the one instance is ready on this release, with no swap under way; its process.
    pub(crate) async fn ready(&self, release: u64) -> u32 {
        let is = || {
            self.seen().filter(|seen| {
                seen.release == release
                    && seen.state() == InstanceState::Ready
                    && seen.swap.is_none()
                    && seen.pid.is_some_and(lives)
            })
        };
        let what = format!("release {release} is ready");
        eventually(&what, || async { is().is_some() }).await;
        is().and_then(|seen| seen.pid).expect("ready a moment ago")
    }

    pub(crate) async fn until_event(&self, kind: &str) -> v1::AgentEvent {
        eventually(kind, || async { self.wire.event(kind).is_some() }).await;
        self.wire.event(kind).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort();
        if std::thread::panicking() {
            // What the agent told is the best explanation of a failure.
            for event in self.wire.events.lock().unwrap().values() {
                eprintln!("{}: {} {:?}", event.kind, event.message, event.fields);
            }
            eprintln!("{:?}", self.seen());
        }
        for entry in std::fs::read_dir(self.folder.path().join("runs")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path().join("shim.state")).unwrap_or_default();
            let Some(pid) = text.split(' ').nth(2).and_then(|word| word.parse().ok()) else { continue };
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).nth(1) == Some(b"shim") {
                baton_agent::runs::process::descendants(pid).unwrap_or_default().into_iter().for_each(kill);
                kill(pid);
            }
        }
    }
}

fn spec(port: u16) -> ServiceSpec {
    let http: PortName = "http".parse().unwrap();
    let check = Check {
        probe: Probe::Http { port: http.clone(), path: "/".into(), status: None },
        interval: Millis(200),
        timeout: Millis(5_000),
        rise: 1,
        fall: 3,
    };
    ServiceSpec {
        name: "web".parse().unwrap(),
        exec: vec![python(), "-B".into(), "server.py".into()],
        env: BTreeMap::new(),
        ports: BTreeMap::from([(http, Port { kind: PortKind::Socket { port } })]),
        checks: Checks { startup: None, readiness: Some(check), liveness: None },
        stop: StopPolicy { signal: StopSignal::Sigterm, timeout: Millis::secs(30), drain: Millis::secs(60) },
        restart: policy(RestartMode::Always),
        placement: Placement {
            count: Count::Replicas(1),
            require: BTreeMap::new(),
            spread: None,
            lost_after: Millis::secs(60),
        },
        min_available: Amount::Number(0),
        rollout: RolloutPolicy {
            strategy: Strategy::Rolling,
            batch: Amount::Number(1),
            max_unavailable: Amount::Number(1),
            zone_at_a_time: false,
            first_zone_bake: Millis::ZERO,
            min_healthy: Millis::ZERO,
            healthy_deadline: Millis::secs(60),
            progress_deadline: Millis::secs(120),
            failure_tolerance: Amount::Number(0),
            on_failure: OnFailure::RollBack,
            approve_before: Vec::new(),
            analysis: Vec::new(),
        },
        logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
        lifecycle: Default::default(),
        limits: Default::default(),
        sandbox: Default::default(),
        configuration: Default::default(),
        route: None,
    }
}

fn python() -> String {
    let output =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.expect("python3 is there").stdout).unwrap().trim().to_owned()
}
