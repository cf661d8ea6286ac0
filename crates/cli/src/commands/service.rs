//! `baton service`: list, show, reload and remove services.

use crate::confirm;
use crate::exit::Exit;
use crate::global::Global;
use crate::live::{self, Line, Style};
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::desired::Release;
use baton_model::id::ServiceName;
use baton_model::observed::{LogDrops, ReloadPhase};
use baton_model::report::Health;
use baton_model::spec::ServiceSpec;
use baton_model::status::{PlacedInstance, ServiceStatus};
use std::time::{Duration, Instant};

/// Pause between two looks whether a removed service is gone.
const GONE_POLL: Duration = Duration::from_millis(200);

/// List, show, reload and remove services.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton service ls
  baton service show web
  baton service show web --json
  baton service reload web
  baton service preview web
  baton service rm web")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the services.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  baton service ls\n  baton service ls --json"
    )]
    Ls,
    /// Show a service: its instances, its releases, what it waits for.
    #[command(after_help = "Examples:\n  baton service show web\n  baton service show web --json")]
    Show {
        /// The service.
        service: ServiceName,
    },
    /// Show how to reach a release that serves nobody yet.
    #[command(after_help = "Examples:\n  baton service preview web\n  baton service preview web --json")]
    Preview {
        /// The service.
        service: ServiceName,
    },
    /// Make every instance take in its configuration, without a restart.
    #[command(
        after_help = "Examples:\n  baton service reload web\n  baton service reload web --wait 10s --json"
    )]
    Reload {
        /// The service; its service file says how, in `[reload]`.
        service: ServiceName,
        /// Wait for the answers of its instances, at most this long.
        #[arg(long, value_name = "LENGTH", value_parser = baton_model::time::Millis::parse, default_value = "1m")]
        wait: baton_model::time::Millis,
    },
    /// Stop a service everywhere and forget it.
    #[command(
        visible_alias = "remove",
        after_help = "Examples:\n  baton service rm web\n  baton service rm web --yes --wait 1m"
    )]
    Rm {
        /// The service.
        service: ServiceName,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Wait until it is gone, at most this long.
        #[arg(long, value_name = "LENGTH", value_parser = baton_model::time::Millis::parse)]
        wait: Option<baton_model::time::Millis>,
    },
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Ls => list(global).await,
        Action::Show { service } => {
            let status = global.api().await?.service(&service).await?;
            if global.json {
                global.print_json(&status)?;
            } else {
                show(&status, global)?;
            }
            Ok(Exit::Done)
        }
        Action::Preview { service } => super::preview::run(global, &service).await,
        Action::Reload { service, wait } => super::reload::run(global, &service, wait.duration()).await,
        Action::Rm { service, yes, wait } => {
            remove(global, service, yes, wait.map(|wait| wait.duration())).await
        }
    }
}

async fn list(global: &Global) -> Result<Exit> {
    let services = global.api().await?.services().await?;
    if global.json {
        global.print_json(&services)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["SERVICE", "RELEASE", "HEALTH", "READY", "ROLLOUT", "WAITS FOR"]);
    for status in &services {
        let report = &status.report;
        let (style, health) = health(report.health);
        let (rollout_style, rollout) = match &report.rollout {
            Some(rollout) => (
                live::outcome(rollout.outcome).0,
                format!("{}: {}", live::passage(rollout), live::outcome(rollout.outcome).1),
            ),
            None => (Style::Dim, "-".to_owned()),
        };
        let first =
            report.waiting.first().map(|wait| format!("{}: {}", live::subject(&wait.subject), wait.gate));
        let waits = match (first, report.waiting.len()) {
            (Some(first), 1) => first,
            (Some(first), all) => format!("{first} and {} more", all - 1),
            (None, _) => "-".to_owned(),
        };
        table.row(vec![
            styled(Style::Bold, &status.name),
            plain(report.stable.map_or_else(|| "-".to_owned(), |stable| live::version(status, stable))),
            styled(style, if status.removed { "removing" } else { health }),
            plain(format!("{}/{}", report.ready, report.wanted)),
            styled(rollout_style, rollout),
            plain(waits),
        ]);
    }
    if services.is_empty() {
        eprintln!("there is no service yet; `baton deploy FILE --version V` makes one");
        return Ok(Exit::Done);
    }
    table.print(global)?;
    Ok(Exit::Done)
}

