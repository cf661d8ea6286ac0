//! What copying costs the requests that are copied: their latency at a gateway that copies all of them to another release,
//! beside one that copies none, at the same steady rate. On one machine the copies' instance takes processors from the live
//! one, whoever sends it its requests; so they are made by a client from outside, too: what is beyond that is the gateway's.

use super::proxies::{COPYING_METRICS, Who, start, start_copying};
use super::throughput::{UPSTREAMS, upstream};
use anyhow::{Context as _, Result, ensure};
use baton_model::route::Balance;
use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{openmetrics, wait};
use std::net::SocketAddr;
use std::time::Duration;

/// A load that leaves the machine room for the copies.
const PER_SECOND: f64 = 1000.0;
const CONNECTIONS: usize = 8;
/// Of one measurement.
const LASTS: Duration = Duration::from_secs(4);
/// Of live p99, with all copied to none.
const GOAL: f64 = 1.05;

/// Who makes copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// Nobody.
    None,
    /// A client of the copies' instance, as many a second.
    Outside,
    /// The gateway.
    Gateway,
}

impl Copies {
    const ALL: [Self; 3] = [Self::None, Self::Outside, Self::Gateway];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Outside => "as many requests to the copies' instance by another client",
            Self::Gateway => "all copied by the gateway",
        }
    }
}

/// A median and a tail, in milliseconds.
type Latency = (f64, f64);

/// Measures in turns, and prints medians and their ratios.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Two processes, as two releases are.
    let [live, dark] = UPSTREAMS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let _upstreams = UPSTREAMS
        .map(|port| upstream(&folder.path().join(port.to_string()), &[port], None))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let _plain = start(Who::Baton, folder.path(), &[live], None, Balance::LeastLoaded)?;
    let (_copying, copying) = start_copying(folder.path(), [live, dark])?;
    let mut all = Copies::ALL.map(|_| Vec::new());
    let mut sent = 0;
    for _ in 0..rounds {
        for (copies, measured) in Copies::ALL.into_iter().zip(&mut all) {
            let outside = (copies == Copies::Outside).then(|| Load::start(&plan(dark)));
            let target = if copies == Copies::Gateway { copying } else { Who::Baton.address() };
            let counted = load(target)?;
            drop(outside.map(Load::stop));
            sent += if copies == Copies::Gateway { counted.sent } else { 0 };
            measured.push((counted.quantile_ms(0.5), counted.quantile_ms(0.99)));
        }
    }
    print(&all);
    // What is still in flight is counted when it ends.
    let (mirrored, unmirrored) = wait::until("every copy", Duration::from_secs(20), || {
        let (mirrored, unmirrored) = copies().map_err(|error| error.to_string())?;
        if mirrored + unmirrored == sent {
            Ok((mirrored, unmirrored))
        } else {
            Err(format!("{mirrored} and {unmirrored} of {sent}"))
        }
    });
    println!("  {sent} requests: {mirrored} copied, {unmirrored} not, and counted");
    Ok(())
}

fn plan(target: SocketAddr) -> Plan {
    Plan {
        targets: vec![target],
        connections: CONNECTIONS,
        rate: Some(PER_SECOND),
        requests_per_connection: u32::MAX,
    }
}

fn load(target: SocketAddr) -> Result<Counted> {
    let load = Load::start(&plan(target));
    std::thread::sleep(LASTS);
    let counted = load.stop();
    ensure!(counted.failed == 0, "{} failed: {:?}", counted.failed, counted.failures);
    Ok(counted)
}

/// Ratios are taken within a round, whose measurements follow one another: a machine that is shared changes meanwhile.
fn print(all: &[Vec<Latency>; 3]) {
    let [none, ..] = all;
    let of = |rounds: &[Latency], pick: fn(&Latency) -> f64| {
        let ratios: Vec<f64> = rounds.iter().zip(none).map(|(this, none)| pick(this) / pick(none)).collect();
        (crate::median(&rounds.iter().map(pick).collect::<Vec<_>>()), crate::median(&ratios))
    };
    println!(
        "\n{PER_SECOND:.0} requests a second, live latency by what is copied (medians of {}):",
        none.len()
    );
    let mut tail = f64::NAN;
    for (copies, rounds) in Copies::ALL.into_iter().zip(all) {
        let ((p50, ratio50), (p99, ratio99)) = (of(rounds, |it| it.0), of(rounds, |it| it.1));
        println!("  p50 {p50:>6.3} ms ({ratio50:.3})  p99 {p99:>6.3} ms ({ratio99:.3})  {}", copies.name());
        tail = if copies == Copies::Gateway { ratio99 } else { tail };
    }
    println!("  goal: p99 at most {GOAL} of none: {}", if tail <= GOAL { "met" } else { "missed" });
}

/// What the gateway that copies has counted: copies that were sent, and those that were not.
fn copies() -> Result<(u64, u64)> {
    let page = openmetrics::fetch_at(COPYING_METRICS)?;
    let families = openmetrics::parse(&page).map_err(|why| anyhow::anyhow!("{why}"))?;
    let sum = |name: &str| -> Result<u64> {
        let family = families.get(name).with_context(|| format!("no {name}"))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let total = family.samples.values().sum::<f64>() as u64;
        Ok(total)
    };
    Ok((sum("baton_gateway_mirrored")?, sum("baton_gateway_unmirrored")?))
}
