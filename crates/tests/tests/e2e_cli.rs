//! Every command of the CLI on a real cluster: reads have `--json`, exit codes are the documented ones, wrong
//! input is told with what to do.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, baton_program, wait};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
/// Exit codes of docs/cli.md.
const DONE: i32 = 0;
const NOT_DONE: i32 = 1;
const WRONG_INPUT: i32 = 2;
const ROLLED_BACK: i32 = 3;
const FAILED: i32 = 4;
const PAUSED: i32 = 5;
const TIMED_OUT: i32 = 6;

/// The test's rollout section with further lines.
fn rollout(more: &str) -> String {
    format!(
        "batch = 1\nmax_unavailable = 1\nmin_healthy = \"300ms\"\nhealthy_deadline = \"15s\"\nprogress_deadline = \"60s\"\n{more}"
    )
}

#[test]
fn every_read_prints_for_people_and_for_programs() {
    let cluster = Cluster::start();
    let _ = cluster.deploy(&ServiceFile::web("web", 8080), "1.0").expect(DONE);
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    let reads: [&[&str]; 11] = [
        &["service", "ls"],
        &["service", "show", "web"],
        &["node", "ls"],
        &["node", "show", &node],
        &["rollout", "status", "web"],
        &["rollout", "history", "web"],
        &["explain", "web"],
        &["top", "--once"],
        &["context", "ls"],
        &["context", "show"],
        &["version"],
    ];
    for read in reads {
        let people = cluster.baton(read).expect(DONE);
        assert!(!people.stdout.trim().is_empty(), "{read:?} says nothing");
        assert!(!people.stdout.contains('\u{1b}'), "{read:?} is coloured when piped");
        let document = cluster.json(read);
        assert!(document.is_object() || document.is_array(), "{read:?}: {document}");
    }
    for stream in
        [&["events", "--json"][..], &["logs", "web", "--json"], &["rollout", "watch", "web", "--json"]]
    {
        let ran = cluster.baton(stream).expect(DONE);
        assert!(!ran.stdout.is_empty(), "{stream:?} says nothing");
        for line in ran.stdout.lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(object.is_object(), "{line}");
        }
    }
}

#[test]
fn exit_codes_tell_a_script_how_a_rollout_ended() {
    let cluster = Cluster::start();
    let web = ServiceFile::web("web", 8080).with_section("rollout", &rollout(""));
    let crash = web.clone().with_env("BEHAVIOUR", "crash");
    let _ = cluster.deploy(&crash, "0.9").expect(FAILED);
    let _ = cluster.deploy(&web, "1.0").expect(DONE);
    let _ = cluster.baton(&["rollout", "watch", "web"]).expect(DONE);
    let _ = cluster.deploy(&crash, "2.0").expect(ROLLED_BACK);
    let _ = cluster.baton(&["rollout", "watch", "web"]).expect(ROLLED_BACK);

    let paused = crash.clone().with_section("rollout", &rollout("on_failure = \"pause\"\n"));
    let _ = cluster.deploy(&paused, "3.0").expect(PAUSED);
    let _ = cluster.baton(&["rollout", "abort", "web"]).expect(DONE);

    let slow = web.clone().with_section(
        "rollout",
        "batch = 1\nmax_unavailable = 1\nmin_healthy = \"20s\"\nhealthy_deadline = \"60s\"\nprogress_deadline = \"120s\"\n",
    );
    let path = cluster.write("slow.toml", &slow.text());
    wait::until("the abort to end", ROOM, || {
        let status = cluster.json(&["rollout", "status", "web"]);
        if status["outcome"] == "rolled-back" { Ok(()) } else { Err(status["outcome"].to_string()) }
    });
    let _ =
        cluster.baton(&["deploy", &path, "--version", "4.0", "--watch", "--timeout", "1s"]).expect(TIMED_OUT);
    let going_on = cluster.json(&["rollout", "status", "web"]);
    assert_eq!(going_on["to_version"], "4.0", "a timeout ends only the watching: {going_on}");
}