/// A health as people say it.
pub(crate) const fn health(health: Health) -> (Style, &'static str) {
    match health {
        Health::Unknown => (Style::Dim, "unknown"),
        Health::Healthy => (Style::Good, "healthy"),
        Health::Changing => (Style::Busy, "changing"),
        Health::Degraded => (Style::Warn, "degraded"),
        Health::Down => (Style::Bad, "down"),
    }
}

fn show(status: &ServiceStatus, global: &Global) -> Result<()> {
    let (style, word) = health(status.report.health);
    let mut lines = vec![live::header(status, status.now).then(style, format!("  {word}"))];
    if status.removed {
        lines.push(Line::of(Style::Warn, "  it is being removed"));
    }
    lines.push(Line::new());
    lines.extend(instances(status).lines());
    lines.push(Line::new());
    lines.extend(releases(status).lines());
    let runs = |release: &&Release| Some(release.number) == status.report.stable;
    if let Some(release) = status.releases.iter().find(runs).or(status.releases.last()) {
        lines.push(Line::new());
        lines.extend(spec(&release.spec));
    }
    if !status.report.waiting.is_empty() {
        lines.push(Line::new());
        lines.extend(status.report.waiting.iter().map(|wait| live::waiting_line(wait, status.now)));
    }
    lines.extend(status.webhooks.iter().map(|webhook| live::webhook_line(webhook, status.now)));
    table::print(&lines, global)
}

fn instances(status: &ServiceStatus) -> Table {
    let mut table = Table::new(&[
        "INSTANCE", "NODE", "STATE", "RELEASE", "FOR", "PID", "RESTARTS", "CPU", "MEMORY", "PORTS", "NOTE",
    ]);
    for instance in &status.instances {
        table.row(instance_row(status, instance));
    }
    table
}

fn instance_row(status: &ServiceStatus, instance: &PlacedInstance) -> Vec<Line> {
    let dash = || plain("-");
    let mut row = vec![plain(&instance.id), plain(&instance.node)];
    let Some(observed) = &instance.observed else {
        row.extend([styled(Style::Dim, "unknown"), plain(&instance.wanted_version)]);
        return row;
    };
    let ports: Vec<String> = observed.ports.iter().map(|(name, port)| format!("{name}:{port}")).collect();
    let mut notes: Vec<String> = Vec::new();
    if instance.node_silent {
        notes.push("node is silent".to_owned());
    }
    if observed.crash_loop {
        notes.push("crash loop".to_owned());
    }
    if let Some(swap) = &observed.swap {
        notes.push(format!("→ {} {} {}", live::version(status, swap.to), swap.phase, swap.reason));
    }
    if let Some(exit) = &observed.last_exit
        && !observed.reason.starts_with(&format!("ended with {exit}"))
    {
        notes.push(format!("last ended with {exit}"));
    }
    if !observed.reason.is_empty() {
        notes.push(observed.reason.clone());
    }
    if !observed.status.is_empty() {
        notes.push(format!("says: {}", observed.status));
    }
    if let Some(reload) = observed.reload.as_ref().filter(|reload| reload.phase != ReloadPhase::Done) {
        notes.push(format!("reload {}: {}", reload.phase, reload.reason).trim_end_matches(": ").to_owned());
    }
    notes.extend(dropped(&observed.log_drops));
    row.extend([
        styled(live::state_style(observed.state), observed.state),
        plain(live::version(status, observed.release)),
        observed
            .ready_since
            .map_or_else(dash, |since| plain(show::length(status.now.since(since).duration()))),
        observed.pid.map_or_else(dash, plain),
        plain(observed.restarts),
        instance.metrics.map_or_else(dash, |metrics| plain(show::share(metrics.cpu))),
        instance.metrics.map_or_else(dash, |metrics| plain(show::bytes(metrics.memory_bytes))),
        if ports.is_empty() { dash() } else { plain(ports.join(" ")) },
        styled(Style::Dim, notes.join("; ")),
    ]);
    row
}

