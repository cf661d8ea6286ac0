//! `baton rollout`: look at rollouts and steer them.

use super::cost;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::{self, Follow, Style};
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::id::{RolloutId, ServiceName, Version};
use baton_model::report::RolloutReport;
use baton_model::route::Weight;
use baton_model::status::ServiceStatus;
use baton_model::time::Millis;
use baton_proto::v1;
use std::str::FromStr;

/// Look at rollouts and steer them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton rollout status web
  baton rollout watch web --timeout 10m
  baton rollout promote web
  baton rollout undo web --to 1.4 --watch")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the current or last rollout: its stages, its instances, what it waits for.
    #[command(
        after_help = "Examples:\n  baton rollout status web\n  baton rollout status web --json | jq -r .outcome"
    )]
    Status {
        /// The service.
        service: ServiceName,
    },
    /// List the rollouts that were, newest first.
    #[command(after_help = "Examples:\n  baton rollout history web\n  baton rollout history web --json")]
    History {
        /// The service.
        service: ServiceName,
    },
    /// Follow the current rollout until it ends or pauses; the exit code says how.
    #[command(
        after_help = "Examples:\n  baton rollout watch web\n  baton rollout watch web --timeout 10m --json"
    )]
    Watch(WatchArgs),
    /// Start nothing new; what is under way is finished.
    #[command(after_help = "Examples:\n  baton rollout pause web")]
    Pause(Which),
    /// Go on after a pause.
    #[command(after_help = "Examples:\n  baton rollout resume web")]
    Resume(Steered),
    /// Approve the stage that waits for an operator, go on to a later step at once, or end the last one at once.
    #[command(
        after_help = "Examples:\n  baton rollout promote web\n  baton rollout promote web --to 25%\n  baton rollout promote web --to 3"
    )]
    Promote {
        #[command(flatten)]
        steered: Steered,
        /// Go to this step without the bakes, the analysis and the approvals before it: its number, or the share of the
        /// requests that it gives to the new release. The last step, once it has begun, is ended without its own.
        #[arg(long, value_name = "STEP")]
        to: Option<StepName>,
    },
    /// Show how the requests are shared out between releases now, and what became of them lately.
    #[command(after_help = "Examples:\n  baton rollout weights web\n  baton rollout weights web --json")]
    Weights {
        /// The service.
        service: ServiceName,
    },
    /// Go back to the release before.
    #[command(after_help = "Examples:\n  baton rollout abort web\n  baton rollout abort web --watch")]
    Abort(Steered),
    /// Try failed instances again.
    #[command(after_help = "Examples:\n  baton rollout retry web")]
    Retry(Steered),
    /// Go back to an earlier release, by a rollout of its own.
    #[command(after_help = "Examples:\n  baton rollout undo web\n  baton rollout undo web --to 1.4 --watch")]
    Undo {
        /// The service.
        service: ServiceName,
        /// The version to go back to; the one before the present one where left out.
        #[arg(long, value_name = "VERSION")]
        to: Option<Version>,
        #[command(flatten)]
        following: Following,
    },
}

/// A step as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepName {
    /// By its number, counted from 1.
    Number(u32),
    /// By the share of the requests that it gives to the new release.
    Share(Weight),
}

impl FromStr for StepName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| *number > 0).map(Self::Number);
        number
            .or_else(|| text.parse().ok().map(Self::Share))
            .ok_or_else(|| "write the number of a step, counted from 1, or its share, such as 25%".to_owned())
    }
}

impl StepName {
    /// The number of the step in the rollout that is under way. Of a number the coordinator says what is wrong with it.
    fn number(self, service: &ServiceName, rollout: Option<&RolloutReport>) -> Result<u32, Fault> {
        let share = match self {
            Self::Number(number) => return Ok(number),
            Self::Share(share) => share,
        };
        let rollout = rollout.filter(|rollout| !rollout.outcome.is_final()).ok_or_else(|| {
            let advice = format!("`baton rollout history {service}` shows the last ones");
            Fault::new(format!("no rollout of `{service}` is under way"), advice)
        })?;
        let step = rollout.stages.iter().find(|stage| stage.weight == Some(share));
        step.map(|stage| if stage.step > 0 { stage.step } else { stage.number }).ok_or_else(|| {
            let advice = format!("`baton rollout status {service}` shows them");
            Fault::usage(
                format!("no step of the rollout of `{service}` gives the new release {share}"),
                advice,
            )
        })
    }
}

