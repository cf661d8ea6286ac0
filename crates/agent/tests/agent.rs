//! The whole agent with real shims, a real server as workload, and the wire's other end: deploy, swap under load,
//! heal, refuse, restart, remove.

mod node;
mod wire;

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
use node::{eventually, kill, lives, policy};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;
use wire::{Authority, Wire};

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
    connection.settimeout(10)
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

struct Fixture {
    folder: tempfile::TempDir,
    authority: Authority,
    wire: Wire,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    port: u16,
}

/// An agent on a thread and a runtime of its own, so that ending it ends everything of it but the shims.
struct Agent {
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    fn stop(mut self) {
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
    async fn new() -> Self {
        let (authority, wire) = (Authority::new(), Wire::new());
        let (address, server) = wire.serve(&authority, "127.0.0.1:0".parse().unwrap()).await;
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
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, authority, wire, address, server, port }
    }

    fn agent(&self) -> Agent {
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
    fn release(&self, number: u64, version: &str) -> InstancePlan {
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
        let spec = spec(self.port);
        InstancePlan {
            release: ReleaseNumber(number),
            version: version.parse().unwrap(),
            attempt: 1,
            reload: 0,
            artifact,
            spec,
        }
    }

    fn deploy(&self, generation: u64, plan: Option<InstancePlan>) {
        let instances = plan.into_iter().map(|plan| ("web.1".parse().unwrap(), plan)).collect();
        let plan = NodePlan { node: "n1".parse().unwrap(), generation: Generation(generation), instances };
        self.wire.plan.send_replace(Some(plan));
    }

    fn seen(&self) -> Option<v1::Instance> {
        self.wire.observed.borrow().instances.first().cloned()
    }

    /// Waits until the one instance is ready on this release, with no swap under way; its process.
    async fn ready(&self, release: u64) -> u32 {
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

    async fn until_event(&self, kind: &str) -> v1::AgentEvent {
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
            healthy_deadline: Millis(8_000),
            progress_deadline: Millis(20_000),
            failure_tolerance: Amount::Number(0),
            on_failure: OnFailure::RollBack,
            approve_before: Vec::new(),
        },
        logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
        lifecycle: Default::default(),
        limits: Default::default(),
        sandbox: Default::default(),
        configuration: Default::default(),
    }
}

fn python() -> String {
    let output =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    String::from_utf8(output.expect("python3 is there").stdout).unwrap().trim().to_owned()
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(node::WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.0 200") { Ok(text) } else { Err(std::io::Error::other(text)) }
}

/// Requests one after another until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    fn on(port: u16) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = get(port) {
                    failed.push(error.to_string());
                }
            }
            failed
        });
        Self { stop, sent, thread }
    }

    fn end(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        (self.sent.load(Ordering::Relaxed), self.thread.join().unwrap())
    }
}

#[tokio::test]
async fn a_service_is_deployed_swapped_under_load_healed_and_removed() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    assert!(get(f.port).unwrap().ends_with("1.0"));

    let load = Load::on(f.port);
    f.deploy(2, Some(f.release(2, "2.0")));
    let second = f.ready(2).await;
    eventually("the old process is gone", || async { !lives(first) }).await;
    let (sent, failed) = load.end();
    assert!(sent > 0);
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    assert!(get(f.port).unwrap().ends_with("2.0"));
    let swapped = f.until_event("swap-done").await;
    assert!(swapped.fields.contains_key("total_ms"), "{swapped:?}");

    let load = Load::on(f.port);
    f.deploy(3, Some(f.release(3, "bad-3")));
    let refused = f.until_event("swap-failed").await;
    assert!(refused.message.contains("status 500"), "{}", refused.message);
    let swap_failed =
        || f.seen().and_then(|seen| seen.swap).is_some_and(|swap| swap.phase() == v1::SwapPhase::Failed);
    eventually("the candidate is gone", || async { swap_failed() }).await;
    let (sent, failed) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    assert!(lives(second));

    f.deploy(4, Some(f.release(2, "2.0")));
    f.ready(2).await;
    kill(second);
    eventually("it is healed", || async { f.seen().is_some_and(|seen| seen.restarts == 1) }).await;
    let third = f.ready(2).await;
    assert_ne!(second, third);
    let exited = f.until_event("instance-exited").await;
    assert_eq!(exited.fields["exit"], "signal 9");

    f.wire.ask_logs.send_replace(Some(v1::LogRequest {
        request: 9,
        service: "web".into(),
        tail_lines: 1,
        ..Default::default()
    }));
    eventually("logs come", || async { f.wire.logs.lock().unwrap().iter().any(|lines| lines.end) }).await;
    let lines: Vec<_> = f.wire.logs.lock().unwrap().iter().flat_map(|lines| lines.lines.clone()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].instance.as_str(), &lines[0].text[..]), ("web.1", &b"serving 2.0"[..]));
    eventually("metrics come", || async {
        f.wire
            .metrics
            .borrow()
            .as_ref()
            .is_some_and(|node| node.instances.get("web.1").is_some_and(|i| i.processes == 1))
    })
    .await;

    f.deploy(5, None);
    f.until_event("instance-removed").await;
    assert!(!lives(third));
    // The event and the observation are two messages.
    eventually("it is reported no more", || async { f.seen().is_none() }).await;
    eventually("nobody listens", || async { TcpStream::connect(("127.0.0.1", f.port)).is_err() }).await;
    eventually("its folder is gone", || async { !f.folder.path().join("instances/web.1").exists() }).await;
    agent.stop();
}

