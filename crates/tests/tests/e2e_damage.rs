//! Bytes that change on a node's disk are never executed: whoever is there to notice, and however they changed.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);

/// What happens to a file's bytes.
type Damage = fn(&mut Vec<u8>);
/// How a file comes to be damaged. Its mode and name stay; only the first leaves its length.
const DAMAGES: [(&str, Damage); 2] = [
    ("one bit", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }),
    ("half of it gone", |bytes| bytes.truncate(bytes.len() / 2)),
];

#[test]
fn damage_and_a_crash_with_the_agent_there() {
    let cluster = one_node();
    let (program, whole) = program(&cluster);
    for (what, damage) in DAMAGES {
        let pid = pid(&cluster);
        change(&program, damage);
        cluster.kill(pid);
        let new = served_anew(&cluster, what, pid);
        assert_eq!(std::fs::read(&program).expect("the program"), whole, "{what}: fetched anew");
        told_of_damage(&cluster, what);
        assert!(wait::is_alive(new));
    }
}

#[test]
fn damage_and_a_crash_while_the_agent_is_away() {
    let cluster = one_node();
    let (program, whole) = program(&cluster);
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    for (what, damage) in DAMAGES {
        let pid = pid(&cluster);
        let shim = parent(pid);
        let agent = Stopped::new(cluster.role_pid(&node));
        change(&program, damage);
        cluster.kill(pid);
        // The shim has seen the end, and has nobody to ask.
        wait::until("the end of the workload", ROOM, || {
            if wait::is_alive(pid) { Err("alive".into()) } else { Ok(()) }
        });
        let until = std::time::Instant::now() + Duration::from_secs(1);
        while std::time::Instant::now() < until {
            assert_eq!(children(shim), Vec::<u64>::new(), "{what}: executed unchecked");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(agent);
        served_anew(&cluster, what, pid);
        assert_eq!(std::fs::read(&program).expect("the program"), whole, "{what}: fetched anew");
    }
    told_of_damage(&cluster, "both");
}

fn one_node() -> Cluster {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let file = ServiceFile::web("web", 8194).with_section("placement", "replicas = 1\n");
    let _ = cluster.deploy(&file, "1").expect(0);
    cluster
}

/// The program as it lies on the node, and what is in it.
fn program(cluster: &Cluster) -> (PathBuf, Vec<u8>) {
    let node = PathBuf::from(cluster.ready["nodes"][0]["dir"].as_str().expect("its folder"));
    let status = cluster.json(&["service", "show", "web"]);
    let digest = status["releases"][0]["artifact"]["digest"].as_str().expect("a digest");
    let program = node.join("artifacts").join(digest).join("tree/server.py");
    let whole = std::fs::read(&program).expect("the unpacked program");
    (program, whole)
}

fn pid(cluster: &Cluster) -> u64 {
    cluster.pids("web")[0].1
}

fn change(path: &Path, damage: fn(&mut Vec<u8>)) {
    let mode = std::fs::metadata(path).expect("the file is there").permissions();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let mut bytes = std::fs::read(path).expect("it can be read");
    damage(&mut bytes);
    std::fs::write(path, bytes).expect("it can be written");
    std::fs::set_permissions(path, mode).expect("it is ours");
}

/// Waits until another process is ready; it was not started from damaged bytes, so it never crashed.
fn served_anew(cluster: &Cluster, what: &str, old: u64) -> u64 {
    wait::until(&format!("ready again after {what}"), ROOM, || {
        let seen = &cluster.instances("web")[0]["observed"];
        match seen["pid"].as_u64() {
            Some(pid) if pid != old && seen["state"] == "ready" => Ok(pid),
            Some(_) | None => Err(seen.to_string()),
        }
    })
}

fn told_of_damage(cluster: &Cluster, what: &str) {
    wait::until(&format!("an event of {what}"), ROOM, || {
        let events = cluster.baton(&["events", "--json"]).expect(0).stdout;
        let has = |kind: &str| events.lines().any(|line| line.contains(kind));
        let all = has("server.py") && has("artifact-damaged") && has("instance-mended");
        if all { Ok(()) } else { Err(events) }
    });
}

fn parent(pid: u64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a stat line");
    rest.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a parent")
}

/// Those that run: one that has ended and is not reaped yet executes nothing.
fn children(pid: u64) -> Vec<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|child| wait::is_alive(*child))
        .collect()
}

/// A process that stands still until this is dropped.
struct Stopped(nix::unistd::Pid);

impl Stopped {
    fn new(pid: u64) -> Self {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("it is there");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGCONT);
    }
}
