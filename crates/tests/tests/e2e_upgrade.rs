//! The agents' own program is upgraded on a real cluster: good programs, bad ones, and kills in the middle. A "new
//! version" is the program itself with some bytes behind it, which ELF does not mind.

use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, Ran, ServiceFile, baton_program, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROOM: Duration = Duration::from_secs(90);
/// How long a new program has here to come back.
const WITHIN: &str = "20s";
const PAUSED: i32 = 5;

fn cluster(nodes: u32) -> Cluster {
    let env = vec![("BATON_UPGRADE_WITHIN".to_owned(), WITHIN.to_owned())];
    Cluster::start_with(&ClusterOptions { nodes, env, ..ClusterOptions::default() })
}

/// Three instances, and requests to all of them.
fn loaded(cluster: &Cluster) -> (Vec<(String, u64)>, Load) {
    let _ = cluster.deploy(&ServiceFile::web("web", 8080), "1.0").expect(0);
    let targets =
        (0..3).map(|n| format!("{}:8080", cluster.address(n)).parse().expect("an address")).collect();
    let plan = Plan { targets, connections: 6, rate: Some(100.0), requests_per_connection: 5 };
    (cluster.pids("web"), Load::start(&plan))
}

fn nothing_was_touched(cluster: &Cluster, before: &[(String, u64)], load: Load) {
    assert_eq!(cluster.pids("web"), before, "the same processes run on");
    wait::until("a hundred requests", ROOM, || match load.sent() {
        sent if sent > 100 => Ok(()),
        sent => Err(sent.to_string()),
    });
    let Counted { sent, failed, failures, .. } = load.stop();
    assert_eq!(failed, 0, "{failed} of {sent}: {failures:#?}");
}

/// A copy of a program with another end.
fn program(cluster: &Cluster, name: &str, of: &Path, end: &str) -> PathBuf {
    let path = cluster.folder().join(name);
    let mut bytes = std::fs::read(of).expect("a program");
    bytes.extend(end.as_bytes());
    std::fs::write(&path, bytes).expect("a file of the test");
    path
}

fn upgrade(cluster: &Cluster, version: &str, program: &Path, more: &[&str]) -> Ran {
    let program = program.display().to_string();
    let mut args = vec!["node", "upgrade", "--version", version, "--program", &program];
    args.extend(["--watch", "--timeout", "90s", "--json"]);
    args.extend(more);
    cluster.baton(&args)
}

fn state<'a>(upgrade: &'a Value, node: &str) -> &'a str {
    upgrade["nodes"][node]["state"].as_str().unwrap_or_default()
}

fn versions(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.json(&["node", "ls"]);
    let nodes = nodes.as_array().expect("a list").iter();
    nodes.map(|node| node["facts"]["agent_version"].as_str().unwrap_or_default().to_owned()).collect()
}

fn await_connected(cluster: &Cluster, count: usize) {
    wait::until("every node to be connected", ROOM, || {
        let nodes = cluster.json(&["node", "ls"]);
        let connected = nodes.as_array().into_iter().flatten().filter(|node| node["connected"] == true);
        if connected.count() == count { Ok(()) } else { Err(nodes.to_string()) }
    });
}

/// The events of a kind, oldest first.
fn events(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let listed = cluster.baton(&["events", "--json", "--last", "1000"]).expect(0).stdout;
    let events = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    events.filter(|event| event["kind"] == kind).collect()
}

/// Events of agents come a moment after what they tell.
fn await_events(cluster: &Cluster, kind: &str, count: usize) -> Vec<Value> {
    wait::until(kind, ROOM, || match events(cluster, kind) {
        found if found.len() == count => Ok(()),
        other => Err(format!("{} of {count}: {other:#?}", other.len())),
    });
    events(cluster, kind)
}

fn broken() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_broken-agent"))
}

