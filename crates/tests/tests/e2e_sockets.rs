//! Sockets of every kind on a real node: handed over, swapped under load, adopted, and removed.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, fixture, local, wait};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const ROLLED_BACK: i32 = 3;

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

/// A service with a socket of each kind, and the path of its Unix socket.
fn mixture(cluster: &Cluster) -> (ServiceFile, PathBuf) {
    let path = cluster.folder().join("run/shop.sock");
    let ports = format!(
        "[ports.web]\nkind = \"socket\"\nport = 8080\n\
         [ports.beacon]\nkind = \"socket\"\nport = 8080\nprotocol = \"udp\"\n\
         [ports.admin]\nkind = \"socket\"\nport = 8081\n\
         [ports.local]\nkind = \"socket\"\npath = \"{}\"\nmode = \"0600\"\n",
        path.display()
    );
    let file = ServiceFile::web("shop", 8080)
        .with_program(fixture("sockets"), r#"["./server.py"]"#)
        .with_ports(&ports)
        .with_section("placement", "replicas = 1\n")
        .with_section(
            "checks.readiness",
            "kind = \"http\"\nport = \"local\"\ninterval = \"500ms\"\ntimeout = \"490ms\"\n",
        );
    (file, path)
}

fn address(cluster: &Cluster, port: u16) -> SocketAddr {
    format!("{}:{port}", cluster.address(0)).parse().expect("an address")
}

/// A load on each kind of socket of [`mixture`].
struct Loads {
    web: Load,
    admin: Load,
    local: local::Running,
    beacon: local::Running,
}

/// What was lost of each, and the versions that answered.
#[derive(Debug)]
struct Lost {
    failures: Vec<String>,
    versions: [Vec<String>; 4],
}

impl Loads {
    fn start(cluster: &Cluster, path: &Path) -> Self {
        let tcp = |port| {
            Load::start(&Plan {
                targets: vec![address(cluster, port)],
                connections: 6,
                rate: Some(200.0),
                requests_per_connection: 5,
            })
        };
        Self {
            web: tcp(8080),
            admin: tcp(8081),
            local: local::ask(path, 3),
            beacon: local::echo(address(cluster, 8080), 1000),
        }
    }

    /// Until `version` has answered on each of them.
    fn await_version(&self, version: &str) {
        self.web.await_version(version);
        self.admin.await_version(version);
        self.local.await_version(version);
        self.beacon.await_version(version);
    }

    fn stop(self) -> Lost {
        let (local, beacon) = (self.local.stop(), self.beacon.stop());
        let (web, admin) = (self.web.stop(), self.admin.stop());
        println!(
            "web {} sent {} lost, admin {}/{}, local {}/{}, beacon {}/{}",
            web.sent,
            web.failed,
            admin.sent,
            admin.failed,
            local.sent,
            local.failed,
            beacon.sent,
            beacon.failed
        );
        let versions = [
            web.versions.into_keys().collect(),
            admin.versions.into_keys().collect(),
            local.versions.into_keys().collect(),
            beacon.versions.into_keys().collect(),
        ];
        let failures = [web.failures, admin.failures, local.failures, beacon.failures].concat();
        Lost { failures, versions }
    }
}

#[test]
fn sockets_of_all_kinds_are_swapped_together_and_lose_nothing() {
    let cluster = one_node();
    let (file, path) = mixture(&cluster);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let body = local::request(&path).expect("the Unix socket answers");
    assert!(body.contains("names=admin:beacon:local:web"), "in the order of the names: {body}");
    assert!(body.contains("PORT_ADMIN=8081 PORT_BEACON=8080 PORT_WEB=8080"), "{body}");
    assert!(body.contains(&format!("SOCKET_LOCAL={}", path.display())), "{body}");

    let loads = Loads::start(&cluster, &path);
    loads.await_version("1.0");
    let _ = cluster.deploy(&file, "2.0").expect(0);
    loads.await_version("2.0");
    let _ = cluster.deploy(&file.clone().with_env("BEHAVIOUR", "sick"), "3.0").expect(ROLLED_BACK);
    let _ = cluster.deploy(&file, "4.0").expect(0);
    loads.await_version("4.0");
    let lost = loads.stop();
    assert_eq!(lost.failures, Vec::<String>::new());
    for versions in &lost.versions {
        assert_eq!(versions, &["1.0", "2.0", "4.0"], "the sick version answered, or one did not: {lost:?}");
    }

    let names = || -> Vec<String> {
        let folder = std::fs::read_dir(path.parent().expect("a folder")).expect("it is there");
        let mut names: Vec<_> =
            folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    };
    wait::until("the names of the old runs to be gone", ROOM, || match names() {
        left if left.len() == 2 => Ok(()),
        left => Err(format!("{left:?}")),
    });
    let _ = cluster.baton(&["service", "rm", "shop", "--yes", "--wait", "60s"]).expect(0);
    wait::until("the path to be gone", ROOM, || match names() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn an_agent_that_dies_in_a_swap_loses_nothing_of_any_kind() {
    let cluster = one_node();
    let (file, path) = mixture(&cluster);
    // Not ready as long as it is held, so that the agent surely dies while both runs have sockets.
    let hold = cluster.folder().join("hold");
    let slow = format!("while [ -e {} ]; do sleep 0.05; done; exec ./server.py", hold.display());
    let file = file.with_program(fixture("sockets"), &format!(r#"["/bin/sh", "-c", "{slow}"]"#));
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let loads = Loads::start(&cluster, &path);
    loads.await_version("1.0");
    std::fs::write(&hold, "").expect("the test's folder can be written");
    let written = cluster.write("two.toml", &file.text());
    let _ = cluster.baton(&["deploy", &written, "--version", "2.0"]).expect(0);
    wait::until("two runs", ROOM, || {
        let events = cluster.baton(&["events", "--json"]).expect(0).stdout;
        let begun = events.lines().any(|line| line.contains("swap-started"));
        let names = std::fs::read_dir(path.parent().expect("a folder")).map_or(0, Iterator::count);
        if begun && names == 3 { Ok(()) } else { Err(format!("{names} names")) }
    });
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    let agent = cluster.role_pid(&node);
    cluster.kill(agent);
    std::fs::remove_file(&hold).expect("it was just made");
    wait::until("2.0 to be ready", ROOM, || {
        let seen = cluster.instances("shop");
        let ready = seen.iter().all(|it| {
            it["wanted_version"] == "2.0"
                && it["observed"]["state"] == "ready"
                && it["observed"]["release"] == it["wanted_release"]
        });
        if ready { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    loads.await_version("2.0");
    let lost = loads.stop();
    assert_eq!(lost.failures, Vec::<String>::new());
    for versions in &lost.versions {
        assert_eq!(versions, &["1.0", "2.0"]);
    }
}

#[test]
fn the_death_of_agent_and_shim_refuses_nobody_on_any_socket() {
    let cluster = one_node();
    let (file, path) = mixture(&cluster);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let loads = Loads::start(&cluster, &path);
    loads.await_version("1.0");
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    let (_, workload) = cluster.pids("shop").swap_remove(0);
    let (agent, shim) = (cluster.role_pid(&node), parent_of(workload));
    cluster.kill(agent);
    cluster.kill(shim);
    let next = wait::until("another process", ROOM, || match cluster.pids("shop").first() {
        Some((_, pid)) if *pid != workload && wait::is_alive(*pid) => Ok(*pid),
        other => Err(format!("{other:?}")),
    });
    wait::until("an answer of the new process", ROOM, || match local::request(&path) {
        Ok(body) if body.contains(&format!("pid={next} ")) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let lost = loads.stop();
    // What the old process had taken and not answered is lost with it; nobody finds a port or a path without a socket.
    let refused: Vec<_> = lost.failures.iter().filter(|what| what.contains("refused")).collect();
    assert_eq!(refused, Vec::<&String>::new(), "{lost:?}");
}

fn parent_of(pid: u64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(") ").expect("a stat line");
    rest.split(' ').nth(1).and_then(|parent| parent.parse().ok()).expect("a parent")
}

#[test]
fn a_path_that_is_left_is_replaced_and_one_that_is_used_is_not() {
    let cluster = one_node();
    let (file, path) = mixture(&cluster);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
    // What a machine that lost its power leaves: a socket on which nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let _ = cluster.deploy(&file, "1.0").expect(0);
    assert!(local::request(&path).expect("it answers").contains("version=1.0"));

    // Another service with the same path, and one with the same UDP port, find no node.
    for (name, ports) in [
        ("thief", format!("[ports.x]\nkind = \"socket\"\npath = \"{}\"\n", path.display())),
        ("udp", "[ports.x]\nkind = \"socket\"\nport = 8080\nprotocol = \"udp\"\n".to_owned()),
    ] {
        let other = ServiceFile::web(name, 1)
            .with_program(fixture("sockets"), r#"["./server.py"]"#)
            .with_ports(&ports)
            .with_section("checks.readiness", "")
            .with_section("placement", "replicas = 1\n");
        let written = cluster.write(&format!("{name}.toml"), &other.text());
        let _ = cluster.baton(&["deploy", &written, "--version", "1.0"]).expect(0);
        wait::until("the reason", ROOM, || {
            let why = cluster.baton(&["explain", name]).expect(0).stdout;
            if why.contains("taken") { Ok(()) } else { Err(why) }
        });
    }

    // Somebody outside of Baton has the path: it is left alone, and the reason says so.
    let foreign = cluster.folder().join("foreign.sock");
    let listener = std::os::unix::net::UnixListener::bind(&foreign).expect("a socket");
    let other = ServiceFile::web("late", 1)
        .with_program(fixture("sockets"), r#"["./server.py"]"#)
        .with_ports(&format!("[ports.x]\nkind = \"socket\"\npath = \"{}\"\n", foreign.display()))
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 1\n");
    let written = cluster.write("late.toml", &other.text());
    let _ = cluster.baton(&["deploy", &written, "--version", "1.0"]).expect(0);
    wait::until("the reason", ROOM, || {
        let seen = cluster.instances("late");
        let told = seen.iter().any(|it| {
            it["observed"]["reason"].as_str().is_some_and(|why| why.contains("foreign.sock is in use"))
        });
        if told { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert!(std::os::unix::net::UnixStream::connect(&foreign).is_ok(), "it is still the foreign one");
    drop(listener);
}
