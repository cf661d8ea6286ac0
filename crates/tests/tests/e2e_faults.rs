//! Faults on a real cluster: killed workloads, agents, coordinators, and what must be true after each.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ServiceFile, wait};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);

#[test]
fn a_killed_workload_is_back_at_once_and_only_what_was_in_flight_is_lost() {
    let cluster = Cluster::start();
    let _ = cluster.deploy(&ServiceFile::web("web", 8080), "1.0").expect(0);
    let targets =
        (0..3).map(|n| format!("{}:8080", cluster.address(n)).parse().expect("an address")).collect();
    let connections = 12;
    let load = Load::start(&Plan { targets, connections, rate: Some(300.0), requests_per_connection: 1 });
    let (instance, pid) = cluster.pids("web").swap_remove(0);
    cluster.kill(pid);
    let new = wait::until("a new process", ROOM, || {
        let pids = cluster.pids("web");
        pids.iter()
            .find(|(id, new)| *id == instance && *new != pid)
            .map(|(_, new)| *new)
            .ok_or_else(|| format!("{pids:?}"))
    });
    assert!(wait::is_alive(new));
    let counted = load.stop();
    assert!(
        counted.failed <= connections as u64,
        "{} of {}: {:#?}",
        counted.failed,
        counted.sent,
        counted.failures
    );
    wait::until("the exit in the journal", ROOM, || {
        let events = cluster.baton(&["events", "--json"]).expect(0).stdout;
        let told = events.lines().any(|line| line.contains("instance-exited") && line.contains("signal 9"));
        if told { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_killed_agent_loses_no_workload_and_adopts_them() {
    let cluster = Cluster::start();
    let _ = cluster.deploy(&ServiceFile::web("web", 8080), "1.0").expect(0);
    let before = cluster.pids("web");
    let targets =
        (0..3).map(|n| format!("{}:8080", cluster.address(n)).parse().expect("an address")).collect();
    let load = Load::start(&Plan { targets, connections: 6, rate: Some(200.0), requests_per_connection: 5 });
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    let agent = cluster.role_pid(&node);
    cluster.kill(agent);
    wait::until("another agent", ROOM, || match cluster.role_pid_now(&node) {
        Some(pid) if pid != agent && wait::is_alive(pid) => Ok(()),
        pid => Err(format!("{pid:?}")),
    });
    wait::until("the agent to adopt", ROOM, || {
        let events = cluster.baton(&["events", "--json"]).expect(0).stdout;
        if events.lines().any(|line| line.contains("\"adopted\"") && line.contains(&node)) {
            Ok(())
        } else {
            Err(events)
        }
    });
    wait::until("the same processes as before", ROOM, || match cluster.pids("web") {
        now if now == before => Ok(()),
        now => Err(format!("{now:?}")),
    });
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "{:#?}", counted.failures);
}

#[test]
fn a_killed_coordinator_goes_on_with_the_rollout() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let path = cluster.write("web2.toml", &file.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(0);
    cluster.kill(cluster.role_pid("coordinator"));
    wait::until("the rollout to succeed", ROOM, || {
        let ran = cluster.baton(&["rollout", "status", "web", "--json"]);
        if ran.code == 0 && ran.json()["outcome"] == "succeeded" && ran.json()["to_version"] == "2.0" {
            Ok(())
        } else {
            Err(ran.stdout + &ran.stderr)
        }
    });
}

#[test]
fn a_lost_node_has_its_instances_moved_and_is_clean_when_it_returns() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080).with_section("placement", "replicas = 2\nlost_after = \"4s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let instances = cluster.instances("web");
    let lost_node = instances[0]["node"].as_str().expect("a node").to_owned();
    let lost_pid = instances[0]["observed"]["pid"].as_u64().expect("a pid");
    let agent = i32::try_from(cluster.role_pid(&lost_node)).expect("a pid");
    let agent = nix::unistd::Pid::from_raw(agent);
    nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGSTOP).expect("the agent is there");
    wait::until("two ready instances elsewhere", ROOM, || {
        let now = cluster.instances("web");
        let ready = now
            .iter()
            .filter(|it| it["node"] != lost_node.as_str() && it["observed"]["state"] == "ready")
            .count();
        if ready == 2 { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert!(wait::is_alive(lost_pid), "a silent node is not a stopped workload");
    nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGCONT).expect("the agent is there");
    wait::until("the old process to be stopped", ROOM, || {
        if wait::is_alive(lost_pid) { Err("alive".into()) } else { Ok(()) }
    });
}

#[test]
fn a_drained_node_is_emptied_and_its_instances_run_elsewhere() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080).with_section("placement", "replicas = 2\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let node = cluster.instances("web")[0]["node"].as_str().expect("a node").to_owned();
    let _ = cluster.baton(&["node", "drain", &node]).expect(0);
    wait::until("an empty node", ROOM, || {
        let all = cluster.instances("web");
        let here = all.iter().filter(|it| it["node"] == node.as_str()).count();
        let ready = all.iter().filter(|it| it["observed"]["state"] == "ready").count();
        if here == 0 && ready == 2 { Ok(()) } else { Err(format!("{all:?}")) }
    });
}
