//! What it costs a workload to write its log through the shim, beside a plain file, in turns.

use anyhow::{Context as _, Result, bail};
use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Names the file that a flooding workload leaves its time in; its presence makes the bench that workload.
const RESULT: &str = "BENCH_FLOOD_RESULT";
/// Bytes a second it writes; 0: as many as it can.
const PACE: &str = "BENCH_FLOOD_PACE";
/// One run of the flood.
const FLOOD_BYTES: u64 = 400_000_000;
/// Bytes of one line, its newline included: what a web server's access log has.
const LINE_BYTES: usize = 100;
/// Lines are written as a program with a buffered standard output writes them.
const WRITE_BYTES: usize = 8192;
const GOAL_BYTES_A_SECOND: u64 = 200_000_000;
const ROUNDS: usize = 5;
/// How long a server is asked, alone and beside floods.
const BESIDE: Duration = Duration::from_secs(10);
const ROOM: Duration = Duration::from_secs(120);

/// Whether this process is the workload of the bench.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(RESULT).is_some()
}

/// The workload: writes [`FLOOD_BYTES`], leaves the seconds it took, and stays.
pub(crate) fn flood() -> Result<()> {
    let result = std::env::var_os(RESULT).context("a result file")?;
    let pace: u64 = std::env::var(PACE)?.parse()?;
    let mut block = Vec::with_capacity(WRITE_BYTES);
    while block.len() + LINE_BYTES <= WRITE_BYTES {
        block.extend([b'x'; LINE_BYTES - 1]);
        block.push(b'\n');
    }
    let mut out = std::io::stdout().lock();
    let (begun, mut written) = (Instant::now(), 0_u64);
    while written < FLOOD_BYTES {
        out.write_all(&block)?;
        written += block.len() as u64;
        if let Some(due) = (written * 1_000_000).checked_div(pace).map(Duration::from_micros) {
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    out.flush()?;
    let took = begun.elapsed().as_secs_f64();
    let unfinished = Path::new(&result).with_extension("unfinished");
    std::fs::write(&unfinished, took.to_string())?;
    std::fs::rename(unfinished, result)?;
    if std::env::var_os("BATON_INSTANCE").is_some() {
        std::thread::park();
    }
    Ok(())
}

/// Prints the time of the same flood through the shim and into a plain file, at the goal's pace and without one.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    println!(
        "\n{} MB of {LINE_BYTES}-byte lines from one workload, {ROUNDS} rounds, in turns:",
        FLOOD_BYTES / 1_000_000
    );
    for (name, pace) in [("at 200 MB/s", GOAL_BYTES_A_SECOND), ("at full speed", 0)] {
        let (mut shim, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            shim.push(through_the_shim(&cluster, pace, round)?);
            plain.push(into_a_file(cluster.folder(), pace)?);
        }
        let (shim, plain) = (crate::median(&shim), crate::median(&plain));
        #[allow(clippy::cast_precision_loss)]
        let rate = |seconds: f64| FLOOD_BYTES as f64 / 1e6 / seconds;
        println!(
            "  {name:<14} shim {:>7.0} MB/s   plain file {:>7.0} MB/s   {:>5.2} x the plain file's time",
            rate(shim),
            rate(plain),
            shim / plain
        );
    }
    beside_a_flood(&cluster)
}

/// Prints what a server answers in while nothing else happens, and beside floods at full speed on both streams.
fn beside_a_flood(cluster: &Cluster) -> Result<()> {
    const FLOODS: u32 = 3;
    let web = ServiceFile::web("neighbour", 8080).with_section("placement", "replicas = 1\n");
    let ran = cluster.deploy(&web, "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let target = format!("{}:8080", cluster.address(0)).parse()?;
    let answered = || {
        let plan =
            Plan { targets: vec![target], connections: 2, rate: Some(100.0), requests_per_connection: 1 };
        let load = Load::start(&plan);
        std::thread::sleep(BESIDE);
        load.stop()
    };
    let alone = answered();
    let flood = ServiceFile::web("yes", 1)
        .with_program("/bin/true", r#"["/bin/sh", "-c", "yes out & exec yes err >&2"]"#)
        .with_ports("")
        .with_section("checks.readiness", "")
        .with_section("placement", &format!("replicas = {FLOODS}\n"))
        .with_section("stop", "signal = \"SIGKILL\"\n");
    let ran = cluster.deploy(&flood, "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    let beside = answered();
    println!(
        "\na server at 100 requests a second, and {FLOODS} workloads that run `yes` on stdout and on stderr beside it:"
    );
    for (name, counted) in [("alone", &alone), ("beside the floods", &beside)] {
        println!(
            "  {name:<18} {:>5} requests, {} failed   p50 {:>6.1} ms   p99 {:>6.1} ms",
            counted.sent,
            counted.failed,
            counted.quantile_ms(0.5),
            counted.quantile_ms(0.99)
        );
    }
    Ok(())
}

fn through_the_shim(cluster: &Cluster, pace: u64, round: usize) -> Result<f64> {
    let result = cluster.folder().join(format!("flood-{pace}-{round}"));
    let file = ServiceFile::web("flood", 1)
        .with_program(std::env::current_exe()?, r#"["bench"]"#)
        .with_ports("")
        .with_env(RESULT, &result.display().to_string())
        .with_env(PACE, &pace.to_string())
        .with_section("checks.readiness", "")
        .with_section("placement", "replicas = 1\n")
        .with_section("stop", "signal = \"SIGKILL\"\n");
    let ran = cluster.deploy(&file, &format!("{pace}.{round}"));
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    wait::until("the end of the flood", ROOM, || {
        std::fs::metadata(&result).map_err(|error| error.to_string())
    });
    Ok(std::fs::read_to_string(&result)?.parse()?)
}

fn into_a_file(folder: &Path, pace: u64) -> Result<f64> {
    let (result, log) = (folder.join("plain-result"), folder.join("plain-log"));
    let status = Command::new(std::env::current_exe()?)
        .env(RESULT, &result)
        .env(PACE, pace.to_string())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log)?)
        .status()?;
    if !status.success() {
        bail!("the flood into a plain file failed");
    }
    std::fs::remove_file(log)?;
    Ok(std::fs::read_to_string(&result)?.parse()?)
}
