//! What is followed goes on over restarts of the coordinator and of agents: no line and no event lost or told twice.

use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const INTERRUPTED: i32 = 130;

/// A command that follows; what it prints is kept in files.
struct Following {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Following {
    fn start(cluster: &Cluster, name: &str, args: &[&str]) -> Self {
        let (stdout, stderr) = (cluster.folder().join(name), cluster.folder().join(format!("{name}.err")));
        let file = |path: &Path| std::fs::File::create(path).expect("the test's folder can be written");
        let child =
            cluster.command(args).stdout(file(&stdout)).stderr(file(&stderr)).spawn().expect("baton starts");
        Self { child, stdout, stderr }
    }

    /// The whole lines that it printed.
    fn objects(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.stdout).expect("its output");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("what it said")
    }

    /// Interrupts it, and gives its exit code.
    fn interrupt(&mut self) -> i32 {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
        self.child.wait().expect("it ends").code().unwrap_or(-1)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service of two instances that each count aloud.
fn counter(cluster: &Cluster) -> ServiceFile {
    let script = "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo \"line $i\"; [ $((i % 10)) = 0 ] && echo \"tenth $i\" >&2; sleep 0.02; done\n";
    let program = cluster.write("count.sh", script);
    ServiceFile::web("count", 8080)
        .with_program(program, r#"["./count.sh"]"#)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 2\nlost_after = \"60s\"\n")
}

/// The numbers that each instance counted on stdout.
fn counted(lines: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut counted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["stream"] == "stdout") {
        let number = line["text"].as_str().and_then(|text| text.strip_prefix("line ")).expect("a count");
        let instance = line["instance"].as_str().expect("an instance").to_owned();
        counted.entry(instance).or_default().push(number.trim().parse().expect("a number"));
    }
    counted
}

/// Waits until every instance has counted `more` further than now.
fn goes_on(logs: &Following, more: u64) {
    let last = |logs: &Following| -> BTreeMap<String, u64> {
        let all = counted(&logs.objects());
        all.into_iter().map(|(instance, numbers)| (instance, *numbers.last().expect("one"))).collect()
    };
    let before = last(logs);
    wait::until("further lines", ROOM, || {
        let now = last(logs);
        let on = now.len() == 2 && before.iter().all(|(instance, number)| now[instance] >= number + more);
        if on { Ok(()) } else { Err(format!("{before:?} then {now:?}; {}", logs.said())) }
    });
}

#[test]
fn logs_and_events_are_followed_through_restarts() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let _ = cluster.deploy(&counter(&cluster), "1.0").expect(0);
    let mut logs = Following::start(&cluster, "logs", &["logs", "count", "-f", "--json", "--tail", "5"]);
    let mut events = Following::start(&cluster, "events", &["events", "-f", "--json", "--last", "3"]);
    goes_on(&logs, 20);
    wait::until("events to be followed", ROOM, || match events.objects().len() {
        3.. => Ok(()),
        few => Err(format!("{few} events; {}", events.said())),
    });
    cluster.kill(cluster.role_pid("coordinator"));
    goes_on(&logs, 50);
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    cluster.kill(cluster.role_pid(&node));
    wait::until("the event of the agent's return", ROOM, || {
        let told = events.objects();
        let back = told.iter().any(|event| event["kind"] == "adopted" && event["node"] == node.as_str());
        if back { Ok(()) } else { Err(format!("{} events; {}", told.len(), events.said())) }
    });
    goes_on(&logs, 100);
    assert_eq!((logs.interrupt(), events.interrupt()), (INTERRUPTED, INTERRUPTED));
    for said in [logs.said(), events.said()] {
        assert!(said.contains("reconnecting") && said.contains("connected again"), "{said}");
    }
    for (instance, numbers) in counted(&logs.objects()) {
        let first = numbers[0];
        let expect: Vec<u64> = (first..first + numbers.len() as u64).collect();
        assert_eq!(numbers, expect, "{instance}: lost or doubled lines");
    }
    let numbers: Vec<u64> = events.objects().iter().filter_map(|event| event["seq"].as_u64()).collect();
    let expect: Vec<u64> = (numbers[0]..numbers[0] + numbers.len() as u64).collect();
    assert_eq!(numbers, expect, "lost or doubled events");
    // The same journal is there from any place on.
    let after = numbers[1].to_string();
    let rest = cluster.baton(&["events", "--after", &after, "--json"]).expect(0).stdout;
    let first: Value = serde_json::from_str(rest.lines().next().expect("an event")).expect("JSON");
    assert_eq!(first["seq"].as_u64(), Some(numbers[2]));
}

#[test]
fn logs_are_picked_by_expression_stream_node_and_instance() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let _ = cluster.deploy(&counter(&cluster), "1.0").expect(0);
    let lines = |args: &[&str]| -> Vec<Value> {
        let mut all = vec!["logs", "count", "--json"];
        all.extend(args);
        let printed = cluster.baton(&all).expect(0).stdout;
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    wait::until("thirty lines of each", ROOM, || {
        let all = counted(&lines(&["--since", "1h"]));
        let done = all.len() == 2 && all.values().all(|numbers| numbers.len() > 30);
        if done { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let picked = lines(&["--grep", "^line 1.$", "--tail", "3"]);
    assert!(picked.iter().all(|line| line["text"].as_str().is_some_and(|text| text.starts_with("line 1"))));
    assert_eq!(counted(&picked).into_values().collect::<Vec<_>>(), [[17, 18, 19], [17, 18, 19]]);
    let errors = lines(&["--stream", "stderr"]);
    assert!(!errors.is_empty() && errors.iter().all(|line| line["stream"] == "stderr"), "{errors:?}");
    let placed = cluster.instances("count");
    let (id, node) = (placed[0]["id"].as_str().expect("an id"), placed[0]["node"].as_str().expect("a node"));
    for filter in [["--node", node], ["--instance", id]] {
        let only: Vec<String> = counted(&lines(&filter)).into_keys().collect();
        assert_eq!(only, [id], "{filter:?}");
    }
    let wrong = cluster.baton(&["logs", "count", "--grep", "("]).expect(2);
    assert!(wrong.stderr.contains("regex"), "{}", wrong.stderr);
    let nowhere = cluster.baton(&["logs", "count", "--node", "node-9"]).expect(1);
    assert!(nowhere.stderr.contains("node-9"), "{}", nowhere.stderr);
    let never = cluster.baton(&["logs", "count", "--instance", "count.99"]).expect(1);
    assert!(never.stderr.contains("count.99"), "{}", never.stderr);
    let two = cluster.baton(&["logs", "count.1", "--instance", "count.2"]).expect(2);
    assert!(two.stderr.contains("two instances"), "{}", two.stderr);
    // The time that is printed is taken as well. It tells seconds, so the last line has to be of a later one than the first.
    let printed_moments = |more: &[&str]| -> Vec<String> {
        let mut all = vec!["logs", id, "--timestamps"];
        all.extend(more);
        let printed = cluster.baton(&all).expect(0).stdout;
        printed.lines().map(|line| line.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ")).collect()
    };
    let first = printed_moments(&["--since", "1h"]).swap_remove(0);
    let moment = wait::until("a line of a later second", ROOM, || {
        let last = printed_moments(&["--tail", "1"]).swap_remove(0);
        if last > first { Ok(last) } else { Err(format!("{first} then {last}")) }
    });
    let since = counted(&lines(&["--since", &moment, "--instance", id]));
    let all = counted(&lines(&["--since", "1h", "--instance", id]));
    assert!(!since[id].is_empty() && since[id][0] > all[id][0], "{moment}: {since:?} of {all:?}");

    // What was moved away is read where it was.
    let _ = cluster.baton(&["node", "drain", node]).expect(0);
    wait::until("its move", ROOM, || {
        let left =
            cluster.instances("count").iter().filter(|it| it["id"] == id || it["node"] == node).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    });
    for filter in [["--node", node], ["--instance", id]] {
        let only: Vec<String> = counted(&lines(&filter)).into_keys().collect();
        assert_eq!(only, [id], "{filter:?} of what is gone");
    }
}
