//! `baton top`: what gateways count of each release, and load and memory of nodes and instances.

mod traffic;

use crate::api::Api;
use crate::exit::Exit;
use crate::fault;
use crate::global::Global;
use crate::live::{self, Line, Screen, Style};
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::status::{NodeStatus, PlacedInstance, Traffic};
use baton_model::time::Millis;
use std::time::Duration;

/// Agents sample every two seconds; asking more often would show the same.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Show requests by release, and load and memory of nodes and instances, refreshing on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton top
  baton top --once
  baton top --json
  baton top --traffic --over 5m   only what gateways counted
  baton top --traffic --json")]
pub(crate) struct Args {
    /// Print once, on a terminal too.
    #[arg(long)]
    once: bool,
    /// Only what gateways counted, by service and release.
    #[arg(long)]
    traffic: bool,
    /// How far back gateways' counts are added up, at most an hour.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "10s")]
    over: Millis,
}

/// What is shown at one moment.
struct Shown {
    nodes: Vec<NodeStatus>,
    traffic: Traffic,
    only_traffic: bool,
}

impl Shown {
    async fn ask(api: &mut Api, args: &Args) -> Result<Self> {
        let nodes = if args.traffic { Vec::new() } else { api.nodes().await? };
        Ok(Self { nodes, traffic: api.traffic(args.over).await?, only_traffic: args.traffic })
    }
}

/// Prints once where there is no terminal; otherwise until Ctrl-C.
///
/// # Errors
/// When the coordinator cannot be reached at first.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let mut api = global.api().await?;
    let shown = Shown::ask(&mut api, &args).await?;
    if global.json {
        match args.traffic {
            true => global.print_json(&shown.traffic)?,
            false => global.print_json(&shown.nodes)?,
        }
        return Ok(Exit::Done);
    }
    if args.once || !global.terminal {
        table::print(&lines(&shown), global)?;
        return Ok(Exit::Done);
    }
    refresh(global, api, &args, shown).await
}

async fn refresh(global: &Global, mut api: Api, args: &Args, mut shown: Shown) -> Result<Exit> {
    let mut screen = Screen::new(std::io::stdout(), global.color);
    let mut note = None;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let mut all = lines(&shown);
        all.extend(note.take());
        let (width, height) = global.size();
        screen.draw(&all, width, height)?;
        tokio::select! {
            () = tokio::time::sleep(REFRESH_EVERY) => {}
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        }
        match Shown::ask(&mut api, args).await {
            Ok(fresh) => shown = fresh,
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

fn lines(shown: &Shown) -> Vec<Line> {
    let mut lines = Vec::new();
    if shown.only_traffic || !shown.traffic.services.is_empty() {
        lines.extend(traffic::lines(&shown.traffic));
    }
    if !shown.only_traffic {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        lines.extend(by_node(&shown.nodes).lines());
        lines.push(Line::new());
        lines.extend(by_instance(&shown.nodes).lines());
    }
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
