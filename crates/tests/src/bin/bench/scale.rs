//! Two hundred instances on one node: how soon they run, after a deploy and after everything on the node is gone at
//! once, and what they cost: processor time of agent, coordinator, shims and workloads until then, and of the agent idle.

use crate::adopt::idle_instances;
use crate::footprint;
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions, wait};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const INSTANCES: usize = 200;
const ROOM: Duration = Duration::from_secs(120);
/// Between two looks: each is a process of its own, which costs as much as an instance does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Prints the times and the cost.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let node = cluster.ready["nodes"][0]["name"].as_str().context("a node")?.to_owned();
    let path = cluster.write("idle.toml", &idle_instances(INSTANCES).text());
    let coordinator = cluster.role_pid("coordinator");
    let before = [cluster.role_pid(&node), coordinator].map(footprint::cpu_seconds);
    let begun = Instant::now();
    let ran = cluster.baton(&["deploy", &path, "--version", "1.0"]);
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let first = all_run(&cluster, &BTreeSet::new());
    println!("\n{INSTANCES} instances on one node:");
    println!("  deploy to all ready              {:>7.2} s", begun.elapsed().as_secs_f64());
    tell_cost(before, [cluster.role_pid(&node), coordinator], &first)?;
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
    let before = [Ok(0.0), footprint::cpu_seconds(coordinator)];
    let second = all_run(&cluster, &first);
    println!("  agent's start to all ready again {:>7.2} s", begun.elapsed().as_secs_f64());
    tell_cost(before, [cluster.role_pid(&node), coordinator], &second)
}

#[allow(clippy::cast_precision_loss)]
/// Prints what an instance cost, of processor time: in the agent, the coordinator, its shim, and itself.
fn tell_cost(before: [Result<f64>; 2], roles: [u64; 2], workloads: &BTreeSet<u64>) -> Result<()> {
    let shims: f64 =
        workloads.iter().map(|pid| footprint::cpu_seconds(footprint::parent(*pid)?)).sum::<Result<f64>>()?;
    let own: f64 = workloads.iter().map(|pid| footprint::cpu_seconds(*pid)).sum::<Result<f64>>()?;
    let mut each = Vec::new();
    for (before, role) in before.into_iter().zip(roles) {
        each.push(footprint::cpu_seconds(role)? - before?);
    }
    each.extend([shims, own]);
    let [agent, coordinator, shim, workload] =
        [0, 1, 2, 3].map(|which| each[which] * 1000.0 / INSTANCES as f64);
    println!(
        "    processor time an instance     {:>7.2} ms: agent {agent:.2}, coordinator {coordinator:.2}, shim {shim:.2}, workload {workload:.2}",
        agent + coordinator + shim + workload
    );
    Ok(())
}

/// Waits until every instance is ready with a process that is not one of `before`.
fn all_run(cluster: &Cluster, before: &BTreeSet<u64>) -> BTreeSet<u64> {
    wait::until("all instances", ROOM, || {
        std::thread::sleep(LOOK_EVERY);
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
