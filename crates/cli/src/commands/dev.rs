//! `baton dev`: a local cluster until Ctrl-C.

use crate::dev::{Cluster, ClusterOptions, RoleNotice};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use anyhow::Result;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Run a local cluster of separate processes, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton dev                       three nodes, thrown away on Ctrl-C
  baton dev --nodes 5 --dir ./cluster
  baton dev --gateways 1          a gateway in front of services that have a [route]
  baton dev --json-ready          one JSON line with addresses and pids once ready

The coordinator listens on 127.77.N.1, the nodes have 127.77.N.11 and up, with zones a, b and c, and
gateways listen on port 8080 of 127.77.N.231 and up. Each role has metrics on port 9464 of its address.
Each role is a process of its own and is restarted when it ends; `kill -9` them as you like.
Ctrl-C ends everything, workloads included. Killed with SIGKILL, its roles die with it; workloads of a
thrown-away cluster then go on until the next `baton dev`, which clears them away.")]
pub(crate) struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// How many gateways.
    #[arg(long, default_value_t = 0)]
    gateways: u8,
    /// Keep the cluster's state here, and go on with it next time.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print one JSON line when it is ready, then one for each role that ends or is restarted.
    #[arg(long)]
    json_ready: bool,
}

/// Runs the cluster.
///
/// # Errors
/// When it cannot be started, or something of it cannot be ended.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let mut stop = Stop::listen()?;
    let options = ClusterOptions { nodes: args.nodes, gateways: args.gateways, dir: args.dir };
    let json = args.json_ready || global.json;
    if !json {
        eprintln!("starting a coordinator, {} nodes and {} gateways ...", options.nodes, options.gateways);
    }
    let mut cluster = Cluster::start(&options, stop.asked()).await?;
    write_roles(&cluster)?;
    if json {
        say_ready_json(&cluster)?
    } else {
        say_ready(&cluster)
    }
    loop {
        tokio::select! {
            () = stop.asked() => break,
            Some(notice) = cluster.notices.recv() => {
                write_roles(&cluster)?;
                say(&notice, json)?;
            }
        }
    }
    if !json {
        eprintln!("\nstopping everything ...");
    }
    cluster.stop().await?;
    if !json {
        eprintln!("everything has ended, and nothing is left");
    }
    Ok(Exit::Done)
}

/// The signals that ask a foreground command to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Keeps `roles.json` beside the cluster's state: role to pid, for scripts that kill them.
fn write_roles(cluster: &Cluster) -> Result<()> {
    let pids: serde_json::Map<String, serde_json::Value> =
        cluster.roles.iter().filter_map(|role| Some((role.name.clone(), role.pid()?.into()))).collect();
    let path = roles_file(&cluster.dir);
    let fresh = path.with_extension("new");
    let written =
        std::fs::write(&fresh, serde_json::to_vec(&pids)?).and_then(|()| std::fs::rename(&fresh, &path));
    written.map_err(|error| {
        Fault::new(format!("{}: {error}", path.display()), "make room, or use another --dir")
    })?;
    Ok(())
}

fn roles_file(dir: &Path) -> PathBuf {
    dir.join("roles.json")
}

fn say_ready(cluster: &Cluster) {
    eprintln!("\nready, in {}", cluster.dir.display());
    eprintln!("  coordinator  {}", cluster.coordinator);
    for node in &cluster.nodes {
        eprintln!("  {:<12} {}  zone {}", node.name, node.address, node.zone);
    }
    for gateway in &cluster.gateways {
        eprintln!("  {:<12} http://{}  zone {}", gateway.name, gateway.http, gateway.zone);
    }
    eprintln!("\nin another terminal:");
    eprintln!("  export BATON_CONFIG_DIR={}", cluster.config_dir().display());
    eprintln!("  baton node ls");
    eprintln!("  baton deploy SERVICE.toml --version 1.0 --watch");
    eprintln!("\nCtrl-C stops everything.");
}

fn say_ready_json(cluster: &Cluster) -> Result<()> {
    let pid = |index: usize| cluster.roles.get(index).and_then(crate::dev::Role::pid);
    let nodes: Vec<_> = cluster
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            json!({
                "name": node.name,
                "address": node.address,
                "zone": node.zone,
                "dir": cluster.node_dir(node),
                "log": cluster.log(&node.name),
                "pid": pid(index + 1),
            })
        })
        .collect();
    let gateways: Vec<_> = cluster
        .gateways
        .iter()
        .enumerate()
        .map(|(index, gateway)| {
            json!({
                "name": gateway.name,
                "http": gateway.http,
                "zone": gateway.zone,
                "dir": cluster.gateway_dir(gateway),
                "log": cluster.log(&gateway.name),
                "pid": cluster.gateway(index).pid(),
            })
        })
        .collect();
    let ready = json!({
        "event": "ready",
        "dir": cluster.dir,
        "config_dir": cluster.config_dir(),
        "roles_file": roles_file(&cluster.dir),
        "coordinator": { "address": cluster.coordinator, "pid": pid(0), "log": cluster.log("coordinator") },
        "nodes": nodes,
        "gateways": gateways,
    });
    print_line(&ready)
}

fn say(notice: &RoleNotice, json: bool) -> Result<()> {
    if json {
        return print_line(notice);
    }
    match notice {
        RoleNotice::Restarted { role, pid } => eprintln!("{role} runs again, as pid {pid}"),
        RoleNotice::Ended { role, pid, how } => {
            eprintln!("{role} (pid {pid}) ended with {how}; it is started again")
        }
    }
    Ok(())
}

/// One line of JSON, whatever stdout is.
fn print_line(value: &impl serde::Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    out.flush()?;
    Ok(())
}
