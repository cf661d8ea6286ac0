//! What becomes of a workload's output where it is too much, where it cannot be written, and where it goes to a journal.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const ROOM: Duration = Duration::from_secs(60);
const ROLLED_BACK: i32 = 3;

fn one_node(env: &[(&str, String)]) -> Cluster {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Cluster::start_with(&ClusterOptions { nodes: 1, env, ..ClusterOptions::default() })
}

/// A service that runs a shell script, without ports and checks.
fn shell(name: &str, script: &str, replicas: u32) -> ServiceFile {
    ServiceFile::web(name, 1)
        .with_program("/bin/true", &format!("[\"/bin/sh\", \"-c\", '''\n{script}\n''']"))
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", &format!("replicas = {replicas}\n"))
        .with_section("stop", "timeout = \"2s\"\ndrain = \"0s\"\n")
}

/// The folders of the logs of a service's instances on any node of the cluster, each of its newest run.
fn log_folders(cluster: &Cluster, service: &str) -> Vec<PathBuf> {
    fn find(folder: &Path, service: &str, depth: usize, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_log = folder.ends_with("logs") && name.starts_with(&format!("{service}."));
            if is_log {
                let runs = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|run| run.path());
                found.extend(runs.max());
            } else if depth > 0 {
                find(&path, service, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    find(&cluster.folder().join("cluster"), service, 4, &mut found);
    found
}

fn events(cluster: &Cluster) -> Vec<Value> {
    let printed = cluster.baton(&["events", "--json", "--last", "1000"]).expect(0).stdout;
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn kinds(cluster: &Cluster) -> Vec<String> {
    events(cluster).iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[test]
fn lines_go_to_the_journal_with_their_fields_and_nodes_without_one_refuse() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("journal");
    let journal = UnixDatagram::bind(&socket).expect("a socket");
    journal.set_read_timeout(Some(ROOM)).expect("a timeout");
    let cluster = one_node(&[("BATON_JOURNAL_SOCKET", socket.display().to_string())]);
    let shown = cluster.baton(&["node", "show", "node-1"]).expect(0).stdout;
    assert!(shown.contains("own files, the system's journal"), "{shown}");

    let file = shell("told", "echo hello; echo oops >&2; exec sleep 86417", 1);
    let journaled = file.clone().with_section("logs", "journald = true\n");
    let _ = cluster.deploy(&journaled, "1.0-rc.1").expect(0);
    let mut entries: Vec<BTreeMap<String, String>> = Vec::new();
    for _ in 0..2 {
        let mut buffer = [0; 4096];
        let len = journal.recv(&mut buffer).expect("an entry");
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let fields = text.lines().filter_map(|line| line.split_once('='));
        entries.push(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    }
    entries.sort_by_key(|entry| entry["BATON_STREAM"].clone());
    let pid = cluster.pids("told")[0].1.to_string();
    for (entry, stream, priority, message) in
        [(&entries[0], "stderr", "5", "oops"), (&entries[1], "stdout", "6", "hello")]
    {
        let expect = [
            ("MESSAGE", message),
            ("PRIORITY", priority),
            ("BATON_STREAM", stream),
            ("SYSLOG_IDENTIFIER", "told"),
            ("SYSLOG_FACILITY", "3"),
            ("SYSLOG_PID", &pid),
            ("BATON_SERVICE", "told"),
            ("BATON_INSTANCE", "told.1"),
            ("BATON_NODE", "node-1"),
            ("BATON_RELEASE", "1"),
            ("BATON_VERSION", "1.0-rc.1"),
        ];
        let expect = expect.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(*entry, expect.into_iter().collect());
    }
    // They are in Baton's own log as ever.
    let own = cluster.baton(&["logs", "told"]).expect(0).stdout;
    assert!(own.contains("hello") && own.contains("oops"), "{own}");

    // The journal is gone: what is new is refused while what runs runs on; without the field it is no matter.
    drop(journal);
    std::fs::remove_file(&socket).expect("it was there");
    let ran = cluster.deploy(&journaled, "2.0");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, ROLLED_BACK, "{said}");
    assert!(said.contains("`logs.journald` needs systemd-journald"), "{said}");
    assert_eq!(cluster.pids("told")[0].1.to_string(), pid, "the running version is untouched");
    let _ = cluster.deploy(&file, "3.0").expect(0);
}

#[test]
fn dropped_lines_are_counted_shown_and_told_and_restarts_forget_none() {
    let cluster = one_node(&[]);
    let script = "until [ -e \"$GO\" ]; do sleep 0.05; done; seq 300000; exec sleep 86417";
    let go = cluster.folder().join("go");
    let file = shell("chatty", script, 1)
        .with_env("GO", &go.display().to_string())
        .with_section("logs", "max_size = \"64KiB\"\nkeep = 2\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    // A full file cannot be put away: as good as a full disk, and no root is needed for it.
    let folder = log_folders(&cluster, "chatty").pop().expect("its log");
    std::fs::create_dir_all(folder.join("current.1/in-the-way")).expect("a folder");
    std::fs::write(&go, "").expect("a file");

    let shown = || cluster.instances("chatty")[0]["observed"]["log_drops"].clone();
    // Small writes still fit into the full file: it may say already that lines are missing.
    let kept = || {
        let text = std::fs::read_to_string(folder.join("current")).expect("its log");
        text.lines().filter(|line| !line.contains(" F [baton] ")).count() as u64
    };
    let whole = |drops: &Value| drops["lines"].as_u64().is_some_and(|lines| lines + kept() == 300_000);
    wait::until("every line is kept or counted", ROOM, || {
        let drops = shown();
        if whole(&drops) { Ok(()) } else { Err(format!("{drops}, {} kept", kept())) }
    });
    let drops = shown();
    let text = cluster.baton(&["service", "show", "chatty"]).expect(0).stdout;
    assert!(
        text.contains(&format!("{} lines (", drops["lines"])) && text.contains("of its log were dropped"),
        "{text}"
    );
    wait::until("the event", ROOM, || {
        let told = kinds(&cluster).iter().filter(|kind| *kind == "log-dropped").count();
        if told == 1 { Ok(()) } else { Err(format!("told {told} times")) }
    });

    let agent = cluster.role_pid("node-1");
    cluster.kill(agent);
    cluster.kill(cluster.role_pid("coordinator"));
    wait::until("the same count from another agent, at another coordinator", ROOM, || {
        let back = cluster.role_pid_now("node-1").is_some_and(|pid| pid != agent);
        let ran = cluster.baton(&["service", "show", "chatty", "--json"]);
        let now: Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr)?;
        let now = &now["instances"][0]["observed"]["log_drops"];
        if back && *now == drops { Ok(()) } else { Err(now.to_string()) }
    });
    assert_eq!(kinds(&cluster).iter().filter(|kind| *kind == "log-dropped").count(), 1, "told once");
}

/// Bytes of the files of one run's log.
fn bytes_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_flood_slows_neither_its_neighbours_nor_the_agent() {
    const MAX_BYTES: u64 = 1 << 20;
    const KEEP: u64 = 3;
    /// A debug build of the agent at rest is a third of it.
    const AGENT_BYTES_MAX: u64 = 150 << 20;
    let cluster = one_node(&[]);
    let web = ServiceFile::web("neighbour", 8080).with_section("placement", "replicas = 1\n");
    let _ = cluster.deploy(&web, "1.0").expect(0);
    let flood = shell(
        "flood",
        "yes 'a line of some forty bytes, as is usual' & exec yes 'and on stderr another one' >&2",
        3,
    )
    .with_section("logs", "max_size = \"1MiB\"\nkeep = 3\n");
    let _ = cluster.deploy(&flood, "1.0").expect(0);
    let agent = cluster.role_pid("node-1");
    let before = events(&cluster).len();

    let target = format!("{}:8080", cluster.address(0)).parse().expect("an address");
    let load = Load::start(&Plan {
        targets: vec![target],
        connections: 2,
        rate: Some(40.0),
        requests_per_connection: 1,
    });
    // An operator reads along, and deploys the neighbour meanwhile.
    let said = std::fs::File::create(cluster.folder().join("followed")).expect("a file");
    let mut follower = cluster.command(&["logs", "flood", "-f"]).stdout(said).spawn().expect("baton starts");
    let _ = cluster.deploy(&web, "2.0").expect(0);
    wait::until("three lines of each on stderr", ROOM, || {
        let picked = cluster.baton(&["logs", "flood", "--stream", "stderr", "--tail", "3"]).expect(0).stdout;
        let right = picked.lines().filter(|line| line.ends_with("and on stderr another one")).count();
        if right == 9 { Ok(()) } else { Err(picked) }
    });
    let folders = log_folders(&cluster, "flood");
    assert_eq!(folders.len(), 3);
    // Each is rotated again and again meanwhile: the floods are held by nobody.
    for folder in &folders {
        let written = || {
            folder.join("current.2").metadata().and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        for _ in 0..3 {
            let last = written();
            wait::until("a rotation", ROOM, || if written() > last { Ok(()) } else { Err("none".into()) });
            let bytes = bytes_of(folder);
            // A file may be listed under its old and its new name.
            assert!(bytes <= MAX_BYTES * (KEEP + 1), "{bytes} bytes in {}", folder.display());
        }
    }
    wait::until(
        "300 requests",
        ROOM,
        || if load.sent() > 300 { Ok(()) } else { Err(load.sent().to_string()) },
    );
    follower.kill().expect("it runs");
    follower.wait().expect("it ends");

    let counted = load.stop();
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
    println!(
        "beside three floods: {} requests answered, p50 {:.1} ms, p99 {:.1} ms",
        counted.sent,
        counted.quantile_ms(0.5),
        counted.quantile_ms(0.99)
    );
    assert_eq!(cluster.role_pid("node-1"), agent, "the agent was not replaced");
    let lost: Vec<Value> = events(&cluster)
        .into_iter()
        .skip(before)
        .filter(|event| matches!(event["kind"].as_str(), Some("node-silent" | "node-back")))
        .collect();
    assert!(lost.is_empty(), "the agent was heard all the time: {lost:?}");
    let node = cluster.json(&["node", "show", "node-1"]);
    let bytes = node["metrics"]["agent_memory_bytes"].as_u64().expect("a figure");
    assert!(bytes > 0 && bytes < AGENT_BYTES_MAX, "the agent has {bytes} bytes");
    // One check may be late on a machine that is busy.
    let instances = wait::until("all to be ready", ROOM, || {
        let all = [cluster.instances("flood"), cluster.instances("neighbour")].concat();
        let ready = all.iter().all(|it| it["observed"]["state"] == "ready");
        if ready { Ok(all) } else { Err(format!("{all:?}")) }
    });
    for instance in instances {
        let observed = &instance["observed"];
        assert_eq!(observed["restarts"], 0, "{instance}");
        assert_eq!(observed["log_drops"]["lines"], 0, "what a bound takes away is no drop");
    }
}
