//! `baton node upgrade`: another program for the agents, batch by batch.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::Style;
use crate::pack::{self, ProgressLine};
use crate::show;
use crate::table::{Table, plain, styled};
use anyhow::Result;
use baton_model::id::{NodeName, Version};
use baton_model::spec::Amount;
use baton_model::time::Millis;
use baton_model::upgrade::{AgentUpgrade, NodeUpgrade};
use baton_proto::v1;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Pause between two looks at a watched upgrade.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A coordinator that is away for this long while it is watched is not waited for.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// Roll a program of the agents over the nodes; no workload is restarted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton node upgrade --version 1.5.0 --program ./baton --watch
  baton node upgrade --version 1.5.0 --program ./baton --batch 25%
  baton node upgrade --version 1.5.0 --program ./baton-arm --node node-7 --node node-8
  baton node upgrade --status
  baton node upgrade --cancel

The next batch begins when every agent of the one before runs the program, has reached the coordinator, and reports
ready what was ready before. An agent whose new program does not come back returns to the old one by itself, and nobody
else is asked; run the command again to go on.")]
pub(super) struct Args {
    /// What to call the program: shown by `baton node show`.
    #[arg(long, required_unless_present_any = ["status", "cancel"], requires = "program")]
    version: Option<Version>,
    /// The `baton` program to run, a file on this machine.
    #[arg(long, value_name = "FILE", requires = "version")]
    program: Option<PathBuf>,
    /// Nodes at a time: a number, or a share such as `25%`.
    #[arg(long, value_name = "N|%", value_parser = amount, default_value = "1")]
    batch: Amount,
    /// Only this node; more than once for several.
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<NodeName>,
    /// Follow it until every node is done, or it stops.
    #[arg(long)]
    watch: bool,
    /// Stop watching (the upgrade goes on) after this long: `30s`, `10m`.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, requires = "watch")]
    timeout: Option<Millis>,
    /// Show how the latest upgrade stands.
    #[arg(long, conflicts_with_all = ["version", "program", "nodes", "cancel"])]
    status: bool,
    /// Ask no further node.
    #[arg(long, conflicts_with_all = ["version", "program", "nodes", "status", "watch"])]
    cancel: bool,
}

/// Does what was asked.
///
/// # Errors
/// When the program cannot be sent, or the coordinator cannot be reached or refuses.
pub(super) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let upgrade = match (args.version, args.program) {
        (Some(version), Some(program)) => request(global, version, program, args.batch, args.nodes).await?,
        (None, _) | (_, None) if args.cancel => {
            let upgrade = global.api().await?.cancel_agent_upgrade().await?;
            eprintln!("no further node is asked for {}", upgrade.version);
            upgrade
        }
        (None, _) | (_, None) => global.api().await?.agent_upgrade().await?,
    };
    if args.watch {
        return watch(global, upgrade, args.timeout.map(Millis::duration)).await;
    }
    print(global, &upgrade)?;
    // Asked for, it goes on by itself; asked about, it is told how it stands.
    Ok(if args.status { outcome(&upgrade).unwrap_or(Exit::Done) } else { Exit::Done })
}

async fn request(
    global: &Global,
    version: Version,
    program: PathBuf,
    batch: Amount,
    nodes: Vec<NodeName>,
) -> Result<AgentUpgrade> {
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let packed = pack::pack(&program, &name, &[]).map_err(|error| Fault::usage(error.what, error.help))?;
    let mut client = global.client().await?;
    let progress = if std::io::stderr().is_terminal() { ProgressLine::Drawn } else { ProgressLine::Silent };
    let sent = pack::upload(&mut client, &packed, progress).await?;
    eprintln!("program {} ({} sent)", packed.artifact.digest.short(), show::bytes(sent));
    let request = v1::UpgradeAgentsRequest {
        version: version.to_string(),
        artifact: Some(packed.artifact.clone().into()),
        batch: Some(batch.into()),
        nodes: nodes.iter().map(ToString::to_string).collect(),
    };
    let upgrade = global.api().await?.upgrade_agents(request).await?;
    eprintln!(
        "agents of {version} are asked for on {} nodes, {batch} at a time; `baton node upgrade --status` shows how far it is",
        upgrade.nodes.len()
    );
    Ok(upgrade)
}

