//! `baton agent`: making a node of this host, and the agent's own process.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::roles;
use anyhow::Result;
use baton_agent::{AgentConfig, Departure, Guard, JOURNAL_SOCKET, JoinOptions, LOG_BYTES_DEFAULT};
use baton_model::id::NodeName;
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Make a node of this host, and run its agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton agent join --coordinator 10.0.0.5:7443 --token TOKEN --name node-1 --address 10.0.0.11 --label zone=a --dir /var/lib/baton-agent
  baton agent run --dir /var/lib/baton-agent")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a node of this host with a one-time token from `baton node token`.
    #[command(
        after_help = "Examples:\n  baton agent join --coordinator 10.0.0.5:7443 --token TOKEN --name node-1 --address 10.0.0.11 --label zone=a --dir /var/lib/baton-agent"
    )]
    Join(JoinArgs),
    /// Run the agent until it is told to stop; workloads go on without it.
    #[command(
        after_help = "Examples:\n  baton agent run --dir /var/lib/baton-agent\n  baton agent run --dir /var/lib/baton-agent --metrics 127.0.0.1:9465"
    )]
    Run {
        /// The agent's folder, as `join` made it.
        #[arg(long)]
        dir: PathBuf,
        /// Use these coordinators instead of the one that was joined.
        #[arg(long = "coordinator", value_name = "HOST:PORT")]
        coordinators: Vec<String>,
        /// Serve metrics for Prometheus here, at /metrics. Whoever can connect may read them: a
        /// loopback or an internal address.
        #[arg(long, value_name = "ADDR:PORT")]
        metrics: Option<SocketAddr>,
        /// How often load and memory are sampled.
        #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "2s")]
        metrics_every: Millis,
        /// MiB of logs kept on this node, of all instances together; the oldest rotated files go first.
        #[arg(long, value_name = "MIB", default_value_t = LOG_BYTES_DEFAULT >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
        logs_mib: u64,
        /// A new program of the agent has reached the coordinator within this time, or the one before returns.
        #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "60s", env = "BATON_UPGRADE_WITHIN", hide_env_values = true)]
        upgrade_within: Millis,
        /// Where the system's journal listens, for services with `logs.journald`.
        #[arg(long, value_name = "SOCKET", default_value = JOURNAL_SOCKET, env = "BATON_JOURNAL_SOCKET", hide_env_values = true)]
        journal_socket: PathBuf,
        #[command(flatten)]
        process: roles::ProcessOptions,
    },
    /// Bring the agent's program back where a new one does not work; the agent starts this in an upgrade.
    #[command(hide = true)]
    GuardUpgrade {
        /// The agent's folder.
        #[arg(long)]
        dir: PathBuf,
        /// The agent's process, which started this one.
        #[arg(long)]
        process: u32,
        /// Which request is tried.
        #[arg(long)]
        request: u64,
        /// How long the new program has.
        #[arg(long, value_parser = Millis::parse)]
        within: Millis,
        /// Somebody starts the agent again when it ends.
        #[arg(long)]
        supervised: bool,
        #[command(flatten)]
        process_options: roles::ProcessOptions,
        /// What the agent was started with.
        #[arg(last = true)]
        agent: Vec<OsString>,
    },
    /// End every workload of this node while its agent is stopped; they start again with the agent.
    #[command(
        after_help = "Examples:\n  systemctl stop baton-agent; baton agent halt --dir /var/lib/baton-agent"
    )]
    Halt {
        /// The agent's folder.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct JoinArgs {
    /// Where the coordinator listens; more than once for several, the first of which is asked now.
    #[arg(long = "coordinator", required = true, value_name = "HOST:PORT")]
    coordinators: Vec<String>,
    /// From `baton node token`.
    #[arg(long, env = "BATON_TOKEN", hide_env_values = true)]
    token: String,
    /// The node's name in the cluster.
    #[arg(long)]
    name: NodeName,
    /// The address that services on this node are reached at.
    #[arg(long, value_name = "IP")]
    address: IpAddr,
    /// Labels, among them `region` and `zone`.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The agent's folder; made if it is not there.
    #[arg(long)]
    dir: PathBuf,
    /// Replace the node that the folder holds.
    #[arg(long)]
    force: bool,
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator refuses the token, the folder is in use or holds no node.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Join(args) => join(args, global).await,
        Action::Run {
            dir,
            coordinators,
            metrics,
            metrics_every,
            logs_mib,
            upgrade_within,
            journal_socket,
            process,
        } => {
            process.prepare()?;
            let config = AgentConfig {
                coordinators,
                metrics,
                metrics_every: metrics_every.duration(),
                log_bytes_max: logs_mib << 20,
                upgrade_within: upgrade_within.duration(),
                journal_socket,
                ..AgentConfig::new(dir.clone())
            };
            match baton_agent::run(config, roles::stop_asked()?).await? {
                Departure::Stopped => Ok(Exit::Done),
                // Returns only where neither program can be executed.
                Departure::Become(program) => Err(baton_agent::go_on_as(&dir, &program).into()),
            }
        }
        Action::GuardUpgrade { dir, process, request, within, supervised, process_options, agent } => {
            process_options.prepare()?;
            let within = within.duration();
            baton_agent::guard(Guard { dir, process, request, within, supervised, agent })?;
            Ok(Exit::Done)
        }
        Action::Halt { dir } => halt(&dir).await,
    }
}

async fn join(args: JoinArgs, global: &Global) -> Result<Exit> {
    let mut coordinators = args.coordinators.into_iter();
    let coordinator = coordinators.next().expect("clap asks for one");
    let options = JoinOptions {
        dir: args.dir.clone(),
        coordinator: coordinator.clone(),
        other_coordinators: coordinators.collect(),
        token: args.token.clone(),
        name: args.name.clone(),
        address: args.address,
        labels: labels(&args.labels)?,
        force: args.force,
    };
    baton_agent::join(options).await?;
    if global.json {
        global.print_json(
            &serde_json::json!({ "node": args.name, "coordinator": coordinator, "dir": args.dir }),
        )?;
    }
    eprintln!("{} has joined; now `baton agent run --dir {}`", args.name, args.dir.display());
    Ok(Exit::Done)
}

async fn halt(dir: &Path) -> Result<Exit> {
    let halted = baton_agent::halt(dir).await?;
    for (instance, killed) in &halted.ended {
        eprintln!("{instance} has ended{}", if *killed { ", killed" } else { "" });
    }
    for left in &halted.left {
        eprintln!("{left}");
    }
    if halted.left.is_empty() {
        return Ok(Exit::Done);
    }
    anyhow::bail!("some of it could not be ended; look at it with `ps`, then try again")
}

fn labels(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let parse = |text: &String| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            Fault::usage(format!("`{text}` is not a label"), "write KEY=VALUE, as in zone=a")
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(parse).collect()
}
