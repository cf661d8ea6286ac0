//! What an agent with 10 idle instances costs, and what a shim costs.

use crate::adopt::idle_instances;
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions};
use std::time::{Duration, Instant};

/// Long enough for several of every periodic thing the agent does.
const WATCHED: Duration = Duration::from_secs(30);
/// After a deploy, until what it stirred up has settled.
const SETTLE: Duration = Duration::from_secs(5);

/// What a running agent costs.
pub(crate) struct Cost {
    pub(crate) resident_mib: f64,
    pub(crate) peak_mib: f64,
    pub(crate) core_percent: f64,
}

/// Prints resident memory and processor share of the agent, and proportional memory of the shims.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let node = cluster.ready["nodes"][0]["name"].as_str().context("a node")?.to_owned();
    let ran = cluster.deploy(&idle_instances(10), "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let cost = watch(cluster.role_pid(&node))?;
    println!(
        "\nagent with 10 idle instances: {:.1} MiB resident (peak {:.1}), {:.2} % of a core",
        cost.resident_mib, cost.peak_mib, cost.core_percent
    );
    let shims = shims(&cluster)?;
    println!("shim: {:.2} MiB proportional set size (median of {})", crate::median(&shims), shims.len());
    Ok(())
}

/// Lets an agent settle, then watches it for a while.
pub(crate) fn watch(agent: u64) -> Result<Cost> {
    std::thread::sleep(SETTLE);
    let (begun, ticks) = (Instant::now(), cpu_ticks(agent)?);
    std::thread::sleep(WATCHED);
    #[allow(clippy::cast_precision_loss)]
    let core_percent = (cpu_ticks(agent)? - ticks) as f64 / 100.0 / begun.elapsed().as_secs_f64() * 100.0;
    let status = format!("/proc/{agent}/status");
    Ok(Cost {
        resident_mib: mib(kib(&status, "VmRSS:")?),
        peak_mib: mib(kib(&status, "VmHWM:")?),
        core_percent,
    })
}

/// The proportional set size of every shim of the idle service, in MiB.
pub(crate) fn shims(cluster: &Cluster) -> Result<Vec<f64>> {
    let pids = cluster.pids("idle");
    pids.iter()
        .map(|(_, pid)| Ok(mib(kib(&format!("/proc/{}/smaps_rollup", parent(*pid)?), "Pss:")?)))
        .collect()
}

#[allow(clippy::cast_precision_loss)]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Time on a processor, of all threads that live; see `schedstat` in proc(5), which counts nanoseconds where ticks would
/// not see a process that ran for less than ten milliseconds.
pub(crate) fn cpu_seconds(pid: u64) -> Result<f64> {
    let mut ns = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        ns += text.split(' ').next().context("a figure")?.parse::<u64>()?;
    }
    #[allow(clippy::cast_precision_loss)]
    Ok(ns as f64 / 1e9)
}

/// User and system time, in ticks of 10 ms.
fn cpu_ticks(pid: u64) -> Result<u64> {
    let fields = stat(pid)?;
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// The process id of a process's parent.
pub(crate) fn parent(pid: u64) -> Result<u64> {
    Ok(stat(pid)?[1].parse()?)
}

/// The fields of /proc/PID/stat after the command name; see proc_pid_stat(5).
fn stat(pid: u64) -> Result<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a stat line")?;
    Ok(rest.split(' ').map(str::to_owned).collect())
}

fn kib(path: &str, field: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let line =
        text.lines().find(|line| line.starts_with(field)).with_context(|| format!("{field} in {path}"))?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).with_context(|| line.to_owned())
}
