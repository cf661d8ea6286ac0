//! An agent is killed: no workload may end, and the next agent must have adopted all of them soon.

use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::time::Duration;

const INSTANCES: usize = 10;
const ROOM: Duration = Duration::from_secs(30);

/// Kills the agent `rounds` times and prints how long each adoption took, as the new agent measured it from its start.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let node = cluster.ready["nodes"][0]["name"].as_str().context("a node")?.to_owned();
    let file = idle_instances(INSTANCES);
    let ran = cluster.deploy(&file, "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let before = cluster.pids("idle");
    let mut times = Vec::new();
    for round in 1..=rounds as usize {
        cluster.kill(cluster.role_pid(&node));
        times.push(wait::until("an adoption", ROOM, || {
            let adoptions = adoptions(&cluster);
            if adoptions.len() >= round { Ok(adoptions[round - 1]) } else { Err(format!("{adoptions:?}")) }
        }));
    }
    let after = wait::until("all instances", ROOM, || {
        let now = cluster.pids("idle");
        if now.len() == INSTANCES { Ok(now) } else { Err(format!("{now:?}")) }
    });
    let lost = before.iter().filter(|pid| !after.contains(pid)).count();
    println!(
        "\nagent killed {rounds} times with {INSTANCES} workloads: lost {lost}; adopted after median {:.0} ms, worst {:.0} ms of the new agent's start",
        crate::median(&times),
        times.iter().copied().fold(0.0, f64::max)
    );
    if lost > 0 {
        bail!("{lost} workloads were lost");
    }
    Ok(())
}

/// A service of sleeping instances.
pub(crate) fn idle_instances(count: usize) -> ServiceFile {
    ServiceFile::web("idle", 1)
        .with_program("/bin/sleep", r#"["sleep", "86421"]"#)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", &format!("replicas = {count}\n"))
}

fn adoptions(cluster: &Cluster) -> Vec<f64> {
    let events = cluster.baton(&["events", "--json"]);
    events
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|event| event["kind"] == "adopted")
        .filter_map(|event| event["fields"]["ms"].as_str()?.parse().ok())
        .collect()
}
