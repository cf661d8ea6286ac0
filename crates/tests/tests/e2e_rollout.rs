//! Rollouts on a real cluster: real processes, real sockets, a load of real requests.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::net::SocketAddr;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
/// `Exit::RolledBack` and `Exit::Paused` of the CLI.
const ROLLED_BACK: i32 = 3;
const PAUSED: i32 = 5;

fn targets(cluster: &Cluster, port: u16) -> Vec<SocketAddr> {
    (0..3).map(|node| format!("{}:{port}", cluster.address(node)).parse().expect("an address")).collect()
}

fn steady(cluster: &Cluster, port: u16) -> Load {
    Load::start(&Plan {
        targets: targets(cluster, port),
        connections: 12,
        rate: Some(300.0),
        requests_per_connection: 10,
    })
}

fn outcome(cluster: &Cluster, service: &str) -> String {
    cluster.json(&["rollout", "status", service])["outcome"].as_str().unwrap_or("none").to_owned()
}

fn wait_for_outcome(cluster: &Cluster, service: &str, wanted: &str) {
    wait::until(&format!("outcome {wanted}"), ROOM, || match outcome(cluster, service) {
        found if found == wanted => Ok(()),
        found => Err(found),
    });
}

#[test]
fn a_swap_under_load_loses_nothing() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let before = cluster.pids("web");
    assert_eq!(before.len(), 3);

    let load = steady(&cluster, 8080);
    load.await_version("1.0");
    let _ = cluster.deploy(&file, "2.0").expect(0);
    load.await_version("2.0");
    let counted = load.stop();

    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    assert!(counted.versions["1.0"] > 0 && counted.versions["2.0"] > 0, "{:?}", counted.versions);
    let after = cluster.pids("web");
    assert_eq!(after.len(), 3);
    // The last old process may still be finishing what it has.
    wait::until("the end of the old processes", ROOM, || {
        let left: Vec<_> = before.iter().filter(|(_, pid)| wait::is_alive(*pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_bad_version_is_rolled_back_and_answers_nobody() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let load = steady(&cluster, 8080);
    load.await_version("1.0");
    let sick = cluster.deploy(&file.with_env("BEHAVIOUR", "sick"), "2.0").expect(ROLLED_BACK);
    let counted = load.stop();

    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    assert_eq!(
        counted.versions.keys().collect::<Vec<_>>(),
        ["1.0"],
        "the candidate answered: {:?}",
        counted.versions
    );
    let status = cluster.json(&["rollout", "status", "web"]);
    assert_eq!(status["outcome"], "rolled-back");
    assert!(
        status["reason"].as_str().is_some_and(|why| why.contains("500")),
        "the reason names the check: {status}; {}",
        sick.stdout
    );
}

#[test]
fn a_version_that_crashes_at_start_is_rolled_back_with_its_exit_code() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.deploy(&file.with_env("BEHAVIOUR", "crash"), "2.0").expect(ROLLED_BACK);
    let status = cluster.json(&["rollout", "status", "web"]);
    assert!(status["reason"].as_str().is_some_and(|why| why.contains("exit code 3")), "{status}");
    wait::until("1.0 to be ready everywhere", ROOM, || {
        let all = cluster.instances("web");
        let ready = all.iter().all(|it| it["wanted_version"] == "1.0" && it["observed"]["state"] == "ready");
        if ready { Ok(()) } else { Err(format!("{all:?}")) }
    });
}

#[test]
fn a_version_that_uses_too_much_memory_is_rolled_back_by_what_was_measured() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let bounded = |memory: &str| {
        let bound =
            |metric: &str, max: &str| format!("metric = \"{metric}\"\nmax = \"{max}\"\nwindow = \"5s\"\n");
        ServiceFile::web("web", 8080)
            .with_section("placement", "replicas = 1\n")
            .with_section("rollout.analysis.cpu", &bound("cpu", "6400%"))
            .with_section("rollout.analysis.memory", &bound("memory", memory))
    };
    let _ = cluster.deploy(&bounded("4GiB"), "1.0").expect(0);
    let _ = cluster.deploy(&bounded("4GiB").with_env("MORE", "1"), "2.0").expect(0);
    let rollout = cluster.json(&["rollout", "status", "web"]);
    let verdicts = rollout["stages"][0]["verdicts"].as_array().cloned().unwrap_or_default();
    let measured: Vec<&serde_json::Value> =
        verdicts.iter().map(|verdict| &verdict["measured"]["unit"]).collect();
    assert_eq!(measured, ["milli-cores", "bytes"], "{verdicts:?}");
    assert!(verdicts[1]["measured"]["value"].as_u64().is_some_and(|bytes| bytes > 100_000), "{verdicts:?}");

    // Every process has more than this.
    let ran = cluster.deploy(&bounded("64KiB"), "3.0").expect(ROLLED_BACK);
    let why = "memory (memory of an instance at most 64.0 KiB) is broken: ";
    assert!(ran.stdout.contains(why) && ran.stdout.contains(" MiB of web.1 over "), "{}", ran.stdout);
    assert_eq!(cluster.instances("web")[0]["observed"]["release"], 2);
}

#[test]
fn a_rollout_is_paused_resumed_promoted_and_undone() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let gated = file.clone().with_section(
        "rollout",
        "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"15s\"\nprogress_deadline = \"60s\"\napprove_before = [2]\n",
    );
    let _ = cluster.deploy(&gated, "2.0").expect(PAUSED);
    let why = cluster.baton(&["explain", "web"]).expect(0);
    assert!(why.stdout.contains("promote"), "explain says what to do: {}", why.stdout);

    let _ = cluster.baton(&["rollout", "pause", "web"]).expect(0);
    let _ = cluster.baton(&["rollout", "promote", "web"]).expect(0);
    let _ = cluster.baton(&["rollout", "resume", "web"]).expect(0);
    wait_for_outcome(&cluster, "web", "succeeded");

    let _ = cluster.baton(&["rollout", "undo", "web"]).expect(0);
    wait::until("1.0 everywhere", ROOM, || {
        let versions: Vec<String> =
            cluster.instances("web").iter().map(|it| it["wanted_version"].to_string()).collect();
        if versions.iter().all(|v| v == "\"1.0\"") && outcome(&cluster, "web") == "succeeded" {
            Ok(())
        } else {
            Err(format!("{versions:?}"))
        }
    });
    let history = cluster.json(&["rollout", "history", "web"]);
    assert!(history.as_array().is_some_and(|all| all.len() >= 3), "{history}");
}