#[test]
fn what_is_not_there_is_told_with_what_to_do() {
    let cluster = Cluster::start();
    let unknown: [(&[&str], i32); 12] = [
        (&["service", "show", "nothing"], NOT_DONE),
        (&["rollout", "status", "nothing"], NOT_DONE),
        (&["rollout", "undo", "nothing"], NOT_DONE),
        (&["rollout", "promote", "nothing"], NOT_DONE),
        (&["explain", "nothing"], NOT_DONE),
        (&["logs", "nothing"], NOT_DONE),
        (&["node", "show", "nothing"], NOT_DONE),
        (&["node", "drain", "nothing"], NOT_DONE),
        (&["context", "use", "nothing"], NOT_DONE),
        (&["service", "show", "Not A Name"], WRONG_INPUT),
        (&["deploy", "no-such-file.toml", "--version", "1"], WRONG_INPUT),
        (&["frobnicate"], WRONG_INPUT),
    ];
    for (args, code) in unknown {
        let ran = cluster.baton(args).expect(code);
        assert!(ran.stdout.is_empty(), "{args:?}: an error belongs on stderr: {}", ran.stdout);
        assert!(ran.stderr.trim().lines().count() >= 2, "{args:?} does not say what to do: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("RUST_BACKTRACE"), "{}", ran.stderr);
    }

    // Thresholds that no gateway could answer: said before, at the deploy, and for as long as it waits.
    let shop = ServiceFile::web("shop", 8090)
        .with_section("placement", "replicas = 2\n")
        .with_section("route", "path = \"/\"\n")
        .with_section("rollout", &rollout("strategy = \"canary\"\n"))
        .with_section("rollout.canary", "steps = [\"50%\", \"100%\"]\nbake = \"0s\"\n")
        .with_section("rollout.analysis.errors", "metric = \"error-share\"\nmax = \"1%\"\n");
    let missing = "no gateway serves shop: start one (`baton gateway token`";
    let first = cluster.deploy(&shop, "1.0").expect(DONE);
    assert!(!first.stderr.contains("gateway"), "there is nothing to compare it with: {}", first.stderr);
    let path = cluster.write("shop.toml", &shop.text());
    let planned = cluster.baton(&["plan", &path, "--version", "2.0"]).expect(DONE);
    assert!(planned.stdout.contains(missing), "{}", planned.stdout);
    let deployed = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(DONE);
    let warned = format!("warning: the thresholds of shop will wait for evidence, and {missing}");
    assert!(deployed.stderr.contains(&warned), "{}", deployed.stderr);
    wait::until("the stage to name what it waits for", ROOM, || {
        let shown = cluster.baton(&["rollout", "status", "shop"]).expect(DONE).stdout;
        let said = shown.contains("stage 1: evidence") && shown.contains(missing);
        if said { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_gets_nothing_new() {
    let cluster = Cluster::start();
    let web = ServiceFile::web("web", 8080).with_section("placement", "replicas = 1\nlost_after = \"5s\"\n");
    let _ = cluster.deploy(&web, "1.0").expect(DONE);
    let before = cluster.instances("web");
    let node = before[0]["node"].as_str().expect("a node").to_owned();
    let _ = cluster.baton(&["node", "cordon", &node]).expect(DONE);
    let _ = cluster.deploy(&web, "2.0").expect(DONE);
    assert_eq!(cluster.instances("web")[0]["node"], node.as_str(), "a swap in place is nothing new");
    let other = ServiceFile::web("other", 8081);
    let ran = cluster.deploy(&other.with_section("placement", "replicas = 2\n"), "1.0").expect(DONE);
    let placed = cluster.instances("other");
    assert!(placed.iter().all(|it| it["node"] != node.as_str()), "{placed:?} {}", ran.stdout);
    let _ = cluster.baton(&["node", "uncordon", &node]).expect(DONE);
    let shown = cluster.json(&["node", "show", &node]);
    assert_eq!(shown["instances"].as_array().map(Vec::len), Some(1), "{shown}");
}

#[test]
fn logs_are_followed_live() {
    let cluster = Cluster::start();
    let file = ServiceFile::web("talker", 8082)
        .with_ports("")
        .with_program(
            cluster.write("talk.sh", "#!/bin/sh\necho hello $BATON_INSTANCE\necho to stderr >&2\nread line < \"$GATE\"\necho said $line\nexec sleep 600\n"),
            r#"["./talk.sh"]"#,
        )
        .with_env("GATE", &cluster.folder().join("gate").display().to_string())
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 1\n");
    let gate = cluster.folder().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let _ = cluster.deploy(&file, "1.0").expect(DONE);
    let mut follow =
        cluster.command(&["logs", "talker", "-f"]).stdout(Stdio::piped()).spawn().expect("baton runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let past: Vec<String> = lines.by_ref().take(2).collect();
    assert!(past.iter().any(|line| line.contains("hello talker.")), "{past:?}");
    assert!(past.iter().any(|line| line.contains("to stderr")), "{past:?}");
    std::fs::write(&gate, "open sesame\n").expect("the workload reads it");
    let live = lines.next().expect("a line that was written after the beginning");
    assert!(live.contains("said open sesame"), "{live}");
    follow.kill().expect("it runs");
    follow.wait().expect("it ended");
}

#[test]
fn completions_are_made_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(baton_program()).args(["completions", shell]).output().expect("baton runs");
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("rollout") && text.contains("cordon"), "{shell} knows the commands");
    }
}

#[test]
fn deploys_of_one_artifact_at_the_same_time_all_succeed() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let deploys: Vec<_> = (0..6)
        .map(|number| {
            let name = format!("web-{number}");
            let file = ServiceFile::web(&name, 8300 + number).with_section("placement", "replicas = 1\n");
            let path = cluster.write(&format!("{name}.toml"), &file.text());
            let mut command = cluster.command(&["deploy", &path, "--version", "1"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("baton starts")
        })
        .collect();
    for deploy in deploys {
        let ended = deploy.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}
