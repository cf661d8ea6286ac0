//! Workloads that behave badly, under a real agent.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::time::{Duration, Instant};

const ROOM: Duration = Duration::from_secs(60);
const FAILED: i32 = 4;
const PAUSED: i32 = 5;

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

fn single(file: ServiceFile) -> ServiceFile {
    file.with_section("placement", "replicas = 1\n")
}

/// The ids of processes of this cluster's workloads whose command line holds `text`.
fn processes(cluster: &Cluster, text: &str) -> Vec<u64> {
    let folder = cluster.folder().display().to_string();
    let holds = |pid: u64, name: &str, text: &str| {
        std::fs::read(format!("/proc/{pid}/{name}"))
            .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ").contains(text))
    };
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(*pid, "cmdline", text) && holds(*pid, "environ", &folder))
        .collect()
}

#[test]
fn a_workload_that_ignores_sigterm_is_killed_at_its_deadline() {
    let cluster = one_node();
    let file = single(ServiceFile::web("deaf", 8080))
        .with_env("BEHAVIOUR", "deaf")
        .with_section("stop", "timeout = \"1s\"\ndrain = \"0s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let (_, pid) = cluster.pids("deaf").swap_remove(0);
    let begun = Instant::now();
    let _ = cluster.baton(&["service", "rm", "deaf", "--yes"]).expect(0);
    wait::until("its end", ROOM, || if wait::is_alive(pid) { Err("alive".into()) } else { Ok(()) });
    assert!(begun.elapsed() >= Duration::from_millis(900), "it was given its time");
}

#[test]
fn children_and_daemons_of_a_workload_end_with_it() {
    let cluster = one_node();
    let file = single(ServiceFile::web("forks", 8080))
        .with_env("BEHAVIOUR", "forks")
        .with_section("stop", "timeout = \"1s\"\ndrain = \"0s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    wait::until("its children", ROOM, || match processes(&cluster, "sleep 8641").len() {
        3.. => Ok(()),
        few => Err(few.to_string()),
    });
    let _ = cluster.baton(&["service", "rm", "forks", "--yes"]).expect(0);
    wait::until("no child", ROOM, || match processes(&cluster, "sleep 8641") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}

#[test]
fn a_first_release_that_crashes_is_retried_and_never_silently_dead() {
    let cluster = one_node();
    let file = single(ServiceFile::web("crash", 8080)).with_env("BEHAVIOUR", "crash").with_section(
        "rollout",
        "min_healthy = \"500ms\"\nhealthy_deadline = \"4s\"\nprogress_deadline = \"8s\"\n",
    );
    let ran = cluster.deploy(&file, "1.0");
    assert!([FAILED, PAUSED].contains(&ran.code), "{} {}", ran.code, ran.stderr);
    let restarts = || cluster.instances("crash")[0]["observed"]["restarts"].as_u64().unwrap_or(0);
    let then = restarts();
    wait::until("another try", ROOM, || if restarts() > then { Ok(()) } else { Err(then.to_string()) });
    let logs = cluster.baton(&["logs", "crash", "--tail", "5"]).expect(0);
    assert!(logs.stdout.contains("can not start: no configuration"), "{}", logs.stdout);
}

#[test]
fn a_hundred_megabytes_of_logs_are_bounded_and_the_tail_is_there() {
    let cluster = one_node();
    let script = r#"["/bin/sh", "-c", "seq -f 'line %.0f of a long story that nobody reads to the end' 1 1900000; echo done; exec sleep 86415"]"#;
    let file = single(ServiceFile::web("chatty", 8080))
        .with_program("/bin/true", script)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("logs", "max_size = \"1MiB\"\nkeep = 3\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    wait::until("the last line", 4 * ROOM, || {
        let said = cluster.baton(&["logs", "chatty", "--tail", "1"]).expect(0).stdout;
        if said.contains("done") { Ok(()) } else { Err(said) }
    });
    let bytes = std::process::Command::new("du")
        .args(["-sb", "--exclude=artifacts"])
        .arg(cluster.folder().join("cluster"))
        .output()
        .expect("du");
    let bytes: u64 = String::from_utf8_lossy(&bytes.stdout)
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(bytes < 60 << 20, "{bytes} bytes are kept of 100 MB of logs");
}

#[test]
fn a_dynamic_port_and_a_fixed_port_are_swapped() {
    let cluster = one_node();
    for (name, ports) in [
        ("dyn", "[ports.http]\nkind = \"dynamic\"\n"),
        ("fix", "[ports.http]\nkind = \"fixed\"\nport = 8099\n"),
    ] {
        let file = single(ServiceFile::web(name, 1)).with_ports(ports).with_env("NODE_ADDRESS", "${NODE_ADDRESS}").with_section(
            "rollout",
            "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"15s\"\nprogress_deadline = \"60s\"\n",
        )
                .with_section("placement", "replicas = 1
min_available = 0
");
        let _ = cluster.deploy(&file, "1.0").expect(0);
        let _ = cluster.deploy(&file, "2.0").expect(0);
        let bad = cluster.deploy(&file.with_env("BEHAVIOUR", "sick"), "3.0");
        assert_eq!(bad.code, 3, "{}", bad.stderr);
        wait::until("2.0 to be ready", ROOM, || {
            let all = cluster.instances(name);
            let back = all[0]["wanted_version"] == "2.0" && all[0]["observed"]["state"] == "ready";
            if back { Ok(()) } else { Err(format!("{all:?}")) }
        });
    }
}
