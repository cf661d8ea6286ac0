//! `baton route`: what gateways do with the requests for a service.

use crate::exit::Exit;
use crate::global::Global;
use crate::live::{Line, Style};
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::id::{GatewayName, ReleaseNumber, RouteRevision, ServiceName};
use baton_model::route::{Condition, Entry, Rule};
use baton_model::status::RouteStatus;

/// Show what gateways do with the requests for a service.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton route ls
  baton route show web
  baton route show web --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the routes: which requests, to which releases, and how many gateways serve by the newest of it.
    #[command(visible_alias = "list", after_help = "Examples:\n  baton route ls\n  baton route ls --json")]
    Ls,
    /// Show the route of a service: weights, rules, mirror, instances, and what each gateway serves by.
    #[command(after_help = "Examples:\n  baton route show web")]
    Show {
        /// The service.
        service: ServiceName,
    },
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator cannot be reached, or the service has no route.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let mut api = global.api().await?;
    match args.action {
        Action::Ls => list(&api.routes(None).await?, global)?,
        Action::Show { service } => {
            for status in api.routes(Some(&service)).await? {
                if global.json {
                    global.print_json(&status)?;
                } else {
                    table::print(&lines(&status), global)?;
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn list(routes: &[RouteStatus], global: &Global) -> Result<()> {
    if global.json {
        return global.print_json(&routes);
    }
    if routes.is_empty() {
        eprintln!("no service has a route yet; give its file a `[route]` and deploy it");
        return Ok(());
    }
    let mut table = Table::new(&["SERVICE", "REQUESTS", "SPLIT", "RULES", "MIRROR", "INSTANCES", "GATEWAYS"]);
    for status in routes {
        let route = &status.route;
        table.row(vec![
            styled(Style::Bold, &status.service),
            plain(entry(&route.spec.entry)),
            plain(split(status)),
            plain(route.rules.len()),
            plain(mirror(status).unwrap_or_else(|| "-".to_owned())),
            plain(route.upstreams.len()),
            gateways(status),
        ]);
    }
    table.print(global)?;
    for status in routes {
        for (gateway, why) in &status.unserved {
            eprintln!("{gateway} does not serve {}: it {why}", status.service);
        }
    }
    Ok(())
}

fn lines(status: &RouteStatus) -> Vec<Line> {
    let fact =
        |name: &str, value: String| Line::of(Style::Dim, format!("{name:<11}")).then(Style::Plain, value);
    let route = &status.route;
    let mut lines = vec![
        Line::of(Style::Bold, status.service.to_string())
            .then(Style::Plain, format!("  route {}", route.revision)),
        fact("requests", entry(&route.spec.entry)),
        fact("port", route.spec.port.to_string()),
        fact("split", format!("{}, by {}", split(status), route.spec.split_by)),
    ];
    for rule in &route.rules {
        lines.push(fact("rule", described(rule, status)));
    }
    if let Some(mirror) = mirror(status) {
        lines.push(fact("mirror", mirror));
    }
    if route.held {
        lines.push(Line::of(Style::Warn, "new requests wait: a switch is under way"));
    }
    lines.push(Line::new());
    let mut instances = Table::new(&["INSTANCE", "RUN", "RELEASE", "ADDRESS", "ZONE"]);
    for (id, upstream) in &route.upstreams {
        instances.row(vec![
            plain(&id.instance),
            plain(id.run),
            plain(version(status, upstream.release)),
            plain(upstream.address),
            plain(upstream.zone.as_deref().unwrap_or("-")),
        ]);
    }
    lines.extend(instances.lines());
    lines.push(Line::new());
    let mut gateways = Table::new(&["GATEWAY", "SERVES BY"]);
    for (name, revision) in &status.gateways {
        let served = match revision {
            _ if status.unserved.contains_key(name) => {
                styled(Style::Warn, format!("not served: it {}", status.unserved[name]))
            }
            Some(revision) if *revision == route.revision => styled(Style::Good, format!("route {revision}")),
            Some(revision) => styled(Style::Busy, format!("route {revision}")),
            None => styled(Style::Busy, "no such route yet"),
        };
        gateways.row(vec![plain(name), served]);
    }
    lines.extend(gateways.lines());
    lines
}

/// Which requests are the service's.
fn entry(entry: &Entry) -> String {
    match entry {
        Entry::Http { hosts, path, .. } if hosts.is_empty() => format!("any host{}", suffix(path)),
        Entry::Http { hosts, path, .. } => format!("{}{}", hosts.join(" "), suffix(path)),
        Entry::Tcp { listen } => format!("tcp port {listen}"),
    }
}

fn suffix(path: &str) -> String {
    if path == "/" { String::new() } else { format!(" below {path}") }
}

/// The shares: `1.0 95%, 1.1 5%`.
fn split(status: &RouteStatus) -> String {
    let weights = status.route.split.weights.iter();
    let shares: Vec<String> =
        weights.map(|(release, weight)| format!("{} {weight}", version(status, *release))).collect();
    if shares.is_empty() { "nobody".to_owned() } else { shares.join(", ") }
}

fn mirror(status: &RouteStatus) -> Option<String> {
    let mirror = status.route.mirror.as_ref()?;
    Some(format!("{} of it to {}", mirror.share, version(status, mirror.to)))
}

fn version(status: &RouteStatus, release: ReleaseNumber) -> String {
    status.versions.get(&release).map_or_else(|| format!("release {release}"), ToString::to_string)
}

/// How many gateways serve by the newest of it.
fn gateways(status: &RouteStatus) -> Line {
    let newest = |(name, revision): &(&GatewayName, &Option<RouteRevision>)| {
        **revision == Some(status.route.revision) && !status.unserved.contains_key(*name)
    };
    let newest = status.gateways.iter().filter(newest).count();
    let all = status.gateways.len();
    match all {
        _ if !status.unserved.is_empty() => styled(Style::Warn, format!("{newest} of {all}")),
        0 => styled(Style::Warn, "none"),
        _ if newest == all => styled(Style::Good, format!("{newest} of {all}")),
        _ => styled(Style::Busy, format!("{newest} of {all}")),
    }
}

fn described(rule: &Rule, status: &RouteStatus) -> String {
    let conditions: Vec<String> = rule.conditions.iter().map(condition).collect();
    let when = if conditions.is_empty() { "always".to_owned() } else { conditions.join(" and ") };
    format!("{when}: {}", version(status, rule.to))
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Is { key, value: Some(value) } => format!("{key} is {value:?}"),
        Condition::Is { key, value: None } => format!("{key} is there"),
        Condition::Path { prefix } => format!("the path is below {prefix}"),
        Condition::Host { name } => format!("the host is {name}"),
        Condition::Share { key, share, .. } => format!("{share} of all by {key}"),
    }
}