/// What of its output is missing, for people.
fn dropped(drops: &LogDrops) -> impl Iterator<Item = String> {
    let file = (drops.bytes > 0)
        .then(|| format!("{} lines ({}) of its log were dropped", drops.lines, show::bytes(drops.bytes)));
    let journal = (drops.journal_lines > 0)
        .then(|| format!("{} lines did not reach the system's journal", drops.journal_lines));
    file.into_iter().chain(journal)
}

fn releases(status: &ServiceStatus) -> Table {
    let mut table = Table::new(&["RELEASE", "", "MADE", "BY", "ARTIFACT", "SIZE"]);
    for release in status.releases.iter().rev() {
        let stable = status.report.stable == Some(release.number);
        table.row(vec![
            plain(&release.version),
            if stable { styled(Style::Good, "stable") } else { plain("") },
            plain(show::date(release.created_at)),
            plain(&release.created_by),
            plain(release.artifact.digest.short()),
            plain(show::bytes(release.artifact.size_bytes)),
        ]);
    }
    table
}

fn spec(spec: &ServiceSpec) -> Vec<Line> {
    use baton_model::spec::{Count, PortKind};
    let count = match spec.placement.count {
        Count::Replicas(replicas) => format!("{replicas} replicas"),
        Count::PerNode => "one per node".to_owned(),
    };
    let ports = spec.ports.iter().map(|(name, port)| match &port.kind {
        PortKind::Socket { port } => format!("{name} socket {port}"),
        PortKind::Udp { port } => format!("{name} udp socket {port}"),
        PortKind::Unix { path, mode } => format!("{name} socket {path} ({mode:04o})"),
        PortKind::Dynamic => format!("{name} dynamic"),
        PortKind::Fixed { port } => format!("{name} fixed {port}"),
    });
    let rollout = &spec.rollout;
    let fact =
        |name: &str, value: String| Line::of(Style::Dim, format!("{name:<11}")).then(Style::Plain, value);
    vec![
        fact("runs", spec.exec.join(" ")),
        fact("ports", ports.collect::<Vec<_>>().join(", ")),
        fact("placed", format!("{count}, at least {} available", spec.min_available)),
        fact(
            "rolled out",
            format!(
                "in batches of {}, healthy for {} within {}",
                rollout.batch, rollout.min_healthy, rollout.healthy_deadline
            ),
        ),
    ]
}

async fn remove(global: &Global, service: ServiceName, yes: bool, wait: Option<Duration>) -> Result<Exit> {
    let mut api = global.api().await?;
    if !yes {
        let status = api.service(&service).await?;
        confirm::ask(&format!("stop {} instances of `{service}` and forget it?", status.instances.len()))?;
    }
    let status = api.remove_service(&service).await?;
    if global.json {
        global.print_json(&status)?;
    }
    let Some(wait) = wait else {
        eprintln!("`{service}` is being removed; `baton service ls` shows it until it is gone");
        return Ok(Exit::Done);
    };
    let deadline = Instant::now() + wait;
    while api.services().await?.iter().any(|status| status.name == service) {
        if Instant::now() >= deadline {
            eprintln!(
                "`{service}` is not gone yet; it goes on being removed (`baton explain {service}` says what it waits for)"
            );
            return Ok(Exit::TimedOut);
        }
        tokio::time::sleep(GONE_POLL).await;
    }
    eprintln!("`{service}` is gone");
    Ok(Exit::Done)
}
