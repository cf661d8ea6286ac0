//! Jobs, order and reload on a real cluster: from the service file to the processes and back to what operators see.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const ERROR: i32 = 1;
const FAILED: i32 = 4;
const ROLLOUT: &str = "min_healthy = \"200ms\"\nhealthy_deadline = \"30s\"\nprogress_deadline = \"60s\"\nbatch = 1\nmax_unavailable = 1\n";

fn one_node() -> Cluster {
    Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() })
}

/// One instance of a shell script, without ports and checks.
fn script(name: &str, script: &str) -> ServiceFile {
    let exec = format!("[\"/bin/sh\", \"-c\", \"{script}\"]");
    ServiceFile::web(name, 1)
        .with_program("/bin/true", &exec)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("stop", "timeout = \"2s\"\ndrain = \"0s\"\n")
        .with_section("placement", "replicas = 1\nmin_available = 0\n")
        .with_section("rollout", ROLLOUT)
}

/// A check that passes once a file is there.
fn there(path: &std::path::Path) -> String {
    format!(
        "kind = \"exec\"\ncommand = [\"/usr/bin/test\", \"-e\", \"{}\"]\ninterval = \"1s\"\ntimeout = \"1s\"\n",
        path.display()
    )
}

/// Deploys and does not wait.
fn ask(cluster: &Cluster, file: &ServiceFile, version: &str) -> baton_tests::harness::Ran {
    let path = cluster.write(&format!("asked-{version}.toml"), &file.text());
    cluster.baton(&["deploy", &path, "--version", version])
}

fn observed(cluster: &Cluster, service: &str) -> Value {
    cluster.instances(service).first().map_or(Value::Null, |instance| instance["observed"].clone())
}

fn await_state(cluster: &Cluster, service: &str, state: &str) {
    wait::until(&format!("{service} to be {state}"), ROOM, || match observed(cluster, service) {
        seen if seen["state"] == state => Ok(()),
        seen => Err(seen.to_string()),
    });
}