#[tokio::test]
async fn a_lost_shim_costs_only_what_was_in_flight() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let mut pid = f.ready(1).await;
    let load = Load::on(f.port);
    for _ in 0..3 {
        kill(node::parent(pid));
        eventually("it runs anew", || async {
            f.seen().is_some_and(|seen| seen.pid.is_some_and(|p| p != pid))
        })
        .await;
        pid = f.ready(1).await;
    }
    let (sent, failed) = load.end();
    assert!(failed.len() <= 3, "one request at a time was sent, {sent} in all: {failed:?}");
    assert!(failed.iter().all(|error| !error.contains("refused")), "{failed:?}");
    f.deploy(2, None);
    f.until_event("instance-removed").await;
    agent.stop();
}

#[tokio::test]
async fn a_shim_lost_with_the_agent_is_replaced_while_the_old_run_drains() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    let held = TcpStream::connect(("127.0.0.1", f.port)).unwrap();
    f.deploy(2, Some(f.release(2, "2.0")));
    f.until_event("swap-done").await;
    // The event and the observation are two messages.
    let new = || f.seen().and_then(|seen| seen.pid).filter(|pid| *pid != first);
    eventually("the new process is reported", || async { new().is_some() }).await;
    let second = new().unwrap();
    agent.stop();
    assert!(lives(first), "the old run drains");
    kill(node::parent(second));
    let agent = f.agent();
    eventually("it runs anew", || async {
        f.seen().is_some_and(|seen| {
            seen.pid.is_some_and(|pid| pid != second) && seen.state() == InstanceState::Ready
        })
    })
    .await;
    assert!(f.wire.event("instance-not-started").is_none(), "the port is its own instance's");
    drop(held);
    eventually("the old run is gone", || async { !lives(first) }).await;
    f.ready(2).await;
    assert!(get(f.port).unwrap().ends_with("2.0"));
    f.deploy(3, None);
    f.until_event("instance-removed").await;
    eventually("nobody listens", || async { TcpStream::connect(("127.0.0.1", f.port)).is_err() }).await;
    agent.stop();
}

#[tokio::test]
async fn an_agent_that_was_away_takes_over_without_a_coordinator() {
    let mut f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    let load = Load::on(f.port);
    agent.stop();
    assert!(lives(first), "the workload outlives its agent");
    f.server.abort();

    let agent = f.agent();
    // Alone, it goes on checking and healing; both are seen when the coordinator is back.
    let (before, sent) = (load.sent.load(Ordering::Relaxed), || load.sent.load(Ordering::Relaxed));
    eventually("it is used meanwhile", || async { sent() > before + 100 }).await;
    let (sent, failed) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    kill(first);
    f.wire.observed.send_replace(v1::Observed::default());
    (_, f.server) = f.wire.serve(&f.authority, f.address).await;
    let second = f.ready(1).await;
    assert_ne!(first, second);
    let adopted = f.until_event("adopted").await;
    assert_eq!((adopted.fields["count"].as_str(), adopted.fields["lost"].as_str()), ("1", "0"));
    f.until_event("instance-exited").await;

    // An older plan is refused; the state stays what it is.
    f.deploy(0, None);
    f.until_event("plan-refused").await;
    assert!(lives(second));
    f.deploy(2, None);
    f.until_event("instance-removed").await;
    assert!(!lives(second));
    agent.stop();
}

#[tokio::test]
async fn a_release_that_cannot_run_here_is_refused_with_a_reason() {
    let f = Fixture::new().await;
    let agent = f.agent();
    let mut plan = f.release(1, "1.0");
    plan.spec.exec = vec!["no/such/program".into()];
    f.deploy(1, Some(plan));
    let told = f.until_event("release-not-staged").await;
    assert!(told.message.contains("no/such/program"), "{}", told.message);
    eventually("it is failed", || async {
        f.seen().is_some_and(|seen| seen.state() == InstanceState::Failed)
    })
    .await;
    f.deploy(2, Some(f.release(2, "2.0")));
    f.ready(2).await;
    f.deploy(3, None);
    f.until_event("instance-removed").await;
    agent.stop();
}