/// Which rollout is steered.
#[derive(Debug, clap::Args)]
struct Which {
    /// The service.
    service: ServiceName,
    /// Only if this is the current rollout; protects against steering a newer one.
    #[arg(long, value_name = "NUMBER")]
    rollout: Option<u64>,
}

/// Whether it is then followed.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
struct Following {
    /// Follow it until it ends or pauses.
    #[arg(long)]
    watch: bool,
    /// Stop watching (the rollout goes on) after this long: `30s`, `10m`.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, requires = "watch")]
    timeout: Option<Millis>,
}

/// Which rollout is steered, and what is seen of it then.
#[derive(Debug, clap::Args)]
struct Steered {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    following: Following,
}

#[derive(Debug, clap::Args)]
struct WatchArgs {
    /// The service.
    service: ServiceName,
    /// Stop watching (the rollout goes on) after this long: `30s`, `10m`.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse)]
    timeout: Option<Millis>,
}

/// Does what was asked.
///
/// # Errors
/// When the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    use v1::RolloutAction;
    match args.action {
        Action::Status { service } => status(global, &service).await,
        Action::History { service } => history(global, &service).await,
        Action::Watch(args) => {
            let follow =
                Follow { service: args.service, rollout: None, timeout: args.timeout.map(Millis::duration) };
            live::follow(global, follow).await
        }
        Action::Pause(which) => {
            let following = Following::default();
            control(global, Steered { which, following }, RolloutAction::Pause, None).await
        }
        Action::Resume(steered) => control(global, steered, RolloutAction::Resume, None).await,
        Action::Promote { steered, to } => control(global, steered, RolloutAction::Promote, to).await,
        Action::Weights { service } => weights(global, &service).await,
        Action::Abort(steered) => control(global, steered, RolloutAction::Abort, None).await,
        Action::Retry(steered) => control(global, steered, RolloutAction::Retry, None).await,
        Action::Undo { service, to, following } => undo(global, service, to, following).await,
    }
}

async fn status(global: &Global, service: &ServiceName) -> Result<Exit> {
    let mut api = global.api().await?;
    let status = api.service(service).await?;
    let all = cost::all(&mut api, service).await?;
    let rollout = status.report.rollout.as_ref();
    let costs = rollout.map(|rollout| cost::of(&all, rollout, None)).unwrap_or_default();
    if global.json {
        // The rollout itself, or null where there was none.
        let document = rollout.map(|rollout| cost::document(rollout, &costs)).transpose()?;
        global.print_json(&document)?;
    } else {
        let scene = live::Scene { status: &status, events: &[], note: None, now: status.now };
        let mut lines = live::frame(&scene, u16::MAX);
        let reason = rollout.map(|rollout| rollout.reason.as_str()).unwrap_or_default();
        let told = |line: &live::Line| line.render(usize::MAX, false).contains(reason);
        if !lines.iter().any(told) {
            lines.insert(1, styled(Style::Plain, format!("  {reason}")));
        }
        lines.extend(costs.iter().map(|cost| styled(Style::Warn, cost.text())));
        table::print(&lines, global)?;
    }
    Ok(Exit::Done)
}

async fn weights(global: &Global, service: &ServiceName) -> Result<Exit> {
    let status = global.api().await?.service(service).await?;
    if global.json {
        global.print_json(&status.traffic)?;
    } else if status.traffic.is_empty() {
        eprintln!("{}", why_no_traffic(&status));
    } else {
        table::print(&live::traffic::lines(&status.traffic), global)?;
    }
    Ok(Exit::Done)
}

/// Why no gateway shares out requests of the service: its release has no route, or a route that leads nowhere yet.
fn why_no_traffic(status: &ServiceStatus) -> String {
    let (service, report) = (&status.name, &status.report);
    let asked = report.rollout.as_ref().filter(|rollout| !rollout.outcome.is_final());
    let number = asked.map(|rollout| rollout.to).or(report.stable);
    // Of one that came to nothing, the last release tells what its file says.
    let release = status.releases.iter().find(|release| Some(release.number) == number);
    if release.or(status.releases.last()).is_some_and(|release| release.spec.route.is_some()) {
        return format!(
            "`{service}` has a route and no instance that a gateway could send a request to; `baton service show {service}` shows them"
        );
    }
    format!("`{service}` has no route, so no gateway shares its requests out; give its file a `[route]`")
}

