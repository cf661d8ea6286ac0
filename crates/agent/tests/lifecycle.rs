//! What a shim does around a workload, with real processes: notification, watchdog, deadlines, reload and hooks.

mod node;

use baton_agent::runs::{Containment, Lifecycle, Reload, RunEventKind, RunSpec, Timed};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::{Exit, HookEnd};
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use node::{Node, eventually, lives, pid_in};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Sends one message of sd_notify(3) as a helper of the workload does, and waits until it was taken in.
const NOTIFY: &str = env!("CARGO_BIN_EXE_baton-shim-test");

/// The script with `notify` as a word for that.
fn with_notify(script: &str) -> String {
    format!("notify() {{ {NOTIFY} notify \"$@\"; }}\n{script}")
}

fn hook(script: &str, timeout_ms: u64) -> Option<Timed> {
    Some(Timed {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        timeout: Millis(timeout_ms),
    })
}

fn place(point: HookPoint) -> usize {
    [HookPoint::BeforeStart, HookPoint::AfterReady, HookPoint::BeforeStop, HookPoint::AfterStop]
        .iter()
        .position(|it| *it == point)
        .unwrap()
}

fn hooks(hooks: Vec<(HookPoint, Option<Timed>)>) -> Lifecycle {
    let mut lifecycle = Lifecycle::default();
    for (point, hook) in hooks {
        lifecycle.hooks[place(point)] = hook;
    }
    lifecycle
}

fn spec(node: &Node, script: &str, lifecycle: Lifecycle) -> RunSpec {
    RunSpec { lifecycle, ..node.shell(1, &with_notify(script)) }
}

/// The next end, whatever is told before it.
async fn ended(node: &mut Node) -> (Exit, Option<Millis>, String) {
    loop {
        if let RunEventKind::Exited { exit, restart_in, last_stderr, .. } = node.event().await {
            return (exit, restart_in, last_stderr);
        }
    }
}

async fn reloaded(node: &mut Node) -> (u64, Option<String>) {
    loop {
        if let RunEventKind::Reloaded { number, failure } = node.event().await {
            return (number, failure);
        }
    }
}

