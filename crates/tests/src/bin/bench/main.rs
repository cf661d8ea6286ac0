//! The figures of Baton, measured on this machine, beside its peers in the same run.
//!
//! `cargo run --release -p baton-tests --bin bench -- WHAT` where WHAT is `restart`, `swap`, `adopt`, `footprint`,
//! `scale`, `logs`, `gateway`, `lost`, `rollouts`, `weights`, `split`,
//! `switch`, `mirror`, `evidence` or `all`. Times on a shared machine mean little alone: read the ratios.

mod adopt;
mod footprint;
mod logs;
mod restart;
mod scale;
mod serve;
mod swap;
mod traffic;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

/// Measures Baton beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure.
    what: What,
    /// Rounds, where there are rounds.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Crash (SIGKILL) to served again, beside runit and supervisord where they are installed.
    Restart,
    /// Requests failed in a swap, at 1,000 a second and at as many as the machine gives.
    Swap,
    /// Agent killed: workloads lost, and time until all are adopted.
    Adopt,
    /// Memory and idle processor time of an agent with 10 instances, and of a shim.
    Footprint,
    /// 200 instances on one node: time until all run, memory and idle processor time of the agent.
    Scale,
    /// What a workload's log costs it through the shim, beside a plain file.
    Logs,
    /// The gateway beside HAProxy and nginx: requests a second, processor time a request, latency, memory.
    Gateway,
    /// One of two backends lost behind the gateway, HAProxy and nginx: killed, stopped, cut off.
    Lost,
    /// A million requests over 20 rollouts by all strategies, rollbacks and upgrades of the gateways; beside scripts.
    Rollouts,
    /// From the commit of a change of weights to its acknowledgement by each of 50 gateways.
    Weights,
    /// Shares of 20,000 users while a canary grows, and who of them moves without need.
    Split,
    /// From the command that returns from green to blue to the last answer of green.
    Switch,
    /// Latency of requests that are all copied to another release, beside requests that are not.
    Mirror,
    /// What counting a request costs the gateway.
    Evidence,
    /// All of them.
    All,
}

fn main() -> Result<()> {
    if serve::is_wanted() {
        return serve::serve();
    }
    if logs::is_wanted() {
        return logs::flood();
    }
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) {
        bail!("figures of a debug build say nothing: run with --release");
    }
    let wanted = |what| arguments.what == what || arguments.what == What::All;
    if wanted(What::Restart) {
        restart::run(arguments.rounds)?;
    }
    if wanted(What::Swap) {
        swap::run()?;
    }
    if wanted(What::Adopt) {
        adopt::run(arguments.rounds.min(5))?;
    }
    if wanted(What::Footprint) {
        footprint::run()?;
    }
    if wanted(What::Scale) {
        scale::run()?;
    }
    if wanted(What::Logs) {
        logs::run()?;
    }
    if wanted(What::Gateway) {
        traffic::throughput(arguments.rounds.min(5))?;
    }
    if wanted(What::Lost) {
        traffic::lost()?;
    }
    if wanted(What::Rollouts) {
        traffic::rollouts()?;
    }
    if wanted(What::Weights) {
        traffic::weights()?;
    }
    if wanted(What::Split) {
        traffic::split()?;
    }
    if wanted(What::Switch) {
        traffic::switch(arguments.rounds)?;
    }
    if wanted(What::Mirror) {
        traffic::mirror(arguments.rounds)?;
    }
    if wanted(What::Evidence) {
        traffic::evidence(arguments.rounds.min(5))?;
    }
    Ok(())
}

/// The middle value; the mean of the two in the middle of an even number.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
