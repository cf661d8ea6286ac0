//! `baton demo`: the whole promise on one machine, in a minute, with a receipt.
//!
//! A cluster of real processes ([`crate::dev`]), two services ([`site`]) of a real web server ([`crate::sample`])
//! behind gateways, a steady load of real requests through them ([`load`]), and the [`story`]: deploy, roll, kill, go
//! back; canaries, a switch and a return, a dark launch. What was counted and measured becomes the [`receipt`].

mod board;
mod load;
mod receipt;
mod site;
mod story;

use crate::api::Api;
use crate::dev::{Cluster, ClusterOptions};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::roles;
use crate::show;
use crate::table;
use anyhow::Result;
use baton_model::receipt::Receipt;
use board::Board;
use site::Site;
use story::Story;
use tokio_util::sync::CancellationToken;

/// See it all on this machine: deploy, roll, kill, roll back, under load, with a receipt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton demo
  baton demo --rate 2000 --nodes 5
  baton demo --json > receipt.json

Needs no root and leaves nothing behind. The exit code is 0 only if every phase ended as it must and no
request failed. What a bad version itself answers with an error is no lost request, and is counted apart.")]
pub(crate) struct Args {
    /// Requests per second; an analysis needs some to judge by.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    rate: u32,
    /// Nodes, and instances of the service.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
    /// Gateways in front of them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=10))]
    gateways: u8,
    /// Leave the cluster running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and prints its receipt.
///
/// # Errors
/// When a phase could not be done at all, or it was interrupted; everything is cleaned up then too.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let stop = roles::stop_asked()?;
    let Args { rate, nodes, gateways, .. } = args;
    let title =
        format!("{nodes} nodes, {gateways} gateways, {} requests a second", show::thousands(rate.into()));
    let board = Board::new(global, title);
    let receipt = tokio::select! {
        told = tell(&args, &board, &stop, global) => told?,
        never = board.draw(global) => match never {},
    };
    Ok(if receipt.ok { Exit::Done } else { Exit::Failed })
}

/// Everything from the first process to the last: the cluster is stopped whatever happened in between.
async fn tell(args: &Args, board: &Board, stop: &CancellationToken, global: &Global) -> Result<Receipt> {
    let Args { rate, nodes, gateways, .. } = *args;
    board.begin(&format!("start a cluster of {} processes", 1 + nodes + gateways), Site::Web, None);
    let options = ClusterOptions { nodes, gateways, dir: None };
    let cluster = Cluster::start(&options, stop.cancelled()).await?;
    board.end(true);
    let told = tokio::select! {
        told = tell_all(&cluster, board, rate) => told,
        () = stop.cancelled() => Err(Fault::interrupted().into()),
    };
    board.close();
    if let Ok(receipt) = &told {
        print(receipt, global)?;
        if args.keep {
            eprintln!("\nthe cluster runs on until Ctrl-C; in another terminal:");
            eprintln!("  export BATON_CONFIG_DIR={}", cluster.config_dir().display());
            eprintln!("  baton rollout history {}", Site::Shop.name());
            eprintln!("  baton top --traffic");
            stop.cancelled().await;
        }
    }
    cluster.stop().await?;
    told
}

async fn tell_all(cluster: &Cluster, board: &Board, rate: u32) -> Result<Receipt> {
    let client = cluster.operator()?.connect().await?;
    tokio::select! {
        told = Story::new(cluster, board, client.clone(), rate).tell() => told,
        never = board.look(Api::new(client)) => match never {},
    }
}

fn print(receipt: &Receipt, global: &Global) -> Result<()> {
    if global.json {
        return global.print_json(receipt);
    }
    table::print(&receipt::table(receipt, usize::from(global.size().0)), global)
}
