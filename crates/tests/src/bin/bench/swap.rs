//! Requests lost in a swap: none may be, at a steady rate and at as many as the machine gives.

use anyhow::{Result, bail};
use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile};
use std::net::SocketAddr;

const PORT: u16 = 8074;
/// Swaps under each load.
const SWAPS: usize = 5;

/// Swaps under both loads and prints what was counted.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let me = std::env::current_exe()?;
    let file = ServiceFile::web("swap", PORT)
        .with_program(&me, r#"["bench"]"#)
        .with_env("BENCH_SERVE", "1")
        .with_section("placement", "replicas = 1\n");
    deploy(&cluster, &file, "1.0")?;
    let target: SocketAddr = format!("{}:{PORT}", cluster.address(0)).parse()?;
    println!("\nrequests while one instance on one node is swapped {SWAPS} times:");
    let mut lost = 0;
    for (number, (rate, each)) in
        [(Some(1000.0), 1), (Some(1000.0), 20), (None, 1), (None, 20)].into_iter().enumerate()
    {
        let load = Load::start(&Plan {
            targets: vec![target],
            connections: 32,
            rate,
            requests_per_connection: each,
        });
        let versions: Vec<String> = (0..SWAPS).map(|swap| format!("{}.{swap}", number + 2)).collect();
        for version in &versions {
            deploy(&cluster, &file, version)?;
        }
        let counted = load.stop();
        let asked = rate.map_or("as many as it gives".to_owned(), |rate| format!("{rate:.0}/s asked"));
        #[allow(clippy::cast_precision_loss)]
        let per_second = counted.sent as f64 / counted.took.as_secs_f64();
        println!(
            "  {asked:<20} {each:>2} per connection: sent {:>8} ({per_second:>6.0}/s)  failed {:>3}  p50 {:>6.2} ms  p99 {:>6.2} ms  max {:>7.2} ms",
            counted.sent,
            counted.failed,
            counted.quantile_ms(0.5),
            counted.quantile_ms(0.99),
            counted.quantile_ms(1.0)
        );
        counted.failures.iter().for_each(|failure| println!("    {failure}"));
        if let Some(silent) = versions.iter().find(|version| !counted.versions.contains_key(*version)) {
            bail!("{silent} answered nothing: the load did not span the swaps");
        }
        lost += counted.failed;
    }
    if lost > 0 {
        bail!("{lost} requests were lost in swaps");
    }
    Ok(())
}

fn deploy(cluster: &Cluster, file: &ServiceFile, version: &str) -> Result<()> {
    let ran = cluster.deploy(file, version);
    if ran.code != 0 {
        bail!("the deploy of {version} failed: {}", ran.stderr);
    }
    Ok(())
}
