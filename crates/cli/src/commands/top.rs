//! `baton top`: load and memory of nodes and instances.

use crate::api::Api;
use crate::exit::Exit;
use crate::fault;
use crate::global::Global;
use crate::live::{self, Line, Screen, Style};
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::status::{NodeStatus, PlacedInstance};
use std::time::Duration;

/// Agents sample every two seconds; asking more often would show the same.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Show load and memory of nodes and instances, refreshing on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton top
  baton top --once
  baton top --json")]
pub(crate) struct Args {
    /// Print once, on a terminal too.
    #[arg(long)]
    once: bool,
}

/// Prints once where there is no terminal; otherwise until Ctrl-C.
///
/// # Errors
/// When the coordinator cannot be reached at first.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let mut api = global.api().await?;
    let nodes = api.nodes().await?;
    if global.json {
        global.print_json(&nodes)?;
        return Ok(Exit::Done);
    }
    if args.once || !global.terminal {
        table::print(&lines(&nodes), global)?;
        return Ok(Exit::Done);
    }
    refresh(global, api, nodes).await
}

async fn refresh(global: &Global, mut api: Api, mut nodes: Vec<NodeStatus>) -> Result<Exit> {
    let mut screen = Screen::new(std::io::stdout(), global.color);
    let mut note = None;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let mut all = lines(&nodes);
        all.extend(note.take());
        let (width, height) = global.size();
        screen.draw(&all, width, height)?;
        tokio::select! {
            () = tokio::time::sleep(REFRESH_EVERY) => {}
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        }
        match api.nodes().await {
            Ok(fresh) => nodes = fresh,
            Err(error) => {
                note = Some(Line::of(Style::Warn, format!("! {}; trying again", fault::briefly(&error))));
                // The old view stays until it answers again.
                if let Ok(fresh) = global.api().await {
                    api = fresh;
                }
            }
        }
    }
}

fn lines(nodes: &[NodeStatus]) -> Vec<Line> {
    let mut lines = by_node(nodes).lines();
    lines.push(Line::new());
    lines.extend(by_instance(nodes).lines());
    lines
}

fn by_node(nodes: &[NodeStatus]) -> Table {
    let mut table =
        Table::new(&["NODE", "CPU", "LOAD", "MEMORY", "DISK FREE", "RX/S", "TX/S", "AGENT", "INSTANCES"]);
    for status in nodes {
        let name = styled(if status.connected { Style::Bold } else { Style::Bad }, &status.node.name);
        let Some(metrics) = &status.metrics else {
            table.row(vec![name, styled(Style::Dim, super::node::state(status).1)]);
            continue;
        };
        table.row(vec![
            name,
            plain(show::share(metrics.cpu)),
            plain(format!("{:.2}", metrics.load1)),
            plain(show::of(metrics.memory_used_bytes, metrics.memory_total_bytes)),
            plain(show::bytes(metrics.disk_free_bytes)),
            plain(rate(metrics.network_rx_bytes_per_s)),
            plain(rate(metrics.network_tx_bytes_per_s)),
            plain(show::bytes(metrics.agent_memory_bytes)),
            plain(status.instances.len()),
        ]);
    }
    table
}

fn by_instance(nodes: &[NodeStatus]) -> Table {
    let mut table =
        Table::new(&["INSTANCE", "NODE", "STATE", "CPU", "MEMORY", "PROCESSES", "RESTARTS", "PID"]);
    let mut all: Vec<&PlacedInstance> = nodes.iter().flat_map(|status| &status.instances).collect();
    let load = |instance: &PlacedInstance| instance.metrics.map_or(0.0, |metrics| metrics.cpu);
    all.sort_by(|a, b| load(b).total_cmp(&load(a)).then_with(|| a.id.cmp(&b.id)));
    for instance in all {
        let observed = instance.observed.as_ref();
        let metrics = instance.metrics;
        let dash = || plain("-");
        table.row(vec![
            plain(&instance.id),
            plain(&instance.node),
            observed.map_or_else(dash, |it| styled(live::state_style(it.state), it.state)),
            metrics.map_or_else(dash, |it| plain(show::share(it.cpu))),
            metrics.map_or_else(dash, |it| plain(show::bytes(it.memory_bytes))),
            metrics.map_or_else(dash, |it| plain(it.processes)),
            observed.map_or_else(dash, |it| plain(it.restarts)),
            observed.and_then(|it| it.pid).map_or_else(dash, plain),
        ]);
    }
    table
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative and far below 2^64"
)]
fn rate(bytes_per_s: f64) -> String {
    show::bytes(bytes_per_s.max(0.0) as u64)
}
