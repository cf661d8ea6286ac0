//! A gateway without a coordinator: its configuration and its route table come from two files. For tests and benches
//! that want a gateway as a process.
//!
//! `baton-gateway-static GATEWAY.toml TABLE.json` serves until SIGTERM, or until the next one takes over its sockets. On
//! SIGHUP it reads the table again. It says `serving` on standard output once it does.
//!
//! `baton-gateway-static evidence` prints the nanoseconds that counting one request takes.

use baton_gateway::evidence::counters::{ReleaseCounters, ReleaseEvent, ServiceCounters, ServiceEvent};
use baton_gateway::table::Served;
use baton_gateway::{Gateway, GatewayConfig, health};
use baton_model::route::RouteTable;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (first, second) = (arguments.next(), arguments.next());
    if first.as_deref() == Some(Path::new("evidence")) && second.is_none() {
        println!("{:.1}", evidence_ns());
        return Ok(());
    }
    let (Some(config), Some(table)) = (first, second) else {
        return Err("usage: baton-gateway-static GATEWAY.toml TABLE.json".into());
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&config, &table))
}

async fn run(config: &Path, table: &Path) -> Result<(), Box<dyn Error>> {
    let config = GatewayConfig::read(config)?;
    let served = Arc::new(Served::new(config.zone.clone()));
    served.install(&read(table)?, Instant::now())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut again = signal(SignalKind::hangup())?;
    let checks = tokio::spawn(health::watch(Arc::clone(&served), CancellationToken::new()));
    let gateway = Gateway::start(config, served).await?;
    gateway.relieve()?;
    println!("serving");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            () = gateway.relieved() => break,
            _ = again.recv() => {
                gateway.install(&read(table)?).await?;
            }
        }
    }
    let drained = gateway.drain().await;
    checks.abort();
    println!("cut {}", drained.cut);
    Ok(())
}

fn read(path: &Path) -> Result<RouteTable, Box<dyn Error>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// What is counted of a usual request, again and again: that it came in, and its answer with its latency.
fn evidence_ns() -> f64 {
    const REQUESTS: u32 = 20_000_000;
    let (service, release) = (ServiceCounters::default(), ReleaseCounters::default());
    let begun = Instant::now();
    for number in 0..REQUESTS {
        service.count(ServiceEvent::Request);
        // Over many steps of the histogram, so that no cache line is all of it.
        let latency = Duration::from_micros(u64::from(number.wrapping_mul(2_654_435_761) >> 16));
        release.answered(ReleaseEvent::Successful, std::hint::black_box(latency));
    }
    let took = begun.elapsed();
    assert_eq!(release.total().status.successful, u64::from(REQUESTS));
    took.as_secs_f64() * 1e9 / f64::from(REQUESTS)
}
