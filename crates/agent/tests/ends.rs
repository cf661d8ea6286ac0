//! How the ends of real workloads are told apart: what we did to them, what a signal did, and what left a core dump.
//! (Those of hooks, watchdogs and start deadlines are in `lifecycle`, killed for memory in `guest`.)

mod node;

use baton_agent::runs::RunEventKind;
use baton_model::observed::Exit;
use baton_model::spec::{RestartMode, StopSignal};
use baton_model::time::Millis;
use node::{Node, eventually, policy};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

/// The next end, whatever is told before it.
async fn ended(node: &mut Node) -> Exit {
    loop {
        if let RunEventKind::Exited { exit, .. } = node.event().await {
            return exit;
        }
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn ends_are_told_apart() {
    let mut node = Node::new();
    let script = "trap '' TERM; echo set >> traps; while :; do sleep 0.05; done";
    let handle = node.runs.start(node.shell(1, script)).await.unwrap();
    let traps = node.path("traps");
    eventually("its trap is set", || async { lines(&traps) == 1 }).await;
    handle.restart(StopSignal::Sigterm, Millis(200)).await.unwrap();
    assert_eq!(ended(&mut node).await, Exit::NotLive);
    node.started().await;
    eventually("its trap is set again", || async { lines(&traps) == 2 }).await;
    handle.stop(StopSignal::Sigterm, Millis(200)).await.unwrap();
    eventually("it is stopped", || async { handle.state().stopped.is_some() }).await;
    assert_eq!(handle.state().last_exit, Some(Exit::StopDeadline));
    node.finish(handle).await;
}

/// Whether this host dumps the core of what this script does in this folder. That is not the workload's to say: core(5)
/// has `kernel.core_pattern` and its helper decide, too. So a process that the test waits for itself is the measure.
fn host_dumps(script: &str, folder: &Path) -> bool {
    let ended = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(folder).status();
    let ended = ended.unwrap();
    assert_eq!(ended.signal(), Some(libc::SIGABRT));
    ended.core_dumped()
}

#[tokio::test]
async fn a_core_dump_is_told_from_a_signal() {
    for limit in ["unlimited", "0"] {
        let mut node = Node::new();
        let script = format!("ulimit -S -c {limit}; kill -ABRT $$");
        let dumps = host_dumps(&script, node.folder.path());
        let mut spec = node.shell(1, &script);
        spec.restart = policy(RestartMode::Never);
        let handle = node.runs.start(spec).await.unwrap();
        let expect = if dumps { Exit::CoreDump(libc::SIGABRT) } else { Exit::Signal(libc::SIGABRT) };
        assert_eq!(ended(&mut node).await, expect, "with a limit of {limit}");
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        println!("core_pattern {}, limit {limit}: {expect}", pattern.trim());
        // The kernel's own default: whatever the machine, one of the two is a dump.
        if pattern.trim() == "core" {
            let may = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap().1;
            assert_eq!(dumps, limit == "unlimited" && may > 1 << 20, "what this host does");
        }
        node.finish(handle).await;
    }
}
