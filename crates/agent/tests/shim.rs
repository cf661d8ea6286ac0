//! Shims and workloads as real processes: restarts, stops, adoption.

mod node;

use baton_agent::runs::{Adoption, Containment, RunEventKind};
use baton_model::observed::Exit;
use baton_model::spec::{RestartMode, StopSignal};
use baton_model::time::Millis;
use node::{Node, eventually, kill, lives, pid_in, policy};

#[tokio::test]
async fn a_crash_is_followed_by_a_restart_at_once() {
    let mut node = Node::new();
    let handle = node.runs.start(node.shell(1, "exec sleep 1000")).await.unwrap();
    let first = node.started().await;
    eventually("it is alone", || async { handle.pids().unwrap() == [first] }).await;
    kill(first);
    let RunEventKind::Exited { exit, restarts: 0, restart_in, crash_loop: false, seq: 1, .. } =
        node.event().await
    else {
        panic!("not the end expected")
    };
    assert_eq!((exit, restart_in), (Exit::Signal(9), Some(Millis::ZERO)));
    let second = node.started().await;
    assert_ne!(first, second);
    assert_eq!(handle.state().restarts, 1);
    node.finish(handle).await;
    assert!(!lives(second));
    assert!(node.runs.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_workload_that_cannot_start_backs_off_into_a_crash_loop_and_is_retried() {
    let mut node = Node::new();
    let handle = node.runs.start(node.shell(1, "echo no luck >&2; exit 3")).await.unwrap();
    let mut loops = Vec::new();
    for number in 1..=5 {
        node.started().await;
        match node.event().await {
            RunEventKind::Exited {
                exit,
                restart_in,
                crash_loop,
                seq,
                last_stderr,
                restarts,
                damage: None,
            } => {
                assert_eq!((exit, seq, restarts), (Exit::Code(3), number, number as u32 - 1));
                assert_eq!(last_stderr, "no luck");
                assert!(restart_in.unwrap() <= Millis(200));
                assert!(number > 1 || restart_in == Some(Millis::ZERO));
                loops.push(crash_loop);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(loops, [false, false, true, true, true]);
    node.finish(handle).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_says_why() {
    let mut node = Node::new();
    let mut spec = node.shell(1, "");
    spec.program = node.path("nothing-here");
    spec.restart = policy(RestartMode::Never);
    let handle = node.runs.start(spec).await.unwrap();
    match node.event().await {
        RunEventKind::Exited { exit: Exit::Exec(errno), restart_in: None, .. } => {
            assert_eq!(errno, libc::ENOENT)
        }
        other => panic!("{other:?}"),
    }
    node.finish(handle).await;
}

#[tokio::test]
async fn what_a_crash_leaves_is_gone_before_the_next_start() {
    for containment in [Containment::detect(), Containment::process_group()] {
        let mut node = Node::with(containment);
        let script = "if [ -e helper ]; then exec sleep 1000; fi
                      sleep 1000 & echo $! > helper
                      setsid sh -c 'sleep 1000 & echo $! > daemon'
                      while ! [ -s daemon ]; do sleep 0.01; done; exit 1";
        let handle = node.runs.start(node.shell(1, script)).await.unwrap();
        node.started().await;
        let (helper, daemon) = (pid_in(&node.path("helper")).await, pid_in(&node.path("daemon")).await);
        assert!(matches!(node.event().await, RunEventKind::Exited { exit: Exit::Code(1), .. }));
        let next = node.started().await;
        assert!(!lives(helper) && !lives(daemon), "a helper or a daemon survived its workload");
        eventually("it is alone", || async { handle.pids().unwrap() == [next] }).await;
        node.finish(handle).await;
    }
}

#[tokio::test]
async fn one_that_goes_into_the_background_is_told_to_stay() {
    let mut node = Node::new();
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 1000' & \
                  while ! [ -s daemon ]; do sleep 0.01; done; echo started >&2";
    let handle = node.runs.start(node.shell(1, script)).await.unwrap();
    node.started().await;
    match node.event().await {
        RunEventKind::Exited { exit: Exit::Code(0), last_stderr, .. } => {
            assert!(last_stderr.contains("in the foreground"), "{last_stderr}");
        }
        other => panic!("{other:?}"),
    }
    node.finish(handle).await;
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_what_ignores_it() {
    let mut node = Node::new();
    let polite = node
        .runs
        .start(node.shell(1, "trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    node.started().await;
    polite.stop(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    assert_eq!(node.event().await, RunEventKind::Stopped { killed: false });
    node.finish(polite).await;

    let stubborn = node
        .runs
        .start(node.shell(2, "trap '' TERM; sleep 1000 & touch ready; while :; do sleep 1; done"))
        .await
        .unwrap();
    let pid = node.started().await;
    eventually("it ignores SIGTERM", || async { node.path("ready").exists() }).await;
    stubborn.stop(StopSignal::Sigterm, Millis(100)).await.unwrap();
    assert_eq!(node.event().await, RunEventKind::Stopped { killed: true });
    assert!(!lives(pid));
    assert!(stubborn.pids().unwrap().is_empty());
    // A stop of what is stopped is answered again.
    stubborn.stop(StopSignal::Sigterm, Millis(100)).await.unwrap();
    assert_eq!(node.event().await, RunEventKind::Stopped { killed: true });
    node.finish(stubborn).await;
}

#[tokio::test]
async fn a_stop_reaches_the_server_behind_a_shell() {
    let mut node = Node::new();
    let script = "python3 -c 'import signal, time
signal.signal(signal.SIGTERM, lambda *a: (open(\"served\", \"w\").close(), exit(0)))
open(\"ready\", \"w\").close()
time.sleep(1000)' & wait";
    let handle = node.runs.start(node.shell(1, script)).await.unwrap();
    node.started().await;
    eventually("the server runs", || async { node.path("ready").exists() }).await;
    handle.stop(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    assert_eq!(node.event().await, RunEventKind::Stopped { killed: false });
    assert!(node.path("served").exists());
    node.finish(handle).await;
}

#[tokio::test]
async fn an_ordered_restart_starts_again_whatever_the_mode() {
    let mut node = Node::new();
    let mut spec = node.shell(1, "exec sleep 1000");
    spec.restart = policy(RestartMode::Never);
    let handle = node.runs.start(spec).await.unwrap();
    let first = node.started().await;
    handle.restart(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    assert!(matches!(node.event().await, RunEventKind::Exited { restart_in: Some(Millis::ZERO), .. }));
    assert_ne!(node.started().await, first);
    node.finish(handle).await;
}

#[tokio::test]
async fn a_run_that_is_not_stopped_refuses_to_quit() {
    let mut node = Node::new();
    let handle = node.runs.start(node.shell(1, "exec sleep 1000")).await.unwrap();
    let pid = node.started().await;
    assert!(matches!(handle.quit().await, Err(baton_agent::runs::RunError::Busy { .. })));
    assert!(lives(pid));
    assert!(node.runs.forget(handle.instance(), handle.run()).await.is_err());
    node.finish(handle).await;
}

#[tokio::test]
async fn a_new_agent_adopts_and_misses_no_end() {
    let mut node = Node::new();
    let script = "echo started >> starts; while ! [ -e go ]; do sleep 0.01; done; rm go; exit 7";
    let mut spec = node.shell(1, script);
    spec.ports.insert("http".to_owned(), 8080);
    spec.listeners.push(node::listener());
    let inode = spec.listeners[0].inode;
    let old = node.runs.start(spec).await.unwrap();
    node.started().await;
    std::fs::write(node.path("go"), "").unwrap();
    assert!(matches!(node.event().await, RunEventKind::Exited { seq: 1, .. }));
    old.acknowledge(1).await.unwrap();
    drop(old);
    // The agent that was connected is told nothing more: this one has no task. Two more ends meanwhile.
    node.restart();
    let adopted = node.adopted(1).await;
    assert_eq!(adopted.handle.release().0, 1);
    assert_eq!(adopted.handle.ports()["http"], 8080);
    assert_eq!(adopted.handle.listeners()[0].inode, inode);
    assert_eq!(adopted.state.last_exit, Some(Exit::Code(7)));
    drop(adopted);
    node.restart();
    for _ in 0..2 {
        std::fs::write(node.path("go"), "").unwrap();
        eventually("the workload takes it", || async { !node.path("go").exists() }).await;
    }
    let log = || std::fs::read_dir(node.path("log-1")).unwrap().count();
    assert_eq!(log(), 1);
    let starts = || std::fs::read_to_string(node.path("starts")).unwrap().lines().count();
    eventually("it runs again", || async { starts() == 4 }).await;
    let adopted = node.adopted(1).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let RunEventKind::Exited { seq, exit, .. } = node.event().await {
            assert_eq!(exit, Exit::Code(7));
            seen.push(seq);
        }
    }
    assert_eq!(seen, [2, 3]);
    let pid = node.started().await;
    assert!(lives(pid), "it has run since the last of these ends");
    assert_eq!(adopted.handle.state().pid, Some(pid));
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn a_shim_that_was_killed_is_told_and_its_workload_removed() {
    for containment in [Containment::detect(), Containment::process_group()] {
        let mut node = Node::with(containment);
        let script = "sleep 1000 & setsid sleep 1000 & echo $! > daemon; exec sleep 1000";
        let handle = node.runs.start(node.shell(1, script)).await.unwrap();
        let pid = node.started().await;
        let daemon = pid_in(&node.path("daemon")).await;
        kill(handle.state().shim_pid);
        assert_eq!(node.event().await, RunEventKind::ShimLost);
        assert!(!lives(pid) && !lives(daemon));
        node::forget(&node.runs, &handle).await;
    }
}

#[tokio::test]
async fn a_run_whose_shim_was_killed_without_an_agent_is_gone_and_cleaned() {
    let mut node = Node::new();
    let handle = node.runs.start(node.shell(1, "exec sleep 1000")).await.unwrap();
    let pid = node.started().await;
    let directory = node.runs.directory(handle.instance(), handle.run());
    // As another agent would find it: a copy whose shim has a process id that now means this test.
    let copy = node.path("runs/web.1-2");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(directory.join("run.json"), copy.join("run.json")).unwrap();
    let state = std::fs::read_to_string(directory.join("shim.state")).unwrap();
    let mut words: Vec<&str> = state.split_ascii_whitespace().collect();
    let me = std::process::id().to_string();
    let foreign = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let foreign_pid = foreign.id().to_string();
    (words[2], words[3], words[4], words[5]) = (&me, "1", &foreign_pid, "1");
    std::fs::write(copy.join("shim.state"), words.join(" ")).unwrap();
    // The mark in run.json is that of the live run, so take it away, too.
    let record = std::fs::read_to_string(copy.join("run.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["mark"] = "00000000000000000000000000000001".into();
    record["group"] = serde_json::Value::Null;
    std::fs::write(copy.join("run.json"), record.to_string()).unwrap();
    assert!(matches!(node.adopt(2).await, Adoption::Gone { record: Some(_), .. }));
    assert!(lives(foreign.id()), "a foreign process was signalled");
    assert!(lives(pid));
    kill(foreign.id());
    let mut foreign = foreign;
    foreign.wait().unwrap();
    node.finish(handle).await;
}

#[tokio::test]
async fn a_wrong_cookie_is_refused_and_changes_nothing() {
    let mut node = Node::new();
    let handle = node.runs.start(node.shell(1, "exec sleep 1000")).await.unwrap();
    let pid = node.started().await;
    let directory = node.runs.directory(handle.instance(), handle.run());
    let copy = node.path("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(directory.join("shim.state"), copy.join("shim.state")).unwrap();
    std::os::unix::fs::symlink(directory.join("control"), copy.join("control")).unwrap();
    let record = std::fs::read_to_string(directory.join("run.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["cookie"] = "00000000000000000000000000000001".into();
    std::fs::write(copy.join("run.json"), record.to_string()).unwrap();
    let refused = node.runs.adopt(&copy).await.unwrap_err().to_string();
    assert!(refused.contains("Cookie"), "{refused}");
    assert!(lives(pid));
    // The connection of the true agent is the same as before.
    node.finish(handle).await;
}

#[tokio::test]
async fn an_agent_killed_at_once_leaves_its_workload_running() {
    let mut node = Node::new();
    let exe = env!("CARGO_BIN_EXE_baton-shim-test");
    let mut agent = std::process::Command::new(exe).arg("agent").arg(node.folder.path()).spawn().unwrap();
    let pid = pid_in(&node.path("pid")).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(lives(pid));
    let adopted = node.adopted(1).await;
    assert_eq!(adopted.state.pid, Some(pid));
    assert_eq!(adopted.state.restarts, 0);
    // Still under the same shim, which restarts it and tells the new agent.
    kill(pid);
    assert!(matches!(node.event().await, RunEventKind::Exited { exit: Exit::Signal(9), seq: 1, .. }));
    assert_ne!(node.started().await, pid);
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn the_queue_outlives_agent_and_shim_in_the_workload() {
    let node = Node::new();
    let exe = env!("CARGO_BIN_EXE_baton-shim-test");
    let mut agent = std::process::Command::new(exe).arg("agent").arg(node.folder.path()).spawn().unwrap();
    let pid = pid_in(&node.path("pid")).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    kill(node::parent(pid));
    assert!(lives(pid));
    // With neither of them there: whoever connects waits in the queue.
    let directory = node.runs.directory(&"web.1".parse().unwrap(), baton_model::id::RunNumber(1));
    let record = std::fs::read_to_string(directory.join("run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let address: std::net::SocketAddr = record["listeners"][0][1].as_str().unwrap().parse().unwrap();
    let mut client = std::net::TcpStream::connect(address).unwrap();
    let Adoption::Gone { listeners, .. } = node.adopt(1).await else { panic!("it has no shim") };
    assert!(!lives(pid), "what no shim holds is ended");
    assert_eq!(listeners.len(), 1);
    assert!(listeners[0].listens());
    let socket = std::net::TcpListener::from(listeners[0].socket.try_clone().unwrap());
    let (mut server, from) = socket.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    std::io::Write::write_all(&mut server, b"x").unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(&mut client, &mut byte).unwrap();
    node.runs.forget(&"web.1".parse().unwrap(), baton_model::id::RunNumber(1)).await.unwrap();
}
