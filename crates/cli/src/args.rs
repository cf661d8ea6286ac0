//! The command line: names the commands, and hands each to its room. Nothing but `main` knows this file.

use crate::commands::{
    agent, completions, context, coordinator, deploy, dev, events, explain, gateway, logs, man, node, plan,
    rollout, route, secret, service, top, validate, version,
};
use crate::demo;
use crate::exit::{EXIT_CODES, Exit};
use crate::global::{Global, GlobalOptions};
use crate::sample;
use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  baton demo                                 see it all on this machine, in a minute
  baton dev                                  a local cluster, until Ctrl-C
  baton deploy web.toml --version 2.0 --watch
  baton rollout watch web
  baton explain web                          why is it waiting?";

/// Deploys and keeps alive services on plain Linux hosts, without losing a request.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\nData goes to stdout, talk to stderr.")
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it all on this machine: deploy, roll, kill, roll back, under load, with a receipt.
    Demo(demo::Args),
    /// Run a local cluster of separate processes, until Ctrl-C.
    Dev(dev::Args),
    /// Check a service file, offline.
    Validate(validate::Args),
    /// Say what a deploy would do, and do nothing.
    Plan(plan::Args),
    /// Make a release of a service file and roll it out.
    Deploy(deploy::Args),
    /// Look at rollouts and steer them.
    Rollout(rollout::Args),
    /// List, show and remove services.
    Service(service::Args),
    /// Set, list and remove secrets.
    Secret(secret::Args),
    /// List, show, label, cordon, drain, remove and invite nodes.
    Node(node::Args),
    /// List, invite, join, run and remove gateways.
    Gateway(gateway::Args),
    /// Show what gateways do with the requests for a service.
    Route(route::Args),
    /// Print what a service writes to stdout and stderr.
    Logs(logs::Args),
    /// Print what happened in the cluster.
    Events(events::Args),
    /// Show load and memory of nodes and instances, refreshing on a terminal.
    Top(top::Args),
    /// Say why a service waits: what is waited for, why, and until when.
    Explain(explain::Args),
    /// Choose which coordinator commands talk to.
    Context(context::Args),
    /// Make a cluster, and run its coordinator.
    Coordinator(coordinator::Args),
    /// Make a node of this host, and run its agent.
    Agent(agent::Args),
    /// Print shell completions.
    Completions(completions::Args),
    /// Write the manual pages into a folder.
    #[command(hide = true)]
    Man(man::Args),
    /// Print the version of this program.
    Version(version::Args),
    /// Serve HTTP as a sample workload.
    #[command(hide = true)]
    SampleWeb(sample::Args),
}

impl Command {
    /// The runtime that suits the command: the agent must stay small, the sample is one of many.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        match self {
            Self::Agent(_) => baton_agent::runtime(),
            Self::SampleWeb(_) => tokio::runtime::Builder::new_current_thread().enable_all().build(),
            _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Whatever the command met; see [`crate::fault`].
    pub(crate) async fn run(self, global: &Global) -> Result<Exit> {
        match self {
            Self::Demo(args) => demo::run(args, global).await,
            Self::Dev(args) => dev::run(args, global).await,
            Self::Coordinator(args) => coordinator::run(args, global).await,
            Self::Agent(args) => agent::run(args, global).await,
            Self::Validate(args) => validate::run(args, global).await,
            Self::Plan(args) => plan::run(args, global).await,
            Self::Deploy(args) => deploy::run(args, global).await,
            Self::Rollout(args) => rollout::run(args, global).await,
            Self::Service(args) => service::run(args, global).await,
            Self::Secret(args) => secret::run(args, global).await,
            Self::Node(args) => node::run(args, global).await,
            Self::Gateway(args) => gateway::run(args, global).await,
            Self::Route(args) => route::run(args, global).await,
            Self::Logs(args) => logs::run(args, global).await,
            Self::Events(args) => events::run(args, global).await,
            Self::Top(args) => top::run(args, global).await,
            Self::Explain(args) => explain::run(args, global).await,
            Self::Context(args) => context::run(args, global).await,
            Self::Completions(args) => completions::run(args, &mut Cli::command()),
            Self::Man(args) => man::run(args, Cli::command()),
            Self::Version(args) => version::run(args, global),
            Self::SampleWeb(args) => sample::run(args).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "`{path} --help` has no examples");
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
