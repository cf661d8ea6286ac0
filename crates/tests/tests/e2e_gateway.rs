//! Gateways on a real cluster: rollouts that wait for what they acknowledge, and gateways that go on without a
//! coordinator, are cut off, restarted, and upgraded in place.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);

fn cluster(gateways: u32) -> Cluster {
    let extra = vec!["--gateways".to_owned(), gateways.to_string()];
    Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() })
}

/// Three instances, each run on a port of its own, behind the gateways.
fn routed() -> ServiceFile {
    ServiceFile::web("web", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("route", "path = \"/\"\n")
}

fn steady(targets: Vec<SocketAddr>) -> Load {
    Load::start(&Plan { targets, connections: 8, rate: Some(200.0), requests_per_connection: 50 })
}

fn signal(pid: u64, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("the process is there");
}

#[test]
fn a_rolling_deploy_behind_gateways_loses_nothing() {
    let cluster = cluster(2);
    let file = routed();
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let route = cluster.routed("web");
    assert_eq!(route["upstreams"].as_object().map(serde_json::Map::len), Some(3), "{route}");
    let before = cluster.pids("web");

    let load = steady(cluster.gateways());
    load.await_version("1.0");
    let _ = cluster.deploy(&file, "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();

    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    assert!(counted.versions["1.0"] > 0 && counted.versions["2.0"] > 0, "{:?}", counted.versions);
    let after = cluster.routed("web");
    let upstreams = after["upstreams"].as_object().expect("upstreams");
    assert!(upstreams.values().all(|it| it["release"] == 2), "{upstreams:?}");
    wait::until("the end of the old processes", ROOM, || {
        let left: Vec<_> = before.iter().filter(|(_, pid)| wait::is_alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_gateway_serves_without_its_coordinator_even_after_a_restart() {
    let cluster = cluster(1);
    let _ = cluster.deploy(&routed(), "1.0").expect(0);
    let _ = cluster.routed("web");
    let coordinator = cluster.role_pid("coordinator");
    signal(coordinator, Signal::SIGSTOP);
    let load = steady(vec![cluster.gateways()[0]]);
    // Longer than either side's patience.
    std::thread::sleep(Duration::from_secs(4));
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);

    // It is another process that answers from here on.
    cluster.replace("gateway-1");
    let target = cluster.gateways()[0];
    wait::until("an answer by the table on disk", ROOM, || {
        let load = Load::start(&Plan {
            targets: vec![target],
            connections: 1,
            rate: Some(20.0),
            requests_per_connection: 1,
        });
        std::thread::sleep(Duration::from_millis(200));
        let counted = load.stop();
        if counted.versions.contains_key("1.0") { Ok(()) } else { Err(format!("{:?}", counted.failures)) }
    });

    signal(coordinator, Signal::SIGCONT);
    let _ = cluster.routed("web");
    let _ = cluster.deploy(&routed(), "2.0").expect(0);
}

#[test]
fn a_coordinator_that_dies_costs_no_request_and_its_tables_go_on_growing() {
    let cluster = cluster(1);
    let _ = cluster.deploy(&routed(), "1.0").expect(0);
    let _ = cluster.routed("web");
    let table = |cluster: &Cluster| -> Result<u64, String> {
        let gateways = cluster.asked(&["gateway", "ls"])?;
        gateways[0]["state"]["table"].as_u64().ok_or_else(|| gateways.to_string())
    };
    let before = table(&cluster).expect("a revision");
    let load = steady(vec![cluster.gateways()[0]]);
    let killed = cluster.role_pid("coordinator");
    cluster.kill(killed);
    wait::until("another coordinator", ROOM, || match cluster.role_pid_now("coordinator") {
        Some(pid) if pid != killed && cluster.baton(&["gateway", "ls"]).code == 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let _ = cluster.routed("web");
    // A gateway would refuse a table that is older than its own.
    wait::until("a newer table in force", ROOM, || match table(&cluster)? {
        now if now > before => Ok(()),
        now => Err(format!("{now} after {before}")),
    });
    let _ = cluster.deploy(&routed(), "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
}

#[test]
fn a_gateway_that_is_cut_off_is_waited_out_and_comes_back() {
    let cluster = cluster(2);
    let _ = cluster.deploy(&routed(), "1.0").expect(0);
    let _ = cluster.routed("web");
    let gone = cluster.role_pid("gateway-2");
    signal(gone, Signal::SIGSTOP);
    let load = steady(vec![cluster.gateways()[0]]);
    // Nothing of 2.0 counts as available, and nothing of 1.0 is stopped, before the lease of the silent one is over.
    let _ = cluster.deploy(&routed(), "2.0").expect(0);
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    let events = cluster.baton(&["events"]).expect(0).stdout;
    assert!(events.contains("gateway-2"), "its silence is told: {events}");

    signal(gone, Signal::SIGCONT);
    let _ = cluster.routed("web");
    let load = steady(vec![cluster.gateways()[1]]);
    load.await_version("2.0");
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    assert_eq!(counted.versions.keys().collect::<Vec<_>>(), ["2.0"], "{:?}", counted.versions);
}

#[test]
fn a_gateway_is_upgraded_in_place_without_a_refused_connection() {
    let cluster = cluster(1);
    let _ = cluster.deploy(&routed(), "1.0").expect(0);
    let _ = cluster.routed("web");
    let old = cluster.role_pid("gateway-1");
    let dir = cluster.ready["gateways"][0]["dir"].as_str().expect("a folder").to_owned();
    let load = Load::start(&Plan {
        targets: vec![cluster.gateways()[0]],
        connections: 8,
        rate: Some(200.0),
        requests_per_connection: 5,
    });
    let mut next = cluster.command(&["gateway", "run", "--dir", &dir]).spawn().expect("it starts");
    // It takes over and the old process ends; `baton dev` then starts one that takes over again, and this one ends.
    wait::until("a further process of the gateway", ROOM, || match cluster.role_pid_now("gateway-1") {
        Some(pid) if pid != old => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait::until("the end of the process between", ROOM, || match next.try_wait() {
        Ok(Some(status)) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let _ = cluster.deploy(&routed(), "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
}

#[test]
fn a_token_of_another_kind_makes_no_gateway_and_a_gateway_is_forgotten_once_it_is_gone() {
    let cluster = cluster(1);
    let dir = cluster.folder().join("edge").display().to_string();
    let coordinator = cluster.ready["coordinator"]["address"].as_str().expect("an address").to_owned();
    let join = |token: &str| {
        let args = ["gateway", "join", "--coordinator", &coordinator, "--name", "edge", "--dir", &dir];
        cluster.baton(&[&args[..], &["--token", token]].concat())
    };
    let token = |kind: &str| cluster.json(&[kind, "token"])["token"].as_str().expect("a token").to_owned();
    let refused = join(&token("node"));
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("baton gateway token"), "{}", refused.stderr);
    let _ = join(&token("gateway")).expect(0);
    let names = |cluster: &Cluster| -> Vec<String> {
        let gateways = cluster.json(&["gateway", "ls"]);
        gateways.as_array().expect("a list").iter().map(|it| it["name"].to_string()).collect()
    };
    assert_eq!(names(&cluster), ["\"edge\"", "\"gateway-1\""]);
    let busy = cluster.baton(&["gateway", "rm", "gateway-1", "--yes"]);
    assert!(busy.code != 0 && busy.stderr.contains("stop it first"), "{}", busy.stderr);
    let _ = cluster.baton(&["gateway", "rm", "edge", "--yes"]).expect(0);
    assert_eq!(names(&cluster), ["\"gateway-1\""]);
}
