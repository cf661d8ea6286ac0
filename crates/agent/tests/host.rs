//! A host that goes down and comes up again, as its agent lives through it.

mod node;
mod whole;
mod wire;

use baton_model::lifecycle::Near;
use baton_model::plan::InstancePlan;
use baton_proto::v1;
use node::{eventually, kill, lives, parent};
use std::path::Path;
use whole::Fixture;

/// As after a loss of power: nothing runs, what was written last may be empty, and the boot is another.
fn lose_power(fixture: &Fixture, pid: u32) {
    let shim = parent(pid);
    kill(shim);
    kill(pid);
    let runs = std::fs::read_dir(fixture.folder.path().join("runs")).unwrap();
    for run in runs.map(|entry| entry.unwrap().path()) {
        std::fs::write(run.join("run.json"), "").unwrap();
    }
    let path = fixture.folder.path().join("instances/web.1/instance.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(record["boot_id"].as_str().is_some_and(|id| !id.is_empty()), "{record}");
    record["boot_id"] = "00000000-0000-0000-0000-000000000001".into();
    std::fs::write(&path, record.to_string()).unwrap();
}

#[tokio::test]
async fn what_ended_with_its_host_is_told_so_and_started_again() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    agent.stop();
    lose_power(&f, first);
    eventually("nothing runs", || async { !lives(first) }).await;

    let agent = f.agent();
    eventually("another process", || async {
        f.seen().is_some_and(|seen| seen.pid.is_some_and(|pid| pid != first))
    })
    .await;
    f.ready(1).await;
    let lost = f.until_event("instance-lost").await;
    assert_eq!(lost.message, "web.1 (run 1) ended with its host, which was booted anew; it is started again");
    let adopted = f.until_event("adopted").await;
    assert_eq!((adopted.fields["lost"].as_str(), adopted.fields["booted"].as_str()), ("1", "true"));
    assert!(adopted.message.ends_with("1 ended with the host, which was booted"), "{}", adopted.message);
    let seen = f.seen().unwrap();
    let last = seen.last_exit.and_then(|exit| exit.kind);
    assert_eq!((last, seen.restarts), (Some(v1::exit::Kind::HostDown(true)), 0), "nothing of it crashed");

    // The next agent of this boot finds it running, and tells nothing of the sort.
    agent.stop();
    let agent = f.agent();
    eventually("it is adopted", || async {
        let events = f.wire.events.lock().unwrap();
        events.values().filter(|event| event.kind == "adopted" && event.fields["booted"] == "false").count()
            == 1
    })
    .await;
    assert_eq!(
        f.wire.events.lock().unwrap().values().filter(|event| event.kind == "instance-lost").count(),
        1
    );
    f.deploy(2, None);
    f.until_event("instance-removed").await;
    agent.stop();
}

/// A release that says in `story` when it is told to stop, and takes its time for it.
fn teller(f: &Fixture, name: &str, story: &Path, takes: &str) -> InstancePlan {
    let mut plan = f.release(1, "1.0");
    let story = story.display();
    let script = format!(
        "trap 'sleep {takes}; echo {name} >> {story}; exit 0' TERM; : > {story}.{name}; while :; do sleep 0.05; done"
    );
    plan.spec.name = name.parse().unwrap();
    plan.spec.exec = vec!["/bin/sh".into(), "-c".into(), script];
    plan.spec.ports.clear();
    plan.spec.checks.readiness = None;
    plan
}

#[tokio::test]
async fn a_halt_ends_last_what_others_come_after() {
    let f = Fixture::new().await;
    let agent = f.agent();
    let story = f.folder.path().join("story");
    // The quickest to end is the one that must be last.
    let db = teller(&f, "db", &story, "0");
    let mut web = teller(&f, "web", &story, "0.5");
    let mut edge = teller(&f, "edge", &story, "1");
    web.spec.lifecycle.after.insert("db".parse().unwrap(), Near::SameNode);
    edge.spec.lifecycle.after.insert("web".parse().unwrap(), Near::Anywhere);
    f.deploy_all(1, vec![db, web, edge]);
    eventually("all three run", || async {
        ["db", "web", "edge"].iter().all(|name| f.folder.path().join(format!("story.{name}")).exists())
    })
    .await;
    agent.stop();
    let halted = baton_agent::halt(f.folder.path()).await.unwrap();
    assert_eq!(halted.left, Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(&story).unwrap(), "edge\nweb\ndb\n");
    let ended: Vec<String> = halted.ended.iter().map(|(instance, _)| instance.to_string()).collect();
    assert_eq!(ended, ["edge.1", "web.1", "db.1"]);
}
