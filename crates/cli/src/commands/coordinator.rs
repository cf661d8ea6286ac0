//! `baton coordinator`: making a cluster, and the coordinator's own process.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::roles;
use anyhow::Result;
use baton_coordinator::authority::Lifetimes;
use baton_coordinator::{CoordinatorConfig, InitOptions};
use baton_model::time::Millis;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Shorter lives leave no time to renew a certificate.
const LIFE_MIN: Duration = Duration::from_secs(3);

/// Make a cluster, and run its coordinator.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton coordinator init --dir /var/lib/baton-coordinator --listen 10.0.0.5:7443
  baton coordinator run --dir /var/lib/baton-coordinator")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a cluster: its authority, its store, and a token for its first operator.
    #[command(
        after_help = "Examples:\n  baton coordinator init --dir /var/lib/baton-coordinator --listen 10.0.0.5:7443\n  baton coordinator init --dir ./c --listen 127.0.0.1:7443 --name lab --operator alice --json"
    )]
    Init {
        /// The coordinator's folder: empty, or not there yet.
        #[arg(long)]
        dir: PathBuf,
        /// Where the coordinator listens.
        #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7443")]
        listen: SocketAddr,
        /// The cluster's name, part of every certificate.
        #[arg(long, default_value = "baton")]
        name: String,
        /// The first operator's name.
        #[arg(long, default_value = "operator")]
        operator: String,
    },
    /// Run the coordinator until it is told to stop.
    #[command(
        after_help = "Examples:\n  baton coordinator run --dir /var/lib/baton-coordinator\n  baton coordinator run --dir ./c --listen 127.0.0.1:7443 --metrics 127.0.0.1:9464"
    )]
    Run {
        /// The coordinator's folder.
        #[arg(long)]
        dir: PathBuf,
        /// Listen here instead of where `init` was told.
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// Serve metrics for Prometheus here, at /metrics. Whoever can connect may read them: a
        /// loopback or an internal address.
        #[arg(long, value_name = "ADDR:PORT")]
        metrics: Option<SocketAddr>,
        /// For how long the certificates of nodes and operators are valid; they renew them
        /// after two thirds of it.
        #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "2160h")]
        certificate_life: Millis,
        #[command(flatten)]
        process: roles::ProcessOptions,
    },
}

/// Does what was asked.
///
/// # Errors
/// When the folder is in use, is no cluster or already one, or the address is taken.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Init { dir, listen, name, operator } => {
            let options = InitOptions {
                dir: dir.clone(),
                cluster: name,
                listen,
                operator: operator.clone(),
                operator_dir: None,
            };
            let done = baton_coordinator::init(options).await?;
            if global.json {
                global.print_json(&serde_json::json!({
                    "cluster": done.cluster, "listen": done.listen, "dir": dir, "operator": operator, "operator_token": done.operator_token,
                }))?;
                return Ok(Exit::Done);
            }
            eprintln!("cluster `{}` is made in {}; now", done.cluster, dir.display());
            eprintln!("  baton coordinator run --dir {}", dir.display());
            eprintln!(
                "  baton context add {} --coordinator {} --as {operator} --token TOKEN",
                done.cluster, done.listen
            );
            eprintln!("with this token, good once within a day:");
            writeln!(std::io::stdout(), "{}", done.operator_token)?;
            Ok(Exit::Done)
        }
        Action::Run { dir, listen, metrics, certificate_life, process } => {
            process.prepare()?;
            let life = certificate_life.duration();
            if life < LIFE_MIN {
                let what = format!("certificates cannot be valid for {certificate_life} only");
                return Err(Fault::usage(what, format!("give them {} s or more", LIFE_MIN.as_secs())).into());
            }
            let lifetimes = Lifetimes { member: life, ..Lifetimes::default() };
            let config = CoordinatorConfig { listen, metrics, lifetimes, ..CoordinatorConfig::new(dir) };
            baton_coordinator::run(config, roles::stop_asked()?).await?;
            Ok(Exit::Done)
        }
    }
}
