//! `baton node`: the hosts, what operators say of them, and invitations for new ones.

mod ability;
pub(super) mod token;
mod upgrade;

use crate::confirm;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::{self, Line, Style};
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::id::NodeName;
use baton_model::status::NodeStatus;
use baton_model::time::Millis;
use baton_proto::identity::Role;
use baton_proto::v1;
use std::time::{Duration, Instant};

/// Pause between two looks whether a node is empty.
const EMPTY_POLL: Duration = Duration::from_millis(200);

/// List, show, label, cordon, drain, upgrade, remove and invite nodes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton node ls
  baton node drain node-2 --wait 5m
  baton node label node-2 zone=b disk=nvme old-
  baton node token --name node-4")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the nodes.
    #[command(visible_alias = "list", after_help = "Examples:\n  baton node ls\n  baton node ls --json")]
    Ls,
    /// Show a node: its host, its load, its instances.
    #[command(after_help = "Examples:\n  baton node show node-1")]
    Show {
        /// The node.
        node: NodeName,
    },
    /// Place nothing new on a node; what runs there stays.
    #[command(after_help = "Examples:\n  baton node cordon node-1")]
    Cordon {
        /// The node.
        node: NodeName,
    },
    /// Let new instances be placed on a node again.
    #[command(after_help = "Examples:\n  baton node uncordon node-1")]
    Uncordon {
        /// The node.
        node: NodeName,
    },
    /// Move everything away from a node, and place nothing new there.
    #[command(after_help = "Examples:\n  baton node drain node-1\n  baton node drain node-1 --wait 5m")]
    Drain {
        /// The node.
        node: NodeName,
        /// Wait until it is empty, at most this long.
        #[arg(long, value_name = "LENGTH", value_parser = Millis::parse)]
        wait: Option<Millis>,
    },
    /// Use a node again after a drain.
    #[command(after_help = "Examples:\n  baton node undrain node-1")]
    Undrain {
        /// The node.
        node: NodeName,
    },
    /// Set labels with KEY=VALUE, remove them with KEY-.
    #[command(
        after_help = "Examples:\n  baton node label node-1 zone=a disk=nvme\n  baton node label node-1 disk-"
    )]
    Label {
        /// The node.
        node: NodeName,
        /// KEY=VALUE sets, KEY- removes.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
    /// Roll a program of the agents over the nodes; no workload is restarted.
    Upgrade(upgrade::Args),
    /// Forget a node; its certificate is refused from then on.
    #[command(visible_alias = "remove", after_help = "Examples:\n  baton node rm node-3")]
    Rm {
        /// The node.
        node: NodeName,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Make a one-time token that a new node, or a new operator, joins with.
    #[command(
        after_help = "Examples:\n  baton node token\n  baton node token --name node-4 --ttl 10m\n  baton node token --operator --name alice"
    )]
    Token {
        /// Only a node (or operator) of this name may use it.
        #[arg(long)]
        name: Option<String>,
        /// For an operator's context instead of a node.
        #[arg(long)]
        operator: bool,
        /// How long it may be used.
        #[arg(long, value_name = "LENGTH", value_parser = token::lifetime, default_value = "1h")]
        ttl: Millis,
    },
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Ls => list(global).await,
        Action::Show { node } => {
            let status = global.api().await?.node(&node).await?;
            if global.json {
                global.print_json(&status)?
            } else {
                show(&status, global)?
            }
            Ok(Exit::Done)
        }
        Action::Cordon { node } => set(global, cordon(&node, true), "takes nothing new").await,
        Action::Uncordon { node } => set(global, cordon(&node, false), "takes new instances again").await,
        Action::Drain { node, wait } => drain(global, &node, wait.map(Millis::duration)).await,
        Action::Undrain { node } => set(global, draining(&node, false), "is used again").await,
        Action::Label { node, labels } => set(global, label(&node, &labels)?, "has these labels now").await,
        Action::Upgrade(args) => upgrade::run(args, global).await,
        Action::Rm { node, yes } => remove(global, &node, yes).await,
        Action::Token { name, operator, ttl } => {
            let role = if operator { Role::Operator } else { Role::Node };
            token::run(global, name, role, ttl).await
        }
    }
}

