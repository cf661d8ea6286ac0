//! Requests lost in a swap: none may be, at a steady rate and at as many as the machine gives. Beside it, what the same
//! server loses where it is stopped and started again, as `systemctl restart` does it.

use anyhow::{Context as _, Result, bail};
use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PORT: u16 = 8074;
/// Where the server listens that is stopped and started.
const BESIDE: &str = "127.0.0.1:18074";
/// Swaps, or restarts, under each load.
const SWAPS: usize = 5;
/// Between two restarts, so that their gaps do not touch.
const REST: Duration = Duration::from_millis(500);
/// The slower the load, the fewer connections: so that each is new often enough to meet every version.
const CONNECTIONS: usize = 32;
const CONNECTIONS_SLOW: usize = 8;
const SLOW_PER_SECOND: f64 = 200.0;
/// Requests a second (`None`: as many as it gives), and on one connection.
const LOADS: [(Option<f64>, u32); 6] = [
    (Some(SLOW_PER_SECOND), 1),
    (Some(SLOW_PER_SECOND), 20),
    (Some(1000.0), 1),
    (Some(1000.0), 20),
    (None, 1),
    (None, 20),
];

/// Swaps under each load, restarts under the first two, and prints what was counted.
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
    for (number, (rate, each)) in LOADS.into_iter().enumerate() {
        let load = start(target, rate, each);
        let versions: Vec<String> = (0..SWAPS).map(|swap| format!("{}.{swap}", number + 2)).collect();
        for version in &versions {
            deploy(&cluster, &file, version)?;
        }
        // Every client comes to the last version.
        let enough = load.sent() + 2 * (CONNECTIONS as u64) * u64::from(each);
        wait::until("the last requests", Duration::from_secs(60), || {
            let sent = load.sent();
            if sent >= enough { Ok(()) } else { Err(format!("{sent} of {enough}")) }
        });
        let counted = load.stop();
        print(rate, each, &counted);
        counted.failures.iter().for_each(|failure| println!("    {failure}"));
        if let Some(silent) = versions.iter().find(|version| !counted.versions.contains_key(*version)) {
            bail!("{silent} answered nothing: the load did not span the swaps");
        }
        lost += counted.failed;
    }
    println!("the same server stopped by SIGTERM and started again {SWAPS} times:");
    for (rate, each) in LOADS.into_iter().take(2) {
        let counted = restarted(&cluster.folder().join(format!("beside-{each}")), &me, rate, each)?;
        print(rate, each, &counted);
    }
    if lost > 0 {
        bail!("{lost} requests were lost in swaps");
    }
    Ok(())
}

fn start(target: SocketAddr, rate: Option<f64>, each: u32) -> Load {
    let connections = if rate == Some(SLOW_PER_SECOND) { CONNECTIONS_SLOW } else { CONNECTIONS };
    Load::start(&Plan { targets: vec![target], connections, rate, requests_per_connection: each })
}

fn print(rate: Option<f64>, each: u32, counted: &Counted) {
    let asked = rate.map_or("as many as it gives".to_owned(), |rate| format!("{rate:.0}/s asked"));
    #[allow(clippy::cast_precision_loss)]
    let per_second = counted.sent as f64 / counted.took.as_secs_f64();
    println!(
        "  {asked:<20} {each:>2} per connection: sent {:>8} ({per_second:>6.0}/s)  failed {:>4}  p50 {:>6.2} ms  p99 {:>6.2} ms  max {:>7.2} ms",
        counted.sent,
        counted.failed,
        counted.quantile_ms(0.5),
        counted.quantile_ms(0.99),
        counted.quantile_ms(1.0)
    );
}

fn deploy(cluster: &Cluster, file: &ServiceFile, version: &str) -> Result<()> {
    let ran = cluster.deploy(file, version);
    if ran.code != 0 {
        bail!("the deploy of {version} failed: {}", ran.stderr);
    }
    Ok(())
}

/// The server without a supervisor; ended with the bench.
struct Server(Child);

impl Server {
    fn start(dir: &Path, program: &Path) -> Result<Self> {
        let child = Command::new(program)
            .current_dir(dir)
            .env("BENCH_SERVE", "1")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .spawn()
            .context("the server beside")?;
        Ok(Self(child))
    }

    /// As systemd stops a service: the signal, and the wait for the end.
    fn stop(&mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn restarted(dir: &Path, program: &Path, rate: Option<f64>, each: u32) -> Result<Counted> {
    std::fs::create_dir(dir)?;
    std::fs::write(dir.join("listen"), BESIDE)?;
    let mut server = Server::start(dir, program)?;
    let target: SocketAddr = BESIDE.parse()?;
    wait::until("the server beside", Duration::from_secs(10), || {
        std::net::TcpStream::connect(target).map(drop).map_err(|error| error.to_string())
    });
    let load = start(target, rate, each);
    for _ in 0..SWAPS {
        std::thread::sleep(REST);
        server.stop()?;
        server = Server::start(dir, program)?;
    }
    std::thread::sleep(REST);
    Ok(load.stop())
}
