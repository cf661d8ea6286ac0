//! What an agent with 10 idle instances costs, and what a shim costs.

use crate::adopt::idle_instances;
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions};
use std::time::{Duration, Instant};

/// Long enough for several of every periodic thing the agent does.
const WATCHED: Duration = Duration::from_secs(30);
/// After a deploy, until what it stirred up has settled.
const SETTLE: Duration = Duration::from_secs(5);

/// Prints resident memory and processor share of the agent, and proportional memory of the shims.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let node = cluster.ready["nodes"][0]["name"].as_str().context("a node")?.to_owned();
    let ran = cluster.deploy(&idle_instances(10), "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let agent = cluster.role_pid(&node);
    std::thread::sleep(SETTLE);
    let (begun, ticks) = (Instant::now(), cpu_ticks(agent)?);
    std::thread::sleep(WATCHED);
    #[allow(clippy::cast_precision_loss)]
    let share = (cpu_ticks(agent)? - ticks) as f64 / 100.0 / begun.elapsed().as_secs_f64() * 100.0;
    let resident = kib(&format!("/proc/{agent}/status"), "VmRSS:")?;
    let peak = kib(&format!("/proc/{agent}/status"), "VmHWM:")?;
    println!(
        "\nagent with 10 idle instances: {:.1} MiB resident (peak {:.1}), {share:.2} % of a core",
        mib(resident),
        mib(peak)
    );
    let mut shims = Vec::new();
    for (_, pid) in cluster.pids("idle") {
        let shim = parent(pid)?;
        shims.push(mib(kib(&format!("/proc/{shim}/smaps_rollup"), "Pss:")?));
    }
    println!("shim: {:.2} MiB proportional set size (median of {})", crate::median(&shims), shims.len());
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// User and system time, in ticks of 10 ms.
fn cpu_ticks(pid: u64) -> Result<u64> {
    let fields = stat(pid)?;
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn parent(pid: u64) -> Result<u64> {
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
