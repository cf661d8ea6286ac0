//! Swaps that are not the usual one: fixed and dynamic ports, servers that end badly, thousands of kept connections,
//! and a node that is alone.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, fixture, wait};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

fn server(stop: &str) -> ServiceFile {
    ServiceFile::web("web", 8080)
        .with_program(fixture("sockets"), r#"["./server.py"]"#)
        .with_env("ADDRESS", "${NODE_ADDRESS}")
        .with_section("placement", "replicas = 1\n")
        .with_section("stop", stop)
}

fn address(cluster: &Cluster, port: u16) -> SocketAddr {
    format!("{}:{port}", cluster.address(0)).parse().expect("an address")
}

fn load(cluster: &Cluster, each: u32) -> Load {
    Load::start(&Plan {
        targets: vec![address(cluster, 8080)],
        connections: 10,
        rate: Some(200.0),
        requests_per_connection: each,
    })
}

/// Until every client has come to a fresh connection, and so to the process that serves now.
fn let_all_reconnect(load: &Load, each: u64) {
    let enough = load.sent() + 2 * 10 * each;
    wait::until("further requests", ROOM, || match load.sent() {
        sent if sent >= enough => Ok(()),
        sent => Err(format!("{sent} of {enough}")),
    });
}

fn events(cluster: &Cluster) -> Vec<Value> {
    let told = cluster.baton(&["events", "--last", "1000", "--json"]).expect(0).stdout;
    told.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

fn event(cluster: &Cluster, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, ROOM, || {
        let all = events(cluster);
        all.iter().find(|event| wanted(event)).cloned().ok_or_else(|| format!("{all:#?}"))
    })
}

fn number(event: &Value, field: &str) -> u64 {
    let text = event["fields"][field].as_str().unwrap_or_else(|| panic!("no {field}: {event}"));
    text.parse().expect("a number")
}

/// The costs of the newest rollout, as `rollout history --json` tells them, once there is one of this kind.
fn cost(cluster: &Cluster, kind: &str) -> Value {
    wait::until(kind, ROOM, || {
        let history = cluster.json(&["rollout", "history", "web"]);
        let costs = history[0]["costs"].as_array().cloned().unwrap_or_default();
        costs.into_iter().find(|cost| cost["kind"] == kind).ok_or_else(|| history.to_string())
    })
}

#[test]
fn a_fixed_port_has_a_gap_that_is_measured_and_told() {
    let cluster = one_node();
    let ports = "[ports.http]\nkind = \"fixed\"\nport = 8080\n";
    let file = server("timeout = \"5s\"\n").with_ports(ports);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let load = load(&cluster, 1);
    load.await_version("1.0");
    let _ = cluster.deploy(&file, "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();
    let done = event(&cluster, "the swap's end", |event| event["kind"] == "swap-done");
    let gap = number(&done, "gap_ms");
    println!("gap {gap} ms; {} of {} requests failed in it", counted.failed, counted.sent);
    // Both clocks see the same gap: at 200 requests a second about a fifth of its milliseconds fail.
    assert!(gap > 0 && Duration::from_millis(gap) < ROOM, "{done}");
    assert!(counted.versions["1.0"] > 0 && counted.versions["2.0"] > 0, "{:?}", counted.versions);
    assert!(done["message"].as_str().is_some_and(|text| text.contains("nothing served there for")), "{done}");
    assert_eq!(cost(&cluster, "gap")["amount"].as_u64(), Some(gap));
    let shown = cluster.baton(&["rollout", "history", "web"]).expect(0).stdout;
    assert!(shown.contains(&format!("web.1 served nothing for {gap} ms")), "{shown}");
}

#[test]
fn a_dynamic_port_changes_and_the_old_process_ends_after_the_new_is_ready() {
    let cluster = one_node();
    let file = server("timeout = \"5s\"\n").with_ports("[ports.http]\nkind = \"dynamic\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let port = |cluster: &Cluster| {
        cluster.instances("web")[0]["observed"]["ports"]["http"].as_u64().expect("a port")
    };
    let before = port(&cluster);
    let _ = cluster.deploy(&file, "2.0").expect(0);
    let after = port(&cluster);
    assert_ne!(before, after);
    let new = address(&cluster, u16::try_from(after).expect("a port"));
    assert!(TcpStream::connect(new).is_ok(), "the new one serves");
    let done = event(&cluster, "the swap's end", |event| event["kind"] == "swap-done");
    let stopped = event(&cluster, "the old one's end", |event| event["kind"] == "instance-stopped");
    assert!(done["seq"].as_u64() < stopped["seq"].as_u64(), "{done} {stopped}");
    let old = address(&cluster, u16::try_from(before).expect("a port"));
    wait::until("the old port to be closed", ROOM, || match TcpStream::connect(old) {
        Err(_) => Ok(()),
        Ok(_) => Err("it is open".to_owned()),
    });
}

/// A connection that is kept open, with one request answered.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("it is accepted");
        stream.set_read_timeout(Some(ROOM)).expect("a timeout");
        let mut kept = Self(BufReader::new(stream));
        kept.ask().expect("the first answer");
        kept
    }

    /// The answer's body, or why there is none.
    fn ask(&mut self) -> std::io::Result<String> {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            if line == "\r\n" {
                let mut body = vec![0; length];
                self.0.read_exact(&mut body)?;
                return String::from_utf8(body).map_err(std::io::Error::other);
            }
        }
    }
}