fn cordon(node: &NodeName, cordoned: bool) -> v1::SetNodeRequest {
    v1::SetNodeRequest { name: node.to_string(), cordoned: Some(cordoned), ..v1::SetNodeRequest::default() }
}

fn draining(node: &NodeName, draining: bool) -> v1::SetNodeRequest {
    v1::SetNodeRequest { name: node.to_string(), draining: Some(draining), ..v1::SetNodeRequest::default() }
}

/// Parses KEY=VALUE and KEY-.
fn label(node: &NodeName, labels: &[String]) -> Result<v1::SetNodeRequest> {
    let mut request = v1::SetNodeRequest { name: node.to_string(), ..v1::SetNodeRequest::default() };
    for label in labels {
        match (label.split_once('='), label.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                request.set_labels.insert(key.to_owned(), value.to_owned());
            }
            (None, Some(key)) if !key.is_empty() => request.remove_labels.push(key.to_owned()),
            (_, _) => {
                return Err(Fault::usage(
                    format!("`{label}` is not a label"),
                    "write KEY=VALUE to set one, KEY- to remove one",
                )
                .into());
            }
        }
    }
    Ok(request)
}

async fn set(global: &Global, request: v1::SetNodeRequest, done: &str) -> Result<Exit> {
    let status = global.api().await?.set_node(request).await?;
    if global.json {
        global.print_json(&status)?;
    }
    eprintln!("`{}` {done} ({})", status.node.name, labels(&status));
    Ok(Exit::Done)
}

async fn drain(global: &Global, node: &NodeName, wait: Option<Duration>) -> Result<Exit> {
    let mut api = global.api().await?;
    let mut status = api.set_node(draining(node, true)).await?;
    let Some(wait) = wait else {
        if global.json {
            global.print_json(&status)?;
        }
        eprintln!("`{node}` is being emptied; `baton node show {node}` shows what is left");
        return Ok(Exit::Done);
    };
    let deadline = Instant::now() + wait;
    while !status.instances.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(EMPTY_POLL).await;
        status = api.node(node).await?;
    }
    if global.json {
        global.print_json(&status)?;
    }
    if status.instances.is_empty() {
        eprintln!("`{node}` is empty");
        return Ok(Exit::Done);
    }
    let left: Vec<String> = status.instances.iter().map(|instance| instance.id.to_string()).collect();
    eprintln!(
        "`{node}` still has {}; it goes on being emptied (`baton explain SERVICE` says what is waited for)",
        left.join(", ")
    );
    Ok(Exit::TimedOut)
}

async fn remove(global: &Global, node: &NodeName, yes: bool) -> Result<Exit> {
    let mut api = global.api().await?;
    if !yes {
        let status = api.node(node).await?;
        confirm::ask(&format!("forget `{node}` with its {} instances?", status.instances.len()))?;
    }
    api.remove_node(node).await?;
    eprintln!("`{node}` is forgotten");
    Ok(Exit::Done)
}

async fn list(global: &Global) -> Result<Exit> {
    let nodes = global.api().await?.nodes().await?;
    if global.json {
        global.print_json(&nodes)?;
        return Ok(Exit::Done);
    }
    if nodes.is_empty() {
        eprintln!("there is no node yet; `baton node token` invites one");
        return Ok(Exit::Done);
    }
    let mut table =
        Table::new(&["NODE", "ADDRESS", "STATE", "INSTANCES", "AGENT", "PLAN", "CPU", "MEMORY", "LABELS"]);
    for status in &nodes {
        let (style, state) = state(status);
        let plan = if status.plan_generation == status.acked_generation {
            plain(status.plan_generation)
        } else {
            styled(Style::Busy, format!("{} of {}", status.acked_generation, status.plan_generation))
        };
        let metrics = status.metrics.as_ref();
        table.row(vec![
            styled(Style::Bold, &status.node.name),
            plain(&status.node.address),
            styled(style, state),
            plain(status.instances.len()),
            plain(if status.facts.agent_version.is_empty() { "-" } else { &status.facts.agent_version }),
            plan,
            plain(metrics.map_or_else(|| "-".to_owned(), |metrics| show::share(metrics.cpu))),
            plain(
                metrics
                    .map_or_else(|| "-".to_owned(), |m| show::of(m.memory_used_bytes, m.memory_total_bytes)),
            ),
            styled(Style::Dim, labels(status)),
        ]);
    }
    table.print(global)?;
    Ok(Exit::Done)
}

