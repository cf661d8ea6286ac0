//! `baton explain`: why a service waits.

use crate::exit::Exit;
use crate::global::Global;
use crate::live::{self, Line, Style};
use crate::show;
use crate::table;
use anyhow::Result;
use baton_model::id::ServiceName;
use baton_model::status::ServiceStatus;

/// Say why a service waits: what is waited for, why, and until when.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton explain web
  baton explain web --json | jq '.waiting[].reason'")]
pub(crate) struct Args {
    /// The service.
    service: ServiceName,
}

/// Prints every reason, or that there is none.
///
/// # Errors
/// When the coordinator cannot be reached or does not know the service.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let status = global.api().await?.service(&args.service).await?;
    if global.json {
        let report = &status.report;
        global.print_json(&serde_json::json!({
            "service": status.name,
            "health": report.health,
            "waiting": report.waiting,
            "rollout": report.rollout,
            "webhooks": status.webhooks,
            "now": status.now,
        }))?;
    } else {
        table::print(&lines(&status), global)?;
    }
    Ok(Exit::Done)
}

pub(super) fn lines(status: &ServiceStatus) -> Vec<Line> {
    let mut lines = vec![live::header(status, status.now)];
    if let Some(rollout) = &status.report.rollout
        && !rollout.reason.is_empty()
        && !live::waits_for(status, &rollout.reason)
    {
        lines.push(Line::of(Style::Plain, format!("  {}", rollout.reason)));
    }
    lines.extend(status.webhooks.iter().map(|webhook| live::webhook_line(webhook, status.now)));
    if status.report.waiting.is_empty() {
        lines.push(Line::of(Style::Good, "  nothing is waited for"));
        return lines;
    }
    for wait in &status.report.waiting {
        let head = Line::of(Style::Bold, format!("  {}", live::subject(&wait.subject)))
            .then(Style::Warn, format!(" waits for {}", wait.gate));
        lines.push(match wait.until {
            Some(until) => head.then(
                Style::Dim,
                format!(", until {} ({})", show::clock(until), live::left(until, status.now)),
            ),
            None => head,
        });
        lines.push(Line::of(Style::Plain, format!("    {}", wait.reason)));
    }
    lines
}