async fn hook_failed(node: &mut Node) -> (HookPoint, HookEnd, String) {
    loop {
        if let RunEventKind::HookFailed { point, end, last_line } = node.event().await {
            return (point, end, last_line);
        }
    }
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn log(node: &Node) -> String {
    std::fs::read_to_string(node.path("log-1").join("current")).unwrap_or_default()
}

#[tokio::test]
async fn a_workload_says_how_it_is_and_that_outlives_the_agent() {
    let mut node = Node::new();
    let script = "notify READY=1 'STATUS=serving 3 peers'; while [ ! -e stop ]; do sleep 0.05; done; \
                  notify STOPPING=1; exec sleep 1000";
    let handle = node.runs.start(spec(&node, script, Lifecycle::default())).await.unwrap();
    node.started().await;
    let mut state = handle.watch();
    let said = state.wait_for(|state| state.notified.ready).await.unwrap().notified.clone();
    assert_eq!((said.status.as_str(), said.stopping), ("serving 3 peers", false));
    drop(handle);
    node.restart();
    let adopted = node.adopted(1).await;
    assert!(adopted.state.notified.ready);
    assert_eq!(adopted.state.notified.status, "serving 3 peers");
    std::fs::write(node.path("stop"), "").unwrap();
    adopted.handle.watch().wait_for(|state| state.notified.stopping).await.unwrap();
    // What it said is forgotten with it.
    std::fs::remove_file(node.path("stop")).unwrap();
    node::kill(adopted.state.pid.unwrap());
    ended(&mut node).await;
    node.started().await;
    assert!(!adopted.handle.state().notified.stopping);
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn only_processes_of_the_run_are_heard() {
    let mut node = Node::new();
    let script = "echo $NOTIFY_SOCKET > name.new; mv name.new name; while [ ! -e go ]; do sleep 0.05; done; \
                  notify STATUS=mine; exec sleep 1000";
    let handle = node.runs.start(spec(&node, script, Lifecycle::default())).await.unwrap();
    eventually("the name is written", || async { node.path("name").exists() }).await;
    let name = std::fs::read_to_string(node.path("name")).unwrap();
    let address = SocketAddr::from_abstract_name(name.trim().strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    socket.send_to_addr(b"READY=1\nSTATUS=theirs", &address).unwrap();
    std::fs::write(node.path("go"), "").unwrap();
    // The messages are taken in their order: the stranger's was before this one.
    let said =
        handle.watch().wait_for(|state| !state.notified.status.is_empty()).await.unwrap().notified.clone();
    assert_eq!((said.status.as_str(), said.ready), ("mine", false));
    node.finish(handle).await;
}

#[tokio::test]
async fn a_missed_watchdog_ends_the_workload_and_starts_it_again_without_the_agent() {
    let mut node = Node::new();
    let lifecycle = Lifecycle { watchdog: Some(Millis(5_000)), ..Lifecycle::default() };
    // Alive for longer than its watchdog, then silent.
    let script = "echo $WATCHDOG_USEC $WATCHDOG_PID $$ >> told; \
                  for i in $(seq 30); do notify WATCHDOG=1; sleep 0.2; done; echo silent >> told; exec sleep 1000";
    let handle = node.runs.start(spec(&node, script, lifecycle)).await.unwrap();
    let first = node.started().await;
    drop(handle);
    node.restart();
    let told = node.path("told");
    eventually("it is started again", || async { lines(&told).len() >= 3 }).await;
    let told = lines(&told);
    assert_eq!(told[0], format!("5000000 {first} {first}"));
    assert_eq!(told[1], "silent", "it was alive for as long as it said so");
    let adopted = node.adopted(1).await;
    let (exit, restart_in, _) = ended(&mut node).await;
    assert_eq!((exit, restart_in), (Exit::Watchdog, Some(Millis::ZERO)));
    assert_ne!(adopted.state.pid, Some(first));
    node.finish(adopted.handle).await;
}

#[tokio::test]
async fn a_workload_may_ask_to_be_restarted_and_may_change_its_watchdog() {
    let mut node = Node::new();
    let handle = node
        .runs
        .start(spec(&node, "notify WATCHDOG=trigger; exec sleep 1000", Lifecycle::default()))
        .await
        .unwrap();
    assert_eq!(ended(&mut node).await.0, Exit::WatchdogTriggered);
    node.finish(handle).await;

    // Shorter than it was, or one where there was none.
    for watchdog in [Some(Millis(60_000)), None] {
        let mut node = Node::new();
        let lifecycle = Lifecycle { watchdog, ..Lifecycle::default() };
        let script = "notify WATCHDOG_USEC=300000; exec sleep 1000";
        let handle = node.runs.start(spec(&node, script, lifecycle)).await.unwrap();
        assert_eq!(ended(&mut node).await.0, Exit::Watchdog);
        node.finish(handle).await;
    }

    // And none where there was one; it would have counted from `READY=1`.
    let mut node = Node::new();
    let lifecycle =
        Lifecycle { ready_within: Some(Millis(60_000)), watchdog: Some(Millis(100)), ..Lifecycle::default() };
    let script =
        "notify WATCHDOG_USEC=0; notify READY=1; sleep 0.5; notify WATCHDOG=trigger; exec sleep 1000";
    let handle = node.runs.start(spec(&node, script, lifecycle)).await.unwrap();
    assert_eq!(ended(&mut node).await.0, Exit::WatchdogTriggered);
    node.finish(handle).await;
}

#[tokio::test]
async fn a_start_has_a_deadline_that_can_be_moved() {
    let mut node = Node::new();
    let lifecycle = Lifecycle { ready_within: Some(Millis(500)), ..Lifecycle::default() };
    let handle = node.runs.start(spec(&node, "exec sleep 1000", lifecycle.clone())).await.unwrap();
    assert_eq!(ended(&mut node).await.0, Exit::StartDeadline);
    node.finish(handle).await;

    let mut node = Node::new();
    let lifecycle = Lifecycle { ready_within: Some(Millis(5_000)), ..lifecycle };
    let script = "notify EXTEND_TIMEOUT_USEC=60000000; sleep 6; notify READY=1; exec sleep 1000";
    let handle = node.runs.start(spec(&node, script, lifecycle)).await.unwrap();
    node.started().await;
    handle.watch().wait_for(|state| state.notified.ready).await.unwrap();
    assert_eq!(handle.state().restarts, 0);
    node.finish(handle).await;
}

#[tokio::test]
async fn a_reload_is_a_signal_and_waits_for_its_answer() {
    let mut node = Node::new();
    let signal = Reload::Signal { signal: 1, timeout: Millis::secs(20) };
    let lifecycle =
        Lifecycle { reload: Some(signal), ready_within: Some(Millis::secs(60)), ..Lifecycle::default() };
    let script = "trap 'notify RELOADING=1; echo again >> reloads; notify READY=1' HUP; notify READY=1; \
                  while :; do sleep 0.05; done";
    let handle = node.runs.start(spec(&node, script, lifecycle.clone())).await.unwrap();
    node.started().await;
    handle.watch().wait_for(|state| state.notified.ready).await.unwrap();
    handle.reload(1).await.unwrap();
    assert_eq!(reloaded(&mut node).await, (1, None));
    assert_eq!(lines(&node.path("reloads")).len(), 1);
    // Said again after an agent's death, it is answered and not done again.
    drop(handle);
    node.restart();
    let handle = node.adopted(1).await.handle;
    handle.reload(1).await.unwrap();
    assert_eq!(reloaded(&mut node).await, (1, None));
    assert_eq!(lines(&node.path("reloads")).len(), 1);
    node.finish(handle).await;

    let mut node = Node::new();
    let signal = Some(Reload::Signal { signal: 1, timeout: Millis(300) });
    let script = "trap '' HUP; notify READY=1; exec sleep 1000";
    let handle =
        node.runs.start(spec(&node, script, Lifecycle { reload: signal, ..lifecycle })).await.unwrap();
    handle.watch().wait_for(|state| state.notified.ready).await.unwrap();
    handle.reload(7).await.unwrap();
    let (number, failure) = reloaded(&mut node).await;
    assert_eq!(number, 7);
    assert!(failure.unwrap().contains("READY=1"));
    assert_eq!(handle.state().restarts, 0, "it goes on as it was");
    node.finish(handle).await;
}

#[tokio::test]
async fn a_reload_is_a_command_beside_the_workload() {
    let mut node = Node::new();
    let reload = hook("echo $MAINPID >> reloads; [ -e good ]", 10_000).map(Reload::Command);
    let lifecycle = Lifecycle { reload, ..Lifecycle::default() };
    let handle = node.runs.start(spec(&node, "exec sleep 1000", lifecycle)).await.unwrap();
    let pid = node.started().await;
    handle.reload(1).await.unwrap();
    let (number, failure) = reloaded(&mut node).await;
    assert_eq!((number, failure.as_deref()), (1, Some("its reload command: exit code 1")));
    std::fs::write(node.path("good"), "").unwrap();
    handle.reload(2).await.unwrap();
    assert_eq!(reloaded(&mut node).await, (2, None));
    assert_eq!(lines(&node.path("reloads")), [pid.to_string(), pid.to_string()]);
    assert!(lives(pid));
    node.finish(handle).await;
}

#[tokio::test]
async fn hooks_stand_around_each_life_of_the_workload() {
    let mut node = Node::new();
    let say = |word: &str| hook(&format!("echo {word} >> story; echo {word} was here"), 10_000);
    let lifecycle = hooks(vec![
        (HookPoint::BeforeStart, say("before_start")),
        (HookPoint::AfterReady, say("after_ready")),
        (HookPoint::BeforeStop, say("before_stop")),
        (HookPoint::AfterStop, say("after_stop")),
    ]);
    let script = "trap 'echo stopped >> story; exit 0' TERM; echo started >> story; \
                  while :; do sleep 0.05; done";
    let handle = node.runs.start(spec(&node, script, lifecycle)).await.unwrap();
    let pid = node.started().await;
    let story = node.path("story");
    eventually("it has begun", || async { lines(&story).len() == 2 }).await;
    handle.ready(pid).await.unwrap();
    eventually("it is told to be ready", || async { lines(&story).len() == 3 }).await;
    // Told again, as by an agent that starts anew, it is not run again.
    handle.ready(pid).await.unwrap();
    node::kill(pid);
    ended(&mut node).await;
    let again = node.started().await;
    eventually("it has begun again", || async { lines(&story).len() == 6 }).await;
    handle.ready(again).await.unwrap();
    eventually("the second life is ready", || async { lines(&story).len() == 7 }).await;
    handle.stop(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    while !matches!(node.event().await, RunEventKind::Stopped { killed: false }) {}
    let first = ["before_start", "started", "after_ready"];
    let second = ["after_stop", "before_start", "started", "after_ready"];
    let last = ["before_stop", "stopped", "after_stop"];
    assert_eq!(lines(&story), [&first[..], &second[..], &last[..]].concat());
    let log = log(&node);
    for word in ["before_start", "after_ready", "before_stop", "after_stop"] {
        assert!(log.contains(&format!(" F [{word}] {word} was here\n")), "{log}");
    }
    node.finish(handle).await;
}

#[tokio::test]
async fn a_hook_that_fails_before_the_start_counts_as_a_crash() {
    let mut node = Node::new();
    let script = "echo no database; [ -e good ] || exit 3";
    let lifecycle = hooks(vec![(HookPoint::BeforeStart, hook(script, 10_000))]);
    let handle = node.runs.start(spec(&node, "exec sleep 1000", lifecycle)).await.unwrap();
    for number in 0..3 {
        let (exit, restart_in, last_line) = ended(&mut node).await;
        assert_eq!(exit, Exit::BeforeStart(HookEnd::Code(3)));
        assert_eq!(exit.to_string(), "before_start hook: exit code 3");
        assert_eq!(last_line, "no database");
        assert!(number > 0 || restart_in == Some(Millis::ZERO));
    }
    std::fs::write(node.path("good"), "").unwrap();
    eventually("it is started", || async { handle.state().pid.is_some() }).await;
    node.finish(handle).await;
}

#[tokio::test]
async fn a_hook_that_hangs_is_killed_with_its_tree_and_the_workload_lives() {
    for containment in [Containment::detect(), Containment::process_group()] {
        let mut node = Node::with(containment);
        let hang = "sleep 1000 & echo $! > child; echo $$ > hook; wait";
        let lifecycle = hooks(vec![(HookPoint::AfterReady, hook(hang, 5_000))]);
        let handle = node.runs.start(spec(&node, "exec sleep 1000", lifecycle)).await.unwrap();
        let pid = node.started().await;
        handle.ready(pid).await.unwrap();
        let (point, end, _) = hook_failed(&mut node).await;
        assert_eq!((point, end), (HookPoint::AfterReady, HookEnd::Timeout));
        let (hook, child) = (pid_in(&node.path("hook")).await, pid_in(&node.path("child")).await);
        eventually("its tree is gone", || async { !lives(hook) && !lives(child) }).await;
        assert!(lives(pid));
        eventually("the workload is alone", || async { handle.pids().unwrap() == [pid] }).await;
        node.finish(handle).await;
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_a_hook() {
    let mut node = Node::new();
    let lifecycle = hooks(vec![
        (HookPoint::BeforeStop, hook("exec sleep 1000", 300)),
        (HookPoint::AfterStop, hook("exec sleep 1000", 300)),
    ]);
    let handle = node.runs.start(spec(&node, "exec sleep 1000", lifecycle)).await.unwrap();
    let pid = node.started().await;
    handle.stop(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    assert_eq!(hook_failed(&mut node).await.0, HookPoint::BeforeStop);
    assert_eq!(hook_failed(&mut node).await.0, HookPoint::AfterStop);
    while !matches!(node.event().await, RunEventKind::Stopped { .. }) {}
    assert!(!lives(pid));
    node.finish(handle).await;
}

#[tokio::test]
async fn a_stop_in_a_hook_before_the_start_starts_nothing() {
    let mut node = Node::new();
    let lifecycle = hooks(vec![(HookPoint::BeforeStart, hook("echo $$ > hook; exec sleep 1000", 60_000))]);
    let handle = node.runs.start(spec(&node, "echo started > story", lifecycle)).await.unwrap();
    let hook = pid_in(&node.path("hook")).await;
    handle.stop(StopSignal::Sigterm, Millis::secs(20)).await.unwrap();
    while !matches!(node.event().await, RunEventKind::Stopped { .. }) {}
    assert!(!lives(hook));
    assert!(!node.path("story").exists());
    node.finish(handle).await;
}