#[test]
fn an_old_process_that_will_not_go_is_killed_and_what_it_cut_is_told() {
    let cluster = one_node();
    let file = server("timeout = \"1s\"\ndrain = \"4s\"\n").with_env("BEHAVIOUR", "deaf");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let mut kept: Vec<Kept> = (0..3).map(|_| Kept::open(address(&cluster, 8080))).collect();
    // Each on a connection of its own, so that none of them outlasts the drain, however slow the machine.
    let load = load(&cluster, 1);
    let _ = cluster.deploy(&file, "2.0").expect(0);
    let killed = cost(&cluster, "instance-killed");
    let cut = cost(&cluster, "connections-cut");
    let counted = load.stop();
    assert_eq!(counted.failures, Vec::<String>::new(), "only idle connections were cut");
    assert_eq!(cut["amount"], 3, "{cut}");
    assert_eq!(cut["text"], "cut 3 connections on web.1");
    assert_eq!(killed["instance"], "web.1");
    let shown = cluster.baton(&["rollout", "history", "web"]).expect(0).stdout;
    assert!(shown.contains("cut 3 connections on web.1") && shown.contains("killed"), "{shown}");
    let shown = cluster.baton(&["rollout", "status", "web"]).expect(0).stdout;
    assert!(shown.contains("cut 3 connections on web.1"), "{shown}");
    assert!(kept.iter_mut().all(|kept| kept.ask().is_err()), "they were cut");
}

#[test]
fn a_server_that_dies_at_its_signal_loses_nothing_of_clients_that_come_to_an_end() {
    let cluster = one_node();
    let file = server("timeout = \"5s\"\ndrain = \"20s\"\n").with_env("BEHAVIOUR", "abrupt");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let load = load(&cluster, 20);
    let_all_reconnect(&load, 20);
    for version in ["2.0", "3.0"] {
        let _ = cluster.deploy(&file, version).expect(0);
        let_all_reconnect(&load, 20);
    }
    let counted = load.stop();
    println!("{} of {} requests failed", counted.failed, counted.sent);
    assert_eq!(counted.failures, Vec::<String>::new());
    assert!(counted.versions["1.0"] > 0 && counted.versions["3.0"] > 0, "{:?}", counted.versions);
}

#[test]
fn thousands_of_kept_connections_are_answered_once_more_by_the_old_process() {
    const KEPT: usize = 5_000;
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("limits");
    let needed = KEPT as u64 + 1_000;
    assert!(hard >= needed, "this test needs {needed} open files: raise `ulimit -Hn` from {hard}");
    if soft < needed {
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, needed, hard)
            .expect("a limit");
    }
    let cluster = one_node();
    let file = server("timeout = \"60s\"\ndrain = \"1s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let to = address(&cluster, 8080);
    let mut kept: Vec<Kept> = (0..KEPT).map(|_| Kept::open(to)).collect();
    let _ = cluster.deploy(&file, "2.0").expect(0);
    let told = cost(&cluster, "connections-cut");
    assert_eq!(told["text"], "told web.1 to end with 5000 connections still open");
    let answers: Vec<_> = kept.iter_mut().map(Kept::ask).collect();
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {KEPT}: {:?}", failed.len(), failed[0]);
    assert!(answers.iter().flatten().all(|body| body.contains("version=1.0")), "each by its old process");
    drop(kept);
    assert!(Kept::open(to).ask().expect("an answer").contains("version=2.0"));
    event(&cluster, "the old process to end by itself", |event| {
        event["kind"] == "instance-stopped" && event["fields"]["killed"] == "false"
    });
}

/// Stops a process of the cluster without ending it, until dropped: nobody hears of it meanwhile.
struct Frozen(nix::unistd::Pid);

impl Frozen {
    fn new(pid: u64) -> Self {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("it is there");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
    }
}

#[test]
fn a_node_that_is_alone_goes_back_from_a_bad_version_by_itself() {
    let cluster = one_node();
    let rollout = "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"10s\"\nprogress_deadline = \"60s\"\n";
    let file = server("timeout = \"5s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let load = load(&cluster, 5);
    let old = cluster.pids("web");
    let written = cluster
        .write("bad.toml", &file.with_section("rollout", rollout).with_env("BEHAVIOUR", "sick").text());
    let _ = cluster.baton(&["deploy", &written, "--version", "2.0"]).expect(0);
    event(&cluster, "the swap to begin", |event| event["kind"] == "swap-started");

    // The coordinator hears and says nothing from here on; what the node does shows on the node alone.
    let frozen = Frozen::new(cluster.role_pid("coordinator"));
    let folder = std::path::PathBuf::from(
        cluster.ready["nodes"][0]["dir"]
            .as_str()
            .map_or_else(|| cluster.folder().join("cluster").display().to_string(), str::to_owned),
    );
    wait::until("the node to give up on 2.0", ROOM, || {
        let found = find(&folder, "instance.json");
        let texts: Vec<_> = found.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        let given_up =
            texts.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok()).any(|record| {
                let machine = &record["machine"];
                machine["failed_swap"]["release"] == 2
                    && machine["leaving"].as_object().is_some_and(serde_json::Map::is_empty)
            });
        if given_up { Ok(()) } else { Err(format!("{texts:?}")) }
    });
    let counted = load.stop();
    assert_eq!(counted.failures, Vec::<String>::new(), "of {}", counted.sent);
    assert_eq!(counted.versions.keys().collect::<Vec<_>>(), ["1.0"], "the bad version answered");
    drop(frozen);
    wait::until("the rollout to be rolled back", ROOM, || {
        let status = cluster.asked(&["rollout", "status", "web"])?;
        if status["outcome"] == "rolled-back" { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(cluster.pids("web"), old, "the same process as before");
}

/// Every file of this name below the folder.
fn find(folder: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|found| found == name) {
            found.push(path);
        }
    }
    found
}
