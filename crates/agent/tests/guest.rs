//! Limits of real control groups, in a guest with a kernel that has all controllers (`cargo xtask guest`).
//!
//! The programs are busybox's. Nothing is timed but by what the kernel itself counts: the guest is emulated.

mod node;

use baton_agent::runs::{Confinement, Containment, ContainmentKind, Needs, RunEventKind, RunHandle, RunSpec};
use baton_model::confinement::{Controller, Limits, Sandbox};
use baton_model::observed::Exit;
use node::{Node, eventually, lives, pid_in};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// A run of a script under these limits, with its control group.
async fn limited(node: &mut Node, limits: Limits, script: &str) -> (RunHandle, PathBuf) {
    let needs = Needs { tree: node.path(""), home: node.path("home"), program: "/bin/sh".into() };
    let confinement = Confinement::resolve(&limits, &Sandbox::default(), &needs, node.runs.host()).unwrap();
    let spec = node.shell(1, script);
    let handle = node.runs.start(RunSpec { confinement, ..spec }).await.unwrap();
    node.started().await;
    let record =
        std::fs::read(node.runs.directory(handle.instance(), handle.run()).join("run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    (handle, Path::new(record["group"].as_str().unwrap()).join("work"))
}

fn number(file: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.trim().parse().unwrap()
}

/// One life of the agent after another, as in one boot: the first divides the tree, the next ones find it divided.
#[tokio::test]
async fn limits_hold() {
    let containment = Containment::detect();
    assert_eq!(containment.kind(), ContainmentKind::Cgroup2);
    assert_eq!(*containment.controllers(), Controller::ALL.into(), "all controllers are handed down");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(own.trim().ends_with("/agent"), "the agent is in a leaf of its own: {own}");
    assert_eq!(Containment::detect(), containment, "the next agent finds the same");
    println!("guest: controllers {:?}", containment.controllers());

    a_memory_hog_is_killed_whole_and_restarted().await;
    a_fork_bomb_stays_under_its_limit().await;
    a_processor_is_shared_out().await;
    processor_time_is_shared_by_weight().await;
    what_is_above_memory_high_is_held_back().await;
    a_core_dump_is_told_from_a_signal().await;
    everything_else_is_written_as_asked().await;
    the_favour_of_an_agent_is_not_the_workloads().await;
}

async fn a_memory_hog_is_killed_whole_and_restarted() {
    let mut node = Node::new();
    // The helper does nothing wrong, and is worth nothing without the rest.
    let script = "[ -e helper ] && exec sleep 1000
                  setsid sleep 1000 & echo $! > helper
                  tail /dev/zero; exec sleep 1000";
    let limits = Limits { memory_max: Some(24 * MIB), ..Limits::default() };
    let (handle, group) = limited(&mut node, limits, script).await;
    match node.event().await {
        RunEventKind::Exited { exit, .. } => assert_eq!(exit, Exit::OutOfMemory),
        other => panic!("{other:?}"),
    }
    node.started().await;
    let helper = pid_in(&node.path("helper")).await;
    eventually("what belonged to it was killed with it", || async { !lives(helper) }).await;
    let (kills, group_kills) = (
        number(&group.join("memory.events"), "oom_kill "),
        number(&group.join("memory.events"), "oom_group_kill "),
    );
    println!("guest: memory hog: {kills} processes killed in {group_kills} kill of the group, restarted");
    assert!(kills >= 2 && group_kills == 1, "{kills} {group_kills}");
    assert_eq!(number(&group.join("memory.max"), ""), 24 * MIB, "the next life has the same limit");
    assert_eq!(number(&group.join("memory.swap.max"), ""), 0, "and cannot get round it");
    node.finish(handle).await;
    assert!(!group.exists());
}

async fn a_fork_bomb_stays_under_its_limit() {
    const MOST: u32 = 24;
    let mut node = Node::new();
    let script = "bomb() { while :; do sleep 1000 & done; }; bomb & bomb & wait; sleep 1000";
    let limits = Limits { pids_max: Some(MOST), ..Limits::default() };
    let (handle, group) = limited(&mut node, limits, script).await;
    let refused = || number(&group.join("pids.events"), "max ");
    eventually("the limit is reached", || async { refused() > 0 }).await;
    let processes = handle.pids().unwrap().len();
    println!("guest: fork bomb: {processes} processes of at most {MOST}, {} forks refused", refused());
    assert!(processes <= MOST as usize);
    // The agent and its neighbours fork as ever.
    let neighbour = std::process::Command::new("/bin/true").status().unwrap();
    assert!(neighbour.success());
    node.finish(handle).await;
    assert!(!group.exists(), "nothing is left");
}

async fn a_processor_is_shared_out() {
    let mut node = Node::new();
    let limits = Limits { cpu_percent: Some(20), cpu_weight: Some(50), ..Limits::default() };
    let (handle, group) = limited(&mut node, limits, "while :; do :; done").await;
    let stat = group.join("cpu.stat");
    eventually("it is held back", || async { number(&stat, "nr_throttled ") >= 10 }).await;
    // Of each period it may use a fifth, however slow the machine is.
    let (used, periods) = (number(&stat, "usage_usec "), number(&stat, "nr_periods "));
    let share = used as f64 / (periods as f64 * 100_000.0);
    println!("guest: endless loop: {:.0} % of a processor, asked for 20 %", share * 100.0);
    assert!(share < 0.35, "{share}");
    node.finish(handle).await;
}

/// Both want all of the one processor: the heavier gets four times as much.
async fn processor_time_is_shared_by_weight() {
    const LOOP: &str = "while :; do :; done";
    let weight = |weight| Limits { cpu_weight: Some(weight), ..Limits::default() };
    let (mut one, mut other) = (Node::new(), Node::new());
    let (heavy, heavy_group) = limited(&mut one, weight(400), LOOP).await;
    let (light, light_group) = limited(&mut other, weight(100), LOOP).await;
    let used = |group: &Path| number(&group.join("cpu.stat"), "usage_usec ");
    let before = (used(&heavy_group), used(&light_group));
    eventually("the lighter has had its share", || async { used(&light_group) >= before.1 + 4_000_000 })
        .await;
    let (heavy_used, light_used) = (used(&heavy_group) - before.0, used(&light_group) - before.1);
    let ratio = heavy_used as f64 / light_used as f64;
    println!("guest: weights of 400 and 100: {ratio:.1} times the processor time");
    assert!((2.5..6.0).contains(&ratio), "{ratio}");
    one.finish(heavy).await;
    other.finish(light).await;
}

/// Above it the workload is slowed and not killed.
async fn what_is_above_memory_high_is_held_back() {
    let mut node = Node::new();
    let limits = Limits { memory_high: Some(16 * MIB), ..Limits::default() };
    let (handle, group) = limited(&mut node, limits, "exec tail /dev/zero").await;
    let held = || number(&group.join("memory.events"), "high ");
    eventually("it is held back", || async { held() >= 20 }).await;
    println!(
        "guest: above memory.high: held back {} times, at {} MiB",
        held(),
        number(&group.join("memory.current"), "") / MIB
    );
    assert_eq!(number(&group.join("memory.events"), "oom_kill "), 0);
    assert_eq!(handle.state().restarts, 0);
    node.finish(handle).await;
}

/// A kernel whose `core_pattern` is the plain one writes the dump into the folder of the workload.
async fn a_core_dump_is_told_from_a_signal() {
    std::fs::write("/proc/sys/kernel/core_pattern", "core").unwrap();
    std::fs::write("/proc/sys/kernel/core_uses_pid", "0").unwrap();
    for (core_bytes, expect) in [(64 * MIB, Exit::CoreDump(6)), (0, Exit::Signal(6))] {
        let mut node = Node::new();
        let limits = Limits { core_bytes: Some(core_bytes), ..Limits::default() };
        let script = "while [ ! -e go ]; do sleep 0.1; done; rm go; kill -ABRT $$";
        let (handle, _) = limited(&mut node, limits, script).await;
        std::fs::write(node.path("go"), "").unwrap();
        match node.event().await {
            RunEventKind::Exited { exit, .. } => assert_eq!(exit, expect),
            other => panic!("{other:?}"),
        }
        assert_eq!(node.path("core").exists(), core_bytes > 0);
        node.started().await;
        node.finish(handle).await;
    }
    println!("guest: a core dump of up to 64 MiB is told as one, and with a limit of 0 it is a signal");
}

async fn everything_else_is_written_as_asked() {
    let mut node = Node::new();
    let limits = Limits {
        io_weight: Some(50),
        cpu_weight: Some(200),
        memory_high: Some(64 * MIB),
        ..Limits::default()
    };
    let (handle, group) = limited(&mut node, limits, "exec sleep 1000").await;
    let shared = group.parent().unwrap();
    assert_eq!(number(&shared.join("cpu.weight"), ""), 200);
    assert_eq!(number(&shared.join("io.weight"), "default "), 50);
    assert_eq!(number(&group.join("memory.high"), ""), 64 * MIB);
    // What was not asked for is not handed down, and costs nothing.
    assert!(!group.join("pids.max").exists());
    node.finish(handle).await;
    println!("guest: weights are as asked, and no controller that was not");
}

/// An agent that the kernel spares when memory runs out, as its unit has it, does not pass that on.
async fn the_favour_of_an_agent_is_not_the_workloads() {
    std::fs::write("/proc/self/oom_score_adj", "-900").unwrap();
    let mut node = Node::new();
    let (handle, _) = limited(&mut node, Limits::default(), "exec sleep 1000").await;
    let score = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let workload = handle.pids().unwrap()[0];
    println!(
        "guest: spared by -900: the shim {}, its workload {}",
        score(handle.state().shim_pid).trim(),
        score(workload).trim()
    );
    assert_eq!((score(handle.state().shim_pid).trim(), score(workload).trim()), ("-900", "0"));
    node.finish(handle).await;
}
