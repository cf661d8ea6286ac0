//! `baton gateway`: the gateways, invitations for new ones, and the gateway's own process.

use super::node::token;
use crate::confirm;
use crate::exit::Exit;
use crate::global::Global;
use crate::live::{Line, Style};
use crate::roles;
use crate::show;
use crate::table::{Table, plain, styled};
use anyhow::Result;
use baton_gateway::control::JoinOptions;
use baton_gateway::{Gateway, GatewayConfig};
use baton_model::id::{GatewayName, ServiceName};
use baton_model::status::GatewayStatus;
use baton_model::time::Millis;
use baton_proto::identity::Role;
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The configuration that a gateway reads where no other is named, in its folder.
const CONFIG: &str = "gateway.toml";
/// The socket over which the next process takes over, in the gateway's folder.
const HANDOVER: &str = "handover.sock";

/// List, invite, join, run and remove gateways.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton gateway token --name edge-1
  baton gateway join --coordinator 10.0.0.5:7443 --name edge-1 --dir /var/lib/baton-gateway --token TOKEN
  baton gateway run --dir /var/lib/baton-gateway --config /etc/baton/gateway.toml
  baton gateway ls")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// List the gateways: where they listen, and whether they serve by the newest table.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  baton gateway ls\n  baton gateway ls --json"
    )]
    Ls,
    /// Make a one-time token that a new gateway joins with.
    #[command(after_help = "Examples:\n  baton gateway token\n  baton gateway token --name edge-1 --ttl 10m")]
    Token {
        /// Only a gateway of this name may use it.
        #[arg(long)]
        name: Option<String>,
        /// How long it may be used.
        #[arg(long, value_name = "LENGTH", value_parser = token::lifetime, default_value = "1h")]
        ttl: Millis,
    },
    /// Make a gateway of this host: trade a one-time token for an identity.
    #[command(
        after_help = "Examples:\n  baton gateway join --coordinator 10.0.0.5:7443 --name edge-1 --dir /var/lib/baton-gateway --token TOKEN"
    )]
    Join(JoinArgs),
    /// Run the gateway until it is told to stop; it then drains.
    #[command(
        after_help = "Examples:\n  baton gateway run --dir /var/lib/baton-gateway\n  baton gateway run --dir ./edge-1 --http 127.0.0.1:8080\n\nStarted again on the same folder, the new process takes over the sockets of the one that runs, which\nends what it has in flight: so it is upgraded without a refused connection."
    )]
    Run(RunArgs),
    /// Say whether a configuration and its certificates are good; nothing is started.
    #[command(
        after_help = "Examples:\n  baton gateway check --config /etc/baton/gateway.toml\n\n`systemctl reload baton-gateway` does so first, and changes nothing where it is not."
    )]
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Forget a gateway that was stopped; its certificate is refused from then on.
    #[command(visible_alias = "remove", after_help = "Examples:\n  baton gateway rm edge-1")]
    Rm {
        /// The gateway.
        gateway: GatewayName,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Where the coordinator listens; more than once for several, the first of which is asked now.
    #[arg(long = "coordinator", required = true, value_name = "HOST:PORT")]
    coordinators: Vec<String>,
    /// From `baton gateway token`.
    #[arg(long, env = "BATON_TOKEN", hide_env_values = true)]
    token: String,
    /// The gateway's name in the cluster.
    #[arg(long)]
    name: GatewayName,
    /// The gateway's folder; made if it is not there.
    #[arg(long)]
    dir: PathBuf,
    /// Replace the gateway that the folder holds.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The gateway's folder.
    #[arg(long)]
    dir: PathBuf,
    /// Its configuration; `gateway.toml` in its folder where none is named and one is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here for HTTP instead of where the configuration says; more than once for several.
    #[arg(long, value_name = "ADDR:PORT")]
    http: Vec<SocketAddr>,
    #[command(flatten)]
    process: roles::ProcessOptions,
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator cannot be reached or refuses, or the gateway cannot run.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Ls => list(global).await,
        Action::Token { name, ttl } => token::run(global, name, Role::Gateway, ttl).await,
        Action::Join(args) => join(args, global).await,
        Action::Run(args) => serve(args).await.inspect_err(|_| baton_gateway::refuse()),
        Action::Check { config } => {
            Gateway::check(&GatewayConfig::read(&config)?)?;
            eprintln!("{} is good", config.display());
            Ok(Exit::Done)
        }
        Action::Rm { gateway, yes } => remove(global, &gateway, yes).await,
    }
}

async fn join(args: JoinArgs, global: &Global) -> Result<Exit> {
    let JoinArgs { coordinators, token, name, dir, force } = args;
    let coordinator = coordinators.first().cloned();
    let options = JoinOptions { dir: dir.clone(), coordinators, token, name: name.clone(), force };
    baton_gateway::control::join(options).await?;
    if global.json {
        global.print_json(&serde_json::json!({ "gateway": name, "coordinator": coordinator, "dir": dir }))?;
    }
    eprintln!("{name} has joined; now `baton gateway run --dir {}`", dir.display());
    Ok(Exit::Done)
}

async fn serve(args: RunArgs) -> Result<Exit> {
    args.process.prepare()?;
    let mut config = configuration(&args.dir, args.config.as_deref())?;
    if !args.http.is_empty() {
        config.http = args.http;
    }
    if config.handover.is_none() {
        config.handover = Some(args.dir.join(HANDOVER));
    }
    let stop = roles::stop_asked()?;
    follow_up_on_signals(stop.clone())?;
    let options = baton_gateway::RunOptions { dir: args.dir, config };
    baton_gateway::run(options, stop).await?;
    Ok(Exit::Done)
}