async fn history(global: &Global, service: &ServiceName) -> Result<Exit> {
    let mut api = global.api().await?;
    // Newest first: the one after a rollout stands before it.
    let rollouts = api.history(service).await?;
    let all = cost::all(&mut api, service).await?;
    let mut next = None;
    let mut costs = Vec::new();
    for rollout in &rollouts {
        costs.push(cost::of(&all, rollout, next));
        next = Some(rollout.started_at);
    }
    if global.json {
        let documents = rollouts.iter().zip(&costs).map(|(rollout, costs)| cost::document(rollout, costs));
        global.print_json(&documents.collect::<Result<Vec<_>>>()?)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ROLLOUT", "BEGAN", "FROM → TO", "OUTCOME", "TOOK", "REASON"]);
    for (rollout, costs) in rollouts.iter().zip(&costs) {
        let (style, word) = live::outcome(rollout.outcome);
        let took = rollout.ended_at.map(|end| show::length(end.since(rollout.started_at).duration()));
        table.row(vec![
            plain(rollout.id),
            plain(show::date(rollout.started_at)),
            plain(live::passage(rollout)),
            styled(style, word),
            plain(took.unwrap_or_else(|| "-".to_owned())),
            styled(Style::Dim, &rollout.reason),
        ]);
        for cost in costs {
            let mut row = vec![plain(""); 5];
            row.push(styled(Style::Warn, cost.text()));
            table.row(row);
        }
    }
    table.print(global)?;
    Ok(Exit::Done)
}

/// Steers the rollout, says how it stands then, and follows it where that is wanted.
async fn control(
    global: &Global,
    Steered { which, following }: Steered,
    action: v1::RolloutAction,
    to: Option<StepName>,
) -> Result<Exit> {
    let mut api = global.api().await?;
    let step = match to {
        None => None,
        Some(name) => {
            let status = api.service(&which.service).await?;
            Some(name.number(&which.service, status.report.rollout.as_ref())?)
        }
    };
    let request = v1::ControlRolloutRequest {
        service: which.service.to_string(),
        rollout: which.rollout,
        action: action.into(),
        step,
    };
    let status = api.control(request).await?;
    if following.watch {
        let rollout = status.report.rollout.as_ref().map(|rollout| rollout.id);
        let exit = follow(global, which.service, rollout, following).await?;
        let as_asked = action == v1::RolloutAction::Abort && exit == Exit::RolledBack;
        return Ok(if as_asked { Exit::Done } else { exit });
    }
    if global.json {
        global.print_json(&status)?;
        return Ok(Exit::Done);
    }
    let done = match action {
        v1::RolloutAction::Pause => "starts nothing new",
        v1::RolloutAction::Resume => "goes on",
        v1::RolloutAction::Promote if step.is_some() => "goes on to that step without bakes and analysis",
        v1::RolloutAction::Promote => "has its approval",
        v1::RolloutAction::Abort => "goes back to the release before",
        v1::RolloutAction::Retry => "tries failed instances again",
        v1::RolloutAction::Unspecified => "is as it was",
    };
    let service = &which.service;
    let is_paused = status.report.waiting.iter().any(|wait| wait.gate == "paused");
    if action == v1::RolloutAction::Promote && is_paused {
        eprintln!(
            "the rollout of {service} {done} once it is no longer paused: `baton rollout resume {service}`"
        );
    } else {
        eprintln!("the rollout of {service} {done}; `baton rollout watch {service}` follows it");
    }
    Ok(Exit::Done)
}

async fn follow(
    global: &Global,
    service: ServiceName,
    rollout: Option<RolloutId>,
    following: Following,
) -> Result<Exit> {
    let timeout = following.timeout.map(Millis::duration);
    live::follow(global, Follow { service, rollout, timeout }).await
}

/// Goes back, and follows that where it is wanted.
async fn undo(
    global: &Global,
    service: ServiceName,
    to: Option<Version>,
    following: Following,
) -> Result<Exit> {
    let request = v1::UndoRequest { service: service.to_string(), version: to.map(String::from) };
    let rollout = global.api().await?.undo(request).await?;
    if global.json {
        global.print_json_line(&serde_json::json!({
            "service": rollout.service,
            "rollout": rollout.rollout,
            "unchanged": rollout.unchanged,
        }))?;
    }
    if rollout.unchanged {
        eprintln!("{service} is at that release already");
        return Ok(Exit::Done);
    }
    if !following.watch {
        eprintln!(
            "rollout {} of {service} is under way; `baton rollout watch {service}` follows it",
            rollout.rollout
        );
        return Ok(Exit::Done);
    }
    follow(global, service, Some(RolloutId(rollout.rollout)), following).await
}

#[cfg(test)]
mod tests;