/// Whether the node is there, and what operators said of it.
pub(crate) fn state(status: &NodeStatus) -> (Style, String) {
    let mut words = Vec::new();
    let mut style = Style::Good;
    match (status.connected, status.silent_for) {
        (true, _) if status.reported => words.push("connected".to_owned()),
        (true, _) => words.extend(["connected", "has not said yet what runs on it"].map(str::to_owned)),
        (false, Some(length)) => words.push(format!("silent for {}", show::length(length.duration()))),
        (false, None) => words.push("never heard".to_owned()),
    }
    if !status.connected {
        style = Style::Bad;
    }
    if status.node.cordoned {
        words.push("cordoned".to_owned());
    }
    if status.node.draining {
        words.push("draining".to_owned());
    }
    if status.connected && words.len() > 1 {
        style = Style::Warn;
    }
    (style, words.join(", "))
}

fn labels(status: &NodeStatus) -> String {
    let all: Vec<String> = status.node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if all.is_empty() { "no labels".to_owned() } else { all.join(" ") }
}

fn show(status: &NodeStatus, global: &Global) -> Result<()> {
    let fact =
        |name: &str, value: String| Line::of(Style::Dim, format!("{name:<11}")).then(Style::Plain, value);
    let (style, word) = state(status);
    let facts = &status.facts;
    let mut lines = vec![
        Line::of(Style::Bold, status.node.name.to_string()).then(style, format!("  {word}")),
        fact("address", status.node.address.clone()),
        fact("labels", labels(status)),
        fact("joined", show::date(status.node.joined_at)),
        fact("agent", format!("{}, processes contained by {}", facts.agent_version, facts.containment)),
        fact(
            "host",
            format!(
                "{} {}, {} processors, {}",
                facts.kernel,
                facts.arch,
                facts.cpus,
                show::bytes(facts.memory_bytes)
            ),
        ),
        fact(
            "plan",
            format!("generation {}, the agent has {}", status.plan_generation, status.acked_generation),
        ),
    ];
    if let Some(ability) = &facts.ability {
        lines.push(fact("limits", ability::limits(ability)));
        lines.push(fact("sandbox", ability::sandbox(ability)));
        lines.push(fact("logs", ability::logs(ability).to_owned()));
    }
    if let Some(metrics) = &status.metrics {
        lines.push(fact(
            "load",
            format!(
                "{} of all processors, {:.2} on average over a minute",
                show::share(metrics.cpu),
                metrics.load1
            ),
        ));
        lines.push(fact("memory", show::of(metrics.memory_used_bytes, metrics.memory_total_bytes)));
        lines.push(fact(
            "disk",
            format!(
                "{} free of {}",
                show::bytes(metrics.disk_free_bytes),
                show::bytes(metrics.disk_total_bytes)
            ),
        ));
    }
    lines.push(Line::new());
    let mut table = Table::new(&["INSTANCE", "STATE", "WANTED", "PID", "RESTARTS", "NOTE"]);
    for instance in &status.instances {
        let observed = instance.observed.as_ref();
        let dash = || plain("-");
        table.row(vec![
            plain(&instance.id),
            observed.map_or_else(dash, |it| styled(live::state_style(it.state), it.state)),
            plain(&instance.wanted_version),
            observed.and_then(|it| it.pid).map_or_else(dash, plain),
            observed.map_or_else(dash, |it| plain(it.restarts)),
            styled(Style::Dim, observed.map(|it| it.reason.clone()).unwrap_or_default()),
        ]);
    }
    lines.extend(table.lines());
    table::print(&lines, global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        let node = NodeName::new("n").unwrap();
        let request = label(&node, &["zone=a".into(), "old-".into(), "empty=".into()]).unwrap();
        assert_eq!(
            request.set_labels.into_iter().collect::<Vec<_>>(),
            [("empty".into(), String::new()), ("zone".into(), "a".into())]
        );
        assert_eq!(request.remove_labels, ["old"]);
        for bad in ["zone", "=x", "-", ""] {
            assert!(label(&node, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