#[test]
fn a_job_runs_once_and_stays_done() {
    let cluster = one_node();
    let story = cluster.folder().join("story");
    let job = script("job", &format!("echo ran >> {}", story.display())).with_top("type = \"one-shot\"");
    let _ = cluster.deploy(&job, "1.0").expect(0);
    let seen = observed(&cluster, "job");
    assert_eq!((&seen["state"], &seen["pid"]), (&"ready".into(), &Value::Null), "{seen}");
    // Neither the agent's death nor its return runs it again.
    let node = cluster.instances("job")[0]["node"].as_str().expect("a name").to_owned();
    let agent = cluster.role_pid(&node);
    cluster.kill(agent);
    wait::until("another agent", ROOM, || match cluster.role_pid_now(&node) {
        Some(pid) if pid != agent && wait::is_alive(pid) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    await_state(&cluster, "job", "ready");
    let lines = || std::fs::read_to_string(&story).unwrap_or_default().lines().count();
    assert_eq!(lines(), 1);
    let _ = cluster.deploy(&job, "2.0").expect(0);
    assert_eq!(lines(), 2, "a new release runs it again");
}

#[test]
fn a_job_that_fails_fails_its_rollout_at_once() {
    let cluster = one_node();
    let bad = script("job", "echo no table >&2; exit 3").with_top("type = \"one-shot\"");
    let ran = cluster.deploy(&bad, "1.0");
    assert_eq!(ran.code, FAILED, "{}", ran.stderr);
    let seen = observed(&cluster, "job");
    assert_eq!(seen["last_exit"], serde_json::json!({ "kind": "code", "value": 3 }), "{seen}");
    let report = cluster.json(&["service", "show", "job"]).to_string();
    assert!(report.contains("exit code 3"), "{report}");
}

#[test]
fn a_reload_reaches_the_workload_and_its_answer_the_operator() {
    let cluster = one_node();
    let deaf = script("deaf", "exec sleep 86421");
    let _ = cluster.deploy(&deaf, "1.0").expect(0);
    let refused = cluster.baton(&["service", "reload", "deaf"]).expect(ERROR);
    assert!(refused.stderr.contains("has no `[reload]`"), "{}", refused.stderr);

    let told = cluster.folder().join("told");
    let hears = script(
        "hears",
        &format!(
            "trap 'echo again >> {}' HUP; : > {}; while :; do sleep 0.1; done",
            told.display(),
            told.display()
        ),
    )
    .with_section("checks.readiness", &there(&told))
    .with_section("reload", "signal = \"SIGHUP\"\n");
    let _ = cluster.deploy(&hears, "1.0").expect(0);
    let before = cluster.pids("hears");
    let done = cluster.baton(&["service", "reload", "hears"]).expect(0);
    assert!(done.stdout.contains("done"), "{}", done.stdout);
    wait::until("the workload to reload", ROOM, || match std::fs::read_to_string(&told) {
        Ok(text) if text == "again\n" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(cluster.pids("hears"), before, "nothing was restarted");
    assert_eq!(observed(&cluster, "hears")["reload"]["phase"], "done");

    let fails = script("fails", "exec sleep 86422").with_section("reload", "command = [\"/bin/false\"]\n");
    let _ = cluster.deploy(&fails, "1.0").expect(0);
    let failed = cluster.baton(&["service", "reload", "fails"]).expect(FAILED);
    assert!(failed.stdout.contains("its reload command: exit code 1"), "{}", failed.stdout);
    wait::until("both in the journal", ROOM, || {
        let events = cluster.baton(&["events", "--json"]).expect(0).stdout;
        let told = events.contains("reload-failed") && events.contains("instance-reloaded");
        if told { Ok(()) } else { Err(events) }
    });
}

#[test]
fn services_come_after_one_another_and_circles_are_refused() {
    let cluster = one_node();
    let good = cluster.folder().join("good");
    let app = script("app", "exec sleep 86423").with_section("after", "db = \"anywhere\"\n");
    let near = script("near", "exec sleep 86424").with_section("after", "db = \"same-node\"\n");
    let refused = ask(&cluster, &app, "1.0").expect(ERROR);
    assert!(refused.stderr.contains("`app` comes after `db`, which does not exist"), "{}", refused.stderr);

    // However long the rest takes, it is not given up meanwhile.
    let patient = ROLLOUT.replace("30s", "120s").replace("60s", "180s");
    let db = script("db", "exec sleep 86425")
        .with_section("checks.readiness", &there(&good))
        .with_section("rollout", &patient);
    let _ = ask(&cluster, &db, "1.0").expect(0);
    await_state(&cluster, "db", "starting");
    let _ = ask(&cluster, &app, "1.0").expect(0);
    let _ = ask(&cluster, &near, "1.0").expect(0);
    wait::until("the reason of `app`", ROOM, || {
        let report = cluster.json(&["service", "show", "app"]).to_string();
        let told = report.contains("it comes after `db`, of which 0 of 1 needed instances are ready");
        if told { Ok(()) } else { Err(report) }
    });
    assert!(cluster.instances("app").is_empty());
    wait::until("the reason of `near`", ROOM, || match observed(&cluster, "near") {
        seen if seen["reason"]
            .to_string()
            .contains("it comes after `db`, and db.1 is not ready on this node") =>
        {
            Ok(())
        }
        seen => Err(seen.to_string()),
    });
    assert_eq!(observed(&cluster, "near")["pid"], Value::Null);

    let circle = script("db", "exec sleep 86425").with_section("after", "app = \"anywhere\"\n");
    let refused = ask(&cluster, &circle, "2.0").expect(ERROR);
    assert!(refused.stderr.contains("db after app after db"), "{}", refused.stderr);

    std::fs::write(&good, "").expect("a file");
    for service in ["db", "app", "near"] {
        await_state(&cluster, service, "ready");
    }
    let refused = cluster.baton(&["service", "rm", "db", "--yes"]).expect(ERROR);
    assert!(refused.stderr.contains("`app` comes after `db`"), "{}", refused.stderr);

    // What crashes again and again is up for moments; nothing is placed for that.
    let _ = ask(&cluster, &script("loops", "sleep 0.1; exit 3"), "1.0").expect(0);
    wait::until("a crash loop", ROOM, || match observed(&cluster, "loops") {
        seen if seen["crash_loop"] == true => Ok(()),
        seen => Err(seen.to_string()),
    });
    let behind = script("behind", "exec sleep 86429").with_section("after", "loops = \"anywhere\"\n");
    let _ = ask(&cluster, &behind, "1.0").expect(0);
    wait::until("the reason of `behind`", ROOM, || {
        let report = cluster.json(&["service", "show", "behind"]).to_string();
        let told = report.contains("it comes after `loops`, of which 0 of 1 needed instances are ready");
        if told { Ok(()) } else { Err(report) }
    });
    assert!(cluster.instances("behind").is_empty());
}

#[test]
fn what_a_workload_and_its_hooks_say_is_shown() {
    let cluster = one_node();
    let missing = cluster.folder().join("database");
    let hook = format!("command = [\"/bin/sh\", \"-c\", \"test -e {} || exit 3\"]\n", missing.display());
    let file = script("web", "exec sleep 86426").with_section("hooks.before_start", &hook);
    let _ = ask(&cluster, &file, "1.0").expect(0);
    wait::until("the reason", ROOM, || match observed(&cluster, "web") {
        seen if seen["reason"].to_string().contains("before_start hook: exit code 3") => Ok(()),
        seen => Err(seen.to_string()),
    });
    std::fs::write(&missing, "").expect("a file");
    await_state(&cluster, "web", "ready");
}