#[test]
fn a_fleet_is_upgraded_under_load_and_no_workload_notices() {
    let cluster = cluster(3);
    let (before, load) = loaded(&cluster);
    let agents: Vec<u64> = ["node-1", "node-2", "node-3"].map(|node| cluster.role_pid(node)).into();
    let second = program(&cluster, "second", baton_program(), "second");
    let done = upgrade(&cluster, "2.0", &second, &["--batch", "50%"]).expect(0).json();
    assert!(["node-1", "node-2", "node-3"].iter().all(|node| state(&done, node) == "done"), "{done}");
    assert_eq!(versions(&cluster), ["2.0", "2.0", "2.0"]);
    let same: Vec<u64> = ["node-1", "node-2", "node-3"].map(|node| cluster.role_pid(node)).into();
    assert_eq!(same, agents, "the agents are the same processes");

    // A killed agent comes back as the new program: the host starts its own, which goes on as that one.
    cluster.kill(agents[0]);
    wait::until("another agent", ROOM, || match cluster.role_pid_now("node-1") {
        Some(pid) if pid != agents[0] => Ok(()),
        pid => Err(format!("{pid:?}")),
    });
    await_connected(&cluster, 3);
    wait::until("the version", ROOM, || match versions(&cluster) {
        all if all == ["2.0", "2.0", "2.0"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // And what is deployed from now on is started by it.
    let _ = cluster.deploy(&ServiceFile::web("later", 8081), "1.0").expect(0);
    let third = program(&cluster, "third", baton_program(), "the third");
    let _ = upgrade(&cluster, "3.0", &third, &["--batch", "100%"]).expect(0);
    assert_eq!(versions(&cluster), ["3.0", "3.0", "3.0"]);
    nothing_was_touched(&cluster, &before, load);
    // The agents' own events, told by the process before and the one after, and what the coordinator makes of them.
    for kind in ["agent-upgrade-started", "agent-upgrade-kept", "agent-upgraded"] {
        await_events(&cluster, kind, 6);
    }
    assert_eq!(events(&cluster, "agent-upgrade-reverted"), Vec::<Value>::new());
}

#[test]
fn a_program_that_does_not_come_back_gives_way_to_the_old_one() {
    let cluster = cluster(3);
    let (before, load) = loaded(&cluster);
    let bad = [
        ("2.0", "exit", "ended before it had reached"),
        ("3.0", "hang", "did not reach the coordinator within 20 s"),
    ];
    for (tried, (version, end, reason)) in bad.into_iter().enumerate() {
        let bad = program(&cluster, end, broken(), end);
        let begun = Instant::now();
        let paused = upgrade(&cluster, version, &bad, &[]).expect(PAUSED).json();
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the old one was long in coming: {:?}",
            begun.elapsed()
        );
        assert_eq!(state(&paused, "node-1"), "failed", "{paused}");
        assert!(paused["paused"].as_str().is_some_and(|why| why.contains(reason)), "{paused}");
        assert_eq!([state(&paused, "node-2"), state(&paused, "node-3")], ["waiting", "waiting"]);
        await_connected(&cluster, 3);
        assert!(versions(&cluster).iter().all(|is| is != version), "{:?}", versions(&cluster));
        let reverted = await_events(&cluster, "agent-upgrade-reverted", tried + 1);
        let (event, message) = (&reverted[tried], reverted[tried]["message"].as_str().unwrap_or_default());
        assert!(message.contains(version) && message.contains(reason), "{event}");
        assert_eq!([&event["node"], &event["fields"]["version"]], ["node-1", version], "{event}");
        assert_eq!(events(&cluster, "agent-upgrade-started").len(), tried + 1);
    }
    // A good one is taken afterwards, by the node too that refused the bad ones.
    let good = program(&cluster, "good", baton_program(), "good");
    let _ = upgrade(&cluster, "4.0", &good, &["--batch", "3"]).expect(0);
    // From an upgraded one too it is the one before that returns, not the package.
    let bad = program(&cluster, "bad", broken(), "exit again");
    let _ = upgrade(&cluster, "5.0", &bad, &[]).expect(PAUSED);
    await_connected(&cluster, 3);
    assert_eq!(versions(&cluster), ["4.0", "4.0", "4.0"]);
    nothing_was_touched(&cluster, &before, load);
}

#[test]
fn what_is_no_agent_of_this_machine_is_refused_and_the_agent_stays() {
    let cluster = cluster(1);
    let agent = cluster.role_pid("node-1");
    let mut other = std::fs::read(broken()).expect("a program");
    // `e_machine` of elf(5): AArch64, or x86-64 on a machine of that kind.
    other[18] = if other[18] == 0xb7 { 0x3e } else { 0xb7 };
    let other_machine = cluster.folder().join("other");
    std::fs::write(&other_machine, other).expect("a file of the test");
    for (program, reason) in [
        (Path::new("/bin/false"), "fails (exit status: 1)"),
        (other_machine.as_path(), "made for another machine"),
    ] {
        let paused = upgrade(&cluster, "2.0", program, &[]).expect(PAUSED).json();
        assert!(paused["paused"].as_str().is_some_and(|why| why.contains(reason)), "{paused}");
    }
    assert_eq!(cluster.role_pid("node-1"), agent);
    await_connected(&cluster, 1);
    await_events(&cluster, "agent-upgrade-refused", 2);
}

#[test]
fn an_upgrade_goes_on_through_kills_of_the_coordinator_and_of_agents() {
    let cluster = cluster(3);
    let (before, load) = loaded(&cluster);
    let second = program(&cluster, "second", baton_program(), "second");
    let file = second.display().to_string();
    let args = ["node", "upgrade", "--version", "2.0", "--program", &file];
    // One that operators have set aside is not asked, so that its agent surely dies before its turn.
    let _ = cluster.baton(&["node", "cordon", "node-3"]).expect(0);
    let _ = cluster.baton(&args).expect(0);
    let first_done = || {
        let upgrade = cluster.json(&["node", "upgrade", "--status"]);
        if state(&upgrade, "node-1") == "done" { Ok(()) } else { Err(upgrade.to_string()) }
    };
    wait::until("the first node", ROOM, first_done);
    // One that has not been asked yet, and the one that decides.
    cluster.kill(cluster.role_pid("node-3"));
    cluster.kill(cluster.role_pid("coordinator"));
    wait::until("a coordinator that answers", ROOM, || {
        match cluster.baton(&["node", "uncordon", "node-3"]) {
            ran if ran.code == 0 => Ok(()),
            ran => Err(ran.stderr),
        }
    });
    wait::until("the rest", ROOM, || {
        let ran = cluster.baton(&["node", "upgrade", "--status", "--json"]);
        let done =
            ran.code == 0 && ["node-2", "node-3"].iter().all(|node| state(&ran.json(), node) == "done");
        if done { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    assert_eq!(versions(&cluster), ["2.0", "2.0", "2.0"]);
    // A kill in a trial is a failed trial: the program before is back, and says so.
    let hang = program(&cluster, "hang", broken(), "hang");
    let file = hang.display().to_string();
    let _ = cluster.baton(&["node", "upgrade", "--version", "3.0", "--program", &file]).expect(0);
    let agent = cluster.role_pid("node-1");
    wait::until("the trial", ROOM, || {
        let runs = std::fs::read_link(format!("/proc/{agent}/exe")).unwrap_or_default();
        let digest_of_hang = std::fs::read(&runs).is_ok_and(|bytes| bytes.ends_with(b"hang"));
        if digest_of_hang { Ok(()) } else { Err(runs.display().to_string()) }
    });
    cluster.kill(agent);
    wait::until("the pause", ROOM, || {
        let upgrade = stand(&cluster);
        if upgrade["paused"].is_string() { Ok(()) } else { Err(upgrade.to_string()) }
    });
    await_connected(&cluster, 3);
    assert_eq!(versions(&cluster), ["2.0", "2.0", "2.0"]);
    nothing_was_touched(&cluster, &before, load);
}

/// How the latest upgrade stands, whatever the exit code says of it.
fn stand(cluster: &Cluster) -> Value {
    cluster.baton(&["node", "upgrade", "--status", "--json"]).json()
}

/// An agent that the test started itself: nobody starts it again.
struct Alone {
    child: Child,
    dir: PathBuf,
}

impl Alone {
    /// The process that has the state directory now, if it lives.
    fn now(&self) -> Option<u64> {
        let pid = std::fs::read_to_string(self.dir.join("lock")).ok()?.trim().parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains(self.dir.to_str()?).then_some(pid)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(pid) = self.now().and_then(|pid| i32::try_from(pid).ok()) {
            // Proven by its command line, which names this test's own folder.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

#[test]
fn the_old_program_returns_by_itself_where_nobody_starts_agents() {
    let cluster = cluster(1);
    let dir = cluster.folder().join("alone");
    let token =
        cluster.json(&["node", "token", "--name", "alone"])["token"].as_str().expect("a token").to_owned();
    let coordinator = cluster.ready["coordinator"]["address"].as_str().expect("an address").to_owned();
    let own = dir.display().to_string();
    let join = ["agent", "join", "--coordinator", &coordinator, "--token", &token, "--name", "alone"];
    let _ =
        cluster.baton(&[join.as_slice(), &["--address", "127.77.250.250", "--dir", &own]].concat()).expect(0);
    let child = Command::new(baton_program())
        .args(["agent", "run", "--upgrade-within", "2s", "--dir", &own])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("an agent");
    let alone = Alone { child, dir };
    await_connected(&cluster, 2);
    let first = alone.now();
    let bad = program(&cluster, "hang", broken(), "hang");
    let paused = upgrade(&cluster, "2.0", &bad, &["--node", "alone"]).expect(PAUSED).json();
    assert!(paused["paused"].as_str().is_some_and(|why| why.contains("within 2 s")), "{paused}");
    await_connected(&cluster, 2);
    assert_ne!(alone.now(), first, "it is another process: the guardian");
}
