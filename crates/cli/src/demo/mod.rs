//! `baton demo`: the whole promise on one machine, in a minute, with a receipt.
//!
//! A cluster of real processes ([`crate::dev`]), a real web service that takes its socket from the shim
//! ([`crate::sample`]), a steady load of real requests ([`load`]), and the [`story`]: deploy, roll, kill an
//! instance, kill an agent, try a bad release. What was counted and measured becomes the [`receipt`].

mod board;
mod load;
mod receipt;
mod site;
mod story;

use crate::dev::{Cluster, ClusterOptions};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::roles;
use crate::table;
use anyhow::Result;
use baton_model::receipt::Receipt;
use board::Board;
use story::Story;
use tokio_util::sync::CancellationToken;

/// See it all on this machine: deploy, roll, kill, roll back, under load, with a receipt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton demo
  baton demo --rate 2000 --nodes 5
  baton demo --json > receipt.json

Needs no root and leaves nothing behind. The exit code is 0 only if every phase ended as it must and no
request failed but those in flight on the instance that was killed.")]
pub(crate) struct Args {
    /// Requests per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Nodes, and instances of the service.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,
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
    let board = Board::new(global);
    let receipt = tokio::select! {
        told = tell(&args, &board, &stop, global) => told?,
        never = board.draw(global) => match never {},
    };
    Ok(if receipt.ok { Exit::Done } else { Exit::Failed })
}

/// Everything from the first process to the last: the cluster is stopped whatever happened in between.
async fn tell(args: &Args, board: &Board, stop: &CancellationToken, global: &Global) -> Result<Receipt> {
    board.begin("start a coordinator and its nodes");
    let options = ClusterOptions { nodes: args.nodes, gateways: 0, dir: None };
    let cluster = Cluster::start(&options, stop.cancelled()).await?;
    board.end(true);
    let told = tokio::select! {
        told = Story::new(&cluster, board, args.rate)?.tell() => told,
        () = stop.cancelled() => Err(Fault::interrupted().into()),
    };
    board.close();
    if let Ok(receipt) = &told {
        print(receipt, global)?;
        if args.keep {
            eprintln!("\nthe cluster runs on until Ctrl-C; in another terminal:");
            eprintln!("  export BATON_CONFIG_DIR={}", cluster.config_dir().display());
            eprintln!("  baton service show {}", site::SERVICE);
            stop.cancelled().await;
        }
    }
    cluster.stop().await?;
    told
}

fn print(receipt: &Receipt, global: &Global) -> Result<()> {
    if global.json {
        return global.print_json(receipt);
    }
    table::print(&receipt::table(receipt, usize::from(global.size().0)), global)
}
