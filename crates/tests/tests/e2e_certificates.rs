//! Certificates of a few seconds on a cluster made by hand: they are renewed while everything goes on, and one that
//! really ended is refused with a way out.

use baton_proto::identity::{Identity, connect_at};
use baton_tests::harness::{Ran, baton_program, wait};
use serde_json::Value;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

const ROOM: Duration = Duration::from_secs(120);
/// Renewed when a third of its validity is left. Commands come far more often than that, also on a busy machine.
const LIFE: &str = "15s";
/// A refusal is an answer, not a time-out.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

/// A role that the test started; ended with it.
struct Role {
    child: Child,
    log: PathBuf,
}

impl Role {
    fn start(log: PathBuf, args: &[&str]) -> Self {
        let child = Command::new(baton_program())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("a role starts");
        Self { child, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn await_said(&self, words: &str) {
        wait::until(words, ROOM, || {
            let said = self.said();
            if said.contains(words) { Ok(()) } else { Err(said) }
        });
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // No workload was ever deployed: nothing outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.said());
        }
    }
}

/// A coordinator, the node n1 and the operator alice, as docs/operating.md makes them.
struct ByHand {
    node: Role,
    coordinator: Role,
    address: String,
    folder: TempDir,
}

impl ByHand {
    /// The node has joined and is told to `before_run`, before its agent runs.
    fn start(before_run: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::with_prefix("baton-certificates-").expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
        let address = free.expect("a free port").to_string();
        let dir = at("coordinator").display().to_string();
        let init =
            ["coordinator", "init", "--dir", &dir, "--listen", &address, "--operator", "alice", "--json"];
        let token = baton(&at("config"), &init).expect(0).json();
        let run = ["coordinator", "run", "--dir", &dir, "--certificate-life", LIFE];
        let coordinator = Role::start(at("coordinator.log"), &run);
        coordinator.await_said("serving");
        let token = token["operator_token"].as_str().expect("a token");
        let add = ["context", "add", "prod", "--coordinator", &address, "--as", "alice", "--token", token];
        let _ = baton(&at("config"), &add).expect(0);
        join(&at("config"), &address, &at("agent"), &["--name", "n1"]);
        before_run(folder.path());
        let node =
            Role::start(at("agent.log"), &["agent", "run", "--dir", &at("agent").display().to_string()]);
        Self { node, coordinator, address, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn json(&self, args: &[&str]) -> Value {
        baton(&self.at("config"), &[args, &["--json"]].concat()).expect(0).json()
    }

    /// Whether the coordinator hears the node; a renewal replaces its session, which is not silence.
    fn await_connected(&self) {
        wait::until("the node", ROOM, || {
            let nodes = self.json(&["node", "ls"]);
            if nodes[0]["connected"] == true { Ok(()) } else { Err(nodes.to_string()) }
        });
    }

    /// When the certificates of the operator and of the node end.
    fn ends(&self) -> [SystemTime; 2] {
        let until = self.json(&["context", "show"])["certificate_until"].as_u64().expect("a time");
        [SystemTime::UNIX_EPOCH + Duration::from_millis(until), ends(&self.at("agent"))]
    }
}

fn baton(config: &Path, args: &[&str]) -> Ran {
    let begun = Instant::now();
    let output = Command::new(baton_program())
        .args(args)
        .env("BATON_CONFIG_DIR", config)
        .stdin(Stdio::null())
        .output()
        .expect("baton runs");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: begun.elapsed(),
    }
}

/// Joins as the node n1, with a token for exactly its name.
fn join(config: &Path, address: &str, dir: &Path, more: &[&str]) {
    let token = baton(config, &["node", "token", "--name", "n1", "--json"]).expect(0).json();
    let (token, dir) = (token["token"].as_str().expect("a token"), dir.display().to_string());
    let args = ["agent", "join", "--coordinator", address, "--token", token, "--address", "127.0.0.1"];
    let _ = baton(config, &[args.as_slice(), &["--dir", &dir], more].concat()).expect(0);
}

/// The identity of the agent whose folder is `dir`. A renewal may be replacing its files.
fn identity(dir: &Path) -> Identity {
    wait::until("an identity", ROOM, || {
        Identity::load(&dir.join("identity")).map_err(|error| error.to_string())
    })
}

fn ends(dir: &Path) -> SystemTime {
    identity(dir).not_after().expect("a certificate")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            let _ = std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn certificates_are_renewed_before_they_end_and_ended_ones_are_refused() {
    let mut cluster = ByHand::start(|folder| {
        copy(&folder.join("config"), &folder.join("old-config"));
        copy(&folder.join("agent"), &folder.join("old-agent"));
    });
    cluster.await_connected();
    let (mut seen, begun) = (vec![cluster.ends()], Instant::now());
    let old_end = ends(&cluster.at("old-agent")).max(seen[0][0]);
    wait::until("two renewals of each, and the end of the first certificates", ROOM, || {
        let _ = cluster.json(&["node", "ls"]);
        seen.push(cluster.ends());
        let moved = |whose: usize| seen.windows(2).filter(|pair| pair[1][whose] > pair[0][whose]).count();
        let over = SystemTime::now() > old_end + Duration::from_secs(1);
        if moved(0) >= 2 && moved(1) >= 2 && over {
            Ok(())
        } else {
            Err(format!("renewed {} and {} times in {:?}", moved(0), moved(1), begun.elapsed()))
        }
    });
    cluster.await_connected();
    let events = baton(&cluster.at("config"), &["events", "--json"]).expect(0).stdout;
    assert!(!events.contains("node-silent"), "the node was always heard: {events}");

    an_ended_operator_is_told_and_joins_again(&cluster);
    an_ended_node_is_told_and_joins_again(&mut cluster);
}

fn an_ended_operator_is_told_and_joins_again(cluster: &ByHand) {
    let config = cluster.at("old-config");
    let refused = baton(&config, &["node", "ls"]).expect(1);
    for words in ["certificate of operator alice has expired", "it ended on", "baton context add --force"] {
        assert!(refused.stderr.contains(words), "no `{words}` in: {}", refused.stderr);
    }
    assert!(refused.took < REFUSED_WITHIN, "{:?}", refused.took);

    let token = cluster.json(&["node", "token", "--operator", "--name", "alice"]);
    let token = token["token"].as_str().expect("a token");
    let add = ["context", "add", "prod", "--coordinator", &cluster.address, "--as", "alice", "--force"];
    let _ = baton(&config, &[add.as_slice(), &["--token", token]].concat()).expect(0);
    let _ = baton(&config, &["node", "ls"]).expect(0);
}

fn an_ended_node_is_told_and_joins_again(cluster: &mut ByHand) {
    let dir = cluster.at("old-agent");
    // A host whose clock is wrong would try it: the coordinator itself refuses.
    let (ended, before) = (identity(&dir), ends(&dir) - Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let refused = runtime.block_on(connect_at(&cluster.address, &ended, before)).expect_err("it has ended");
    assert!(refused.to_string().contains("expired"), "{refused}");

    let old =
        Role::start(cluster.at("old-agent.log"), &["agent", "run", "--dir", &dir.display().to_string()]);
    old.await_said("certificate of node n1 has expired: it ended on");
    old.await_said("baton agent join --force");
    cluster.await_connected();
    // The node moves to the old folder, as its own text says.
    drop(old);
    let _ = cluster.node.child.kill();
    join(&cluster.at("config"), &cluster.address, &dir, &["--name", "n1", "--force"]);
    let log = cluster.at("new-agent.log");
    cluster.node = Role::start(log, &["agent", "run", "--dir", &dir.display().to_string()]);
    cluster.node.await_said(" connected coordinator=");
    cluster.await_connected();
    assert!(!cluster.coordinator.said().contains("ERROR"), "{}", cluster.coordinator.said());
}