/// Tells each change until it ends.
async fn watch(global: &Global, asked: AgentUpgrade, timeout: Option<Duration>) -> Result<Exit> {
    let began = Instant::now();
    let mut api = global.api().await?;
    let mut told = BTreeMap::new();
    let mut heard = Instant::now();
    let mut upgrade = asked.clone();
    loop {
        for (node, state) in &upgrade.nodes {
            let (_, word, note) = told_as(state);
            let text = if note.is_empty() { word.to_owned() } else { format!("{word}: {note}") };
            if told.get(node) != Some(&text) {
                eprintln!("[{:>6.1}s] {node} {text}", began.elapsed().as_secs_f64());
                told.insert(node.clone(), text);
            }
        }
        let ended = if upgrade.request == asked.request { outcome(&upgrade) } else { Some(Exit::Failed) };
        let late = timeout.is_some_and(|timeout| began.elapsed() >= timeout).then_some(Exit::TimedOut);
        if let Some(exit) = ended.or(late) {
            print(global, &upgrade)?;
            return Ok(exit);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        match api.agent_upgrade().await {
            Ok(now) => {
                upgrade = now;
                heard = Instant::now();
            }
            Err(error) if heard.elapsed() >= AWAY_MAX => return Err(error),
            // The coordinator is being restarted; the upgrade goes on with it.
            Err(_) => {}
        }
    }
}

/// How an upgrade ends the command; `None` while it goes on by itself.
fn outcome(upgrade: &AgentUpgrade) -> Option<Exit> {
    let asked = upgrade.nodes.values().any(|node| matches!(node, NodeUpgrade::Asked(_)));
    match (upgrade.is_done(), &upgrade.paused, upgrade.cancelled) {
        (true, _, _) => Some(Exit::Done),
        // What was asked still comes to an end.
        (false, Some(_), _) | (false, None, true) if asked => None,
        (false, Some(_), _) => Some(Exit::Paused),
        (false, None, true) => Some(Exit::Failed),
        (false, None, false) => None,
    }
}

fn print(global: &Global, upgrade: &AgentUpgrade) -> Result<()> {
    if global.json {
        return global.print_json(upgrade);
    }
    let mut table = Table::new(&["NODE", "AGENT", "NOTE"]);
    for (node, state) in &upgrade.nodes {
        let (style, word, note) = told_as(state);
        table.row(vec![plain(node), styled(style, word), styled(Style::Dim, note)]);
    }
    table.print(global)?;
    let done = upgrade.nodes.values().filter(|node| matches!(node, NodeUpgrade::Done { .. })).count();
    eprintln!(
        "{}: {done} of {} nodes, asked for by {}",
        upgrade.version,
        upgrade.nodes.len(),
        upgrade.requested_by
    );
    if let Some(reason) = &upgrade.paused {
        eprintln!(
            "no further node is asked: {reason}\nrun the same command again to go on, or --cancel to end it"
        );
    }
    Ok(())
}

fn told_as(state: &NodeUpgrade) -> (Style, &'static str, String) {
    match state {
        NodeUpgrade::Waiting => (Style::Dim, "waiting", String::new()),
        NodeUpgrade::Asked(asked) => match (asked.back_at, asked.well_since) {
            (None, _) => (Style::Busy, "asked", String::new()),
            (Some(_), None) => (Style::Busy, "back", "its instances are not all ready yet".to_owned()),
            (Some(_), Some(_)) => (Style::Busy, "back", String::new()),
        },
        NodeUpgrade::Done { .. } => (Style::Good, "done", String::new()),
        NodeUpgrade::Failed { reason } => (Style::Bad, "failed", reason.clone()),
    }
}

/// `3`, or `25%`; at least one, and at most all.
fn amount(text: &str) -> Result<Amount, String> {
    let wrong = || format!("`{text}` is not an amount: write a number from 1, or a share such as 25%");
    let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
    match (digits.parse::<u32>().map_err(|_| wrong())?, percent) {
        (number @ 1.., false) => Ok(Amount::Number(number)),
        (share @ 1..=100, true) => Ok(Amount::Percent(share)),
        (_, _) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_number_or_a_share() {
        assert_eq!(amount("3"), Ok(Amount::Number(3)));
        assert_eq!(amount("25%"), Ok(Amount::Percent(25)));
        for bad in ["0", "0%", "101%", "", "%", "-1", "x"] {
            assert!(amount(bad).is_err(), "{bad}");
        }
    }
}
