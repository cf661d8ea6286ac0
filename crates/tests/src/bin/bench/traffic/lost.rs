//! One of two backends lost under 200 requests a second, without any sign to the proxy: killed, stopped, cut off.
//!
//! A stopped one is the hard case: its kernel still accepts, and nobody answers. Cut off is a rule of the packet filter
//! that drops what goes to the backend, in a network namespace of the bench's own; it needs root and `nft`.

use super::proxies::{Process, Who, backend, start};
use anyhow::{Context as _, Result};
use baton_model::route::Balance;
use baton_tests::harness::load::{Counted, Load, Plan};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const PER_SECOND: f64 = 200.0;
const CONNECTIONS: usize = 32;
/// Before and after the loss.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(10);
const BACKENDS: [&str; 2] = ["127.0.0.1:18195", "127.0.0.1:18196"];
/// Says that this process is the one in its own network namespace.
const INSIDE: &str = "BENCH_INSIDE";

#[derive(Clone, Copy, Debug)]
enum Loss {
    Killed,
    Stopped,
    CutOff,
}

/// Loses a backend behind each proxy in each way, and prints what was counted.
pub(crate) fn run() -> Result<()> {
    if std::env::var_os(INSIDE).is_none() && nix::unistd::geteuid().is_root() {
        let me = std::env::current_exe()?;
        let status = Command::new("unshare")
            .args(["--net", "--"])
            .arg(me)
            .arg("lost")
            .env(INSIDE, "1")
            .status()
            .context("unshare")?;
        anyhow::ensure!(status.success(), "the bench in its own namespace failed");
        return Ok(());
    }
    let inside = std::env::var_os(INSIDE).is_some();
    if inside {
        command(&["ip", "link", "set", "lo", "up"])?;
    }
    println!("\none of two backends lost under {PER_SECOND:.0} requests a second:");
    for loss in [Loss::Killed, Loss::Stopped, Loss::CutOff] {
        if matches!(loss, Loss::CutOff) && !inside {
            println!("  cut off: needs root");
            continue;
        }
        for who in Who::ALL {
            let counted = lose(who, loss)?;
            println!(
                "  {:<8} {:<8} sent {:>5}  failed {:>4}  p50 {:>7.2} ms  p99 {:>8.2} ms  max {:>9.2} ms",
                format!("{loss:?}").to_lowercase(),
                who.name(),
                counted.sent,
                counted.failed,
                counted.quantile_ms(0.5),
                counted.quantile_ms(0.99),
                counted.quantile_ms(1.0)
            );
        }
    }
    Ok(())
}

fn lose(who: Who, loss: Loss) -> Result<Counted> {
    let folder = tempfile::tempdir()?;
    let backends: Vec<Process> =
        BACKENDS.iter().map(|address| backend(folder.path(), address)).collect::<Result<_>>()?;
    let addresses: Vec<SocketAddr> = BACKENDS.iter().map(|it| Ok(it.parse()?)).collect::<Result<_>>()?;
    // In turn, so that the lost one surely gets its half: by load, the other one may have all of so little.
    let _proxy = start(who, folder.path(), &addresses, None, Balance::RoundRobin)?;
    let plan = Plan {
        targets: vec![who.address()],
        connections: CONNECTIONS,
        rate: Some(PER_SECOND),
        requests_per_connection: 1000,
    };
    let load = Load::start(&plan);
    std::thread::sleep(BEFORE);
    let lost = Pid::from_raw(i32::try_from(backends[0].pid())?);
    match loss {
        Loss::Killed => kill(lost, Signal::SIGKILL)?,
        Loss::Stopped => kill(lost, Signal::SIGSTOP)?,
        Loss::CutOff => cut_off(addresses[0])?,
    }
    std::thread::sleep(AFTER);
    let counted = load.stop();
    match loss {
        Loss::Killed => {}
        Loss::Stopped => kill(lost, Signal::SIGCONT)?,
        Loss::CutOff => command(&["nft", "delete", "table", "ip", "bench"])?,
    }
    Ok(counted)
}

/// Drops all packets to and from a backend.
fn cut_off(backend: SocketAddr) -> Result<()> {
    let port = backend.port().to_string();
    command(&["nft", "add", "table", "ip", "bench"])?;
    command(&["nft", "add", "chain", "ip", "bench", "in", "{ type filter hook input priority 0; }"])?;
    for side in ["dport", "sport"] {
        command(&["nft", "add", "rule", "ip", "bench", "in", "tcp", side, &port, "drop"])?;
    }
    Ok(())
}

fn command(words: &[&str]) -> Result<()> {
    let ran = Command::new(words[0]).args(&words[1..]).status();
    let status = ran.with_context(|| format!("{} cannot be run", words[0]))?;
    anyhow::ensure!(status.success(), "{} failed", words.join(" "));
    Ok(())
}