#[test]
fn an_abort_goes_back_and_a_retry_goes_on() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let held = file.clone().with_env("BEHAVIOUR", "sick").with_section(
        "rollout",
        "batch = 1\nmax_unavailable = 1\nmin_healthy = \"500ms\"\nhealthy_deadline = \"3s\"\nprogress_deadline = \"30s\"\non_failure = \"pause\"\n",
    );
    let _ = cluster.deploy(&held, "2.0").expect(PAUSED);
    let _ = cluster.baton(&["rollout", "retry", "web"]).expect(0);
    wait_for_outcome(&cluster, "web", "paused");
    let _ = cluster.baton(&["rollout", "abort", "web"]).expect(0);
    wait_for_outcome(&cluster, "web", "rolled-back");
    let wrong = cluster.baton(&["rollout", "pause", "web"]);
    assert_eq!(wrong.code, 1, "there is no rollout to pause: {}", wrong.stdout);
}

#[test]
fn a_plan_changes_nothing_and_the_same_version_with_other_content_is_refused() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("web", 8080);
    let path = cluster.write("web.toml", &file.text());
    let plan = &cluster.json(&["plan", &path, "--version", "1.0"])["plan"];
    assert_eq!(plan["first"], true);
    assert_eq!(plan["new_instances"].as_array().map(Vec::len), Some(3));
    assert_eq!(cluster.json(&["service", "ls"]).as_array().map(Vec::len), Some(0));

    let _ = cluster.deploy(&file, "1.0").expect(0);
    let other = cluster.deploy(&file.with_env("MORE", "1"), "1.0").expect(1);
    assert!(other.stderr.contains("1.0") && other.stderr.contains("version"), "{}", other.stderr);
}
