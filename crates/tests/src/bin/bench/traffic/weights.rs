//! How soon a change of weights is in force on fifty gateways: from its commit to each one's acknowledgement, which a
//! gateway gives when it serves by the table and has it on disk. Timed by the coordinator, read from its metrics.

use crate::serve;
use anyhow::{Context as _, Result, bail, ensure};
use baton_tests::harness::openmetrics::{self, Family};
use baton_tests::harness::{Cluster, ClusterOptions, baton_program, wait};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const GATEWAYS: usize = 50;
/// Shares from 1 % to this, one after the other: one of two instances has room for each.
const STEPS: usize = 40;
const ROOM: Duration = Duration::from_secs(120);
const METRIC: &str = "baton_coordinator_table_acknowledged_seconds";
/// What the share of the acknowledgements is asked of, in seconds: ends of the metric's buckets.
const BOUNDS: [&str; 5] = ["0.01", "0.02", "0.05", "0.1", "0.2"];

/// Gateways, ended with the bench.
struct Gateways(Vec<Child>);

impl Drop for Gateways {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Changes the weights and prints how soon they were in force.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let _gateways = join(&cluster)?;
    let address = cluster.ready["coordinator"]["address"].as_str().context("an address")?;
    let coordinator = address.split(':').next().context("its host")?;
    deploy(&cluster, "1", true)?;
    deploy(&cluster, "2", false)?;
    settled(&cluster)?;
    let before = read(coordinator)?;
    for share in 2..=STEPS {
        let ran = cluster.baton(&["rollout", "promote", "web", "--to", &share.to_string()]);
        ensure!(ran.code == 0, "step {share}: {}", ran.stderr);
        settled(&cluster)?;
    }
    let after = read(coordinator)?;
    let of = |name: &str| -> Result<f64> {
        let at = |page: &Family| page.samples.get(name).copied().with_context(|| format!("no {name}"));
        Ok(at(&after)? - at(&before)?)
    };
    let count = of(&format!("{METRIC}_count"))?;
    println!("\n{} changes of weights on {GATEWAYS} gateways, {count:.0} acknowledgements:", STEPS - 1);
    println!("  mean {:.1} ms", of(&format!("{METRIC}_sum"))? / count * 1000.0);
    for bound in BOUNDS {
        let within = of(&format!("{METRIC}_bucket{{le=\"{bound}\"}}"))?;
        println!("  within {bound:>5} s of the commit: {:>6.2} %", within / count * 100.0);
    }
    #[allow(clippy::cast_precision_loss)]
    let expected = ((STEPS - 1) * GATEWAYS) as f64;
    ensure!(count >= expected, "{count} acknowledgements are less than {expected}: one was not counted");
    Ok(())
}

/// Starts the gateways, each with an identity of its own.
fn join(cluster: &Cluster) -> Result<Gateways> {
    let coordinator = cluster.ready["coordinator"]["address"].as_str().context("an address")?.to_owned();
    let mut all = Gateways(Vec::new());
    for number in 0..GATEWAYS {
        let dir = cluster.folder().join(format!("edge-{number}")).display().to_string();
        let name = format!("edge-{number}");
        let token = cluster.json(&["gateway", "token"]);
        let token = token["token"].as_str().context("a token")?;
        let args = ["gateway", "join", "--coordinator", &coordinator, "--name", &name, "--dir", &dir];
        let ran = cluster.baton(&[&args[..], &["--token", token]].concat());
        ensure!(ran.code == 0, "{name} cannot join: {}", ran.stderr);
        let http = format!("127.0.0.1:{}", 18_300 + number);
        let child = Command::new(baton_program())
            .args(["gateway", "run", "--dir", &dir, "--http", &http])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        all.0.push(child);
    }
    wait::until("every gateway", ROOM, || {
        let gateways = cluster.json(&["gateway", "ls"]);
        let connected =
            gateways.as_array().into_iter().flatten().filter(|it| it["connected"] == true).count();
        if connected == GATEWAYS { Ok(()) } else { Err(connected.to_string()) }
    });
    Ok(all)
}

/// Deploys by canary; to the end, or to its first step, where it stays.
fn deploy(cluster: &Cluster, version: &str, to_the_end: bool) -> Result<()> {
    let steps = (1..=STEPS).fold(String::new(), |mut text, share| {
        let _ = write!(text, "\"{share}%\", ");
        text
    });
    let file = serve::routed()?
        .with_section("placement", "replicas = 2\n")
        .with_section(
            "rollout",
            &format!(
                "strategy = \"canary\"\nbatch = 1\nmin_healthy = \"200ms\"\n[rollout.canary]\nsteps = [{steps}\"100%\"]\nbake = \"1h\"\n"
            ),
        );
    if to_the_end {
        let ran = cluster.deploy(&file, version);
        ensure!(ran.code == 0, "{version}: {}{}", ran.stdout, ran.stderr);
        return Ok(());
    }
    let path = cluster.write("canary.toml", &file.text());
    let ran = cluster.baton(&["deploy", &path, "--version", version]);
    ensure!(ran.code == 0, "{version}: {}{}", ran.stdout, ran.stderr);
    wait::until("the first step", ROOM, || {
        let status = cluster.json(&["rollout", "status", "web"]);
        let baking =
            status["stages"].as_array().is_some_and(|all| all.iter().any(|it| it["state"] == "baking"));
        if baking { Ok(()) } else { Err(status["stages"].to_string()) }
    });
    Ok(())
}

/// Waits until every gateway serves by the newest route.
fn settled(cluster: &Cluster) -> Result<()> {
    wait::until("every gateway to serve by the newest route", ROOM, || {
        let status = cluster.json(&["route", "show", "web"]);
        let gateways = status["gateways"].as_object().cloned().unwrap_or_default();
        let newest = gateways.values().filter(|served| **served == status["route"]["revision"]).count();
        if newest == GATEWAYS { Ok(()) } else { Err(newest.to_string()) }
    });
    Ok(())
}

fn read(coordinator: &str) -> Result<Family> {
    let page = openmetrics::fetch(coordinator)?;
    let mut families: BTreeMap<String, Family> = match openmetrics::parse(&page) {
        Ok(families) => families,
        Err(why) => bail!("the page of metrics: {why}"),
    };
    families.remove(METRIC).context("the metric is not there")
}