/// Starts its arguments and ends at once. What it started is then a child of whoever looks after orphans, which in a unit is
/// systemd itself: the end of a process that has taken over is seen at once, also while the one before still drains.
const ORPHAN: &str = r#""$0" "$@" &"#;

/// What the service manager gives a process to be told by; see sd_notify(3).
const NOTIFY: &str = "NOTIFY_SOCKET";

/// On SIGHUP starts the program that is installed by now, with the same arguments: it takes over the sockets of this process,
/// which then ends what it has in flight. A program that does not come up says why, and costs nothing: this one goes on.
///
/// SIGURG does the same while the unit restarts: the next program serves until the unit's own has begun and takes over in turn.
/// It tells the service manager nothing, as it is not the unit's process and nothing is to be kept for it. The signal is one that
/// a process which does not know it ignores.
///
/// Once it is asked to stop nothing follows it, also where it had been asked for that just before: whoever stops all processes of
/// the unit would not know of the next one.
fn follow_up_on_signals(stop: CancellationToken) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut restarts = signal(SignalKind::from_raw(Signal::SIGURG as i32))?;
    // Found now: once it is replaced on disk, the name of what runs ends in "(deleted)".
    let program = std::env::current_exe()?;
    tokio::spawn(async move {
        loop {
            let between = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                asked = hangup.recv() => asked.map(|()| false),
                asked = restarts.recv() => asked.map(|()| true),
            };
            let Some(between) = between else { return };
            tracing::info!(restart = between, "asked to be followed by another process");
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(ORPHAN).arg(&program).args(std::env::args_os().skip(1));
            // What the service manager kept was for this process: one that cannot begin must not have it taken back.
            shell.env_remove("LISTEN_FDNAMES");
            if between {
                shell.env_remove(NOTIFY);
            }
            if let Err(error) = shell.status().await {
                tracing::error!(program = %program.display(), %error, "the next process cannot be started");
            }
        }
    });
    Ok(())
}

/// The configuration that was named, or the one in the folder, or the defaults.
fn configuration(dir: &Path, named: Option<&Path>) -> Result<GatewayConfig> {
    let beside = dir.join(CONFIG);
    match named {
        Some(path) => Ok(GatewayConfig::read(path)?),
        None if beside.exists() => Ok(GatewayConfig::read(&beside)?),
        None => Ok(GatewayConfig::default()),
    }
}

async fn list(global: &Global) -> Result<Exit> {
    let gateways = global.api().await?.gateways().await?;
    if global.json {
        global.print_json(&gateways)?;
        return Ok(Exit::Done);
    }
    if gateways.is_empty() {
        eprintln!("there is no gateway yet; `baton gateway token` invites one");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["GATEWAY", "STATE", "TABLE", "LEAVING", "LISTENS ON", "BATON"]);
    for status in &gateways {
        let (style, state) = state(status);
        let facts = &status.facts;
        let listens: Vec<String> = facts.http.iter().chain(&facts.https).map(ToString::to_string).collect();
        table.row(vec![
            styled(Style::Bold, &status.gateway.name),
            styled(style, state),
            served(status),
            // Requests in flight to instances that are on their way out.
            plain(status.state.busy.values().sum::<u64>()),
            plain(if listens.is_empty() { "-".to_owned() } else { listens.join(" ") }),
            plain(if facts.version.is_empty() { "-" } else { &facts.version }),
        ]);
    }
    table.print(global)?;
    for status in &gateways {
        for (service, why) in &status.state.unserved {
            eprintln!("{} does not serve {service}: it {why}", status.gateway.name);
        }
        if let Some(refused) = &status.state.refused {
            eprintln!("{} does not take table {}: {}", status.gateway.name, refused.revision, refused.reason);
        }
    }
    Ok(Exit::Done)
}

/// Whether the gateway is there.
fn state(status: &GatewayStatus) -> (Style, String) {
    match (status.connected, status.silent_for) {
        (true, _) if status.state.refused.is_some() => (Style::Warn, "refuses the table".to_owned()),
        (true, _) if !status.state.unserved.is_empty() => {
            let services: Vec<&str> = status.state.unserved.keys().map(ServiceName::as_str).collect();
            (Style::Warn, format!("cannot serve {}", services.join(", ")))
        }
        (true, _) => (Style::Good, "connected".to_owned()),
        (false, Some(length)) => (Style::Bad, format!("silent for {}", show::length(length.duration()))),
        (false, None) => (Style::Bad, "never heard".to_owned()),
    }
}

/// The table it serves by, beside the one it should.
fn served(status: &GatewayStatus) -> Line {
    let (has, should) = (status.state.table, status.table);
    if has == should { plain(has) } else { styled(Style::Busy, format!("{has} of {should}")) }
}

async fn remove(global: &Global, gateway: &GatewayName, yes: bool) -> Result<Exit> {
    let mut api = global.api().await?;
    if !yes {
        confirm::ask(&format!("forget gateway `{gateway}`?"))?;
    }
    api.remove_gateway(gateway).await?;
    eprintln!("gateway `{gateway}` is forgotten");
    Ok(Exit::Done)
}
