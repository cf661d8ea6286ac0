//! Two hundred instances on one node: how soon they run, after a deploy and after everything on the node is gone at
//! once, and what they cost the agent.

use crate::adopt::idle_instances;
use crate::footprint;
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions, wait};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const INSTANCES: usize = 200;
const ROOM: Duration = Duration::from_secs(120);

/// Prints the times and the cost.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let node = cluster.ready["nodes"][0]["name"].as_str().context("a node")?.to_owned();
    let path = cluster.write("idle.toml", &idle_instances(INSTANCES).text());
    let begun = Instant::now();
    let ran = cluster.baton(&["deploy", &path, "--version", "1.0"]);
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let first = all_run(&cluster, &BTreeSet::new());
    println!("\n{INSTANCES} instances on one node:");
    println!("  deploy to all ready              {:>7.2} s", begun.elapsed().as_secs_f64());
    let cost = footprint::watch(cluster.role_pid(&node))?;
    println!(
        "  agent                            {:>7.1} MiB (peak {:.1}), {:.2} % of a core idle",
        cost.resident_mib, cost.peak_mib, cost.core_percent
    );
    let shims = footprint::shims(&cluster)?;
    println!(
        "  shim                             {:>7.2} MiB proportional set size (median of {})",
        crate::median(&shims),
        shims.len()
    );

    // As after a loss of power: the agent, every shim and every workload are gone at once.
    let agent = cluster.role_pid(&node);
    cluster.kill(agent);
    for pid in &first {
        cluster.kill(footprint::parent(*pid)?);
        cluster.kill(*pid);
    }
    wait::until("another agent", ROOM, || match cluster.role_pid_now(&node) {
        Some(pid) if pid != agent && wait::is_alive(pid) => Ok(()),
        pid => Err(format!("{pid:?}")),
    });
    let begun = Instant::now();
    all_run(&cluster, &first);
    println!("  agent's start to all ready again {:>7.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until every instance is ready with a process that is not one of `before`.
fn all_run(cluster: &Cluster, before: &BTreeSet<u64>) -> BTreeSet<u64> {
    wait::until("all instances", ROOM, || {
        let ready: BTreeSet<u64> = cluster
            .instances("idle")
            .iter()
            .filter(|it| it["observed"]["state"] == "ready")
            .filter_map(|it| it["observed"]["pid"].as_u64())
            .filter(|pid| !before.contains(pid))
            .collect();
        if ready.len() == INSTANCES { Ok(ready) } else { Err(format!("{} of them", ready.len())) }
    })
}
