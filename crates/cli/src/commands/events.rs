//! `baton events`: what happened in the cluster, in order.

use crate::api::{self, Api, EventQuery};
use crate::exit::Exit;
use crate::global::Global;
use crate::live::{Line, Style};
use crate::reconnect::{self, Lifeline};
use crate::show;
use crate::table;
use anyhow::Result;
use baton_model::event::{Event, Severity};
use baton_model::id::{NodeName, ServiceName};
use tokio_stream::StreamExt as _;

/// Events of the past that are printed unless told otherwise.
const LAST_DEFAULT: u32 = 100;

/// Print what happened in the cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton events
  baton events -f --service web
  baton events --after 4711 --json
  baton events --last 1000 --json | jq -r 'select(.severity == \"error\") | .message'")]
pub(crate) struct Args {
    /// Go on with what happens from now on.
    #[arg(long, short)]
    follow: bool,
    /// At most so many of the past; 0 for all that are kept. 100 where neither this nor --after is given.
    #[arg(long, value_name = "N")]
    last: Option<u32>,
    /// Only after the event with this number, as `#N` shows it.
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only about this service.
    #[arg(long)]
    service: Option<ServiceName>,
    /// Only about this node.
    #[arg(long)]
    node: Option<NodeName>,
}

/// Prints events as they come. Following outlives restarts of the coordinator: it goes on after the last event seen.
///
/// # Errors
/// When the coordinator cannot be reached at first, or does not take the question.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let last = args.last.unwrap_or(if args.after.is_some() { 0 } else { LAST_DEFAULT });
    let mut query =
        EventQuery { after: args.after, last, follow: args.follow, service: args.service, node: args.node };
    let mut api = global.api().await?;
    let mut lifeline = Lifeline::new(global);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let error = tokio::select! {
            ended = print_all(&mut api, &mut query, &mut lifeline, global) => match ended {
                Ok(()) => return Ok(Exit::Done),
                Err(error) if !args.follow => return Err(error),
                Err(error) => error,
            },
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        };
        api = tokio::select! {
            again = lifeline.again(error) => again?,
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        };
    }
}

/// Prints what comes over one connection; `query` learns how far that was.
async fn print_all(
    api: &mut Api,
    query: &mut EventQuery,
    lifeline: &mut Lifeline<'_>,
    global: &Global,
) -> Result<()> {
    let mut events = api.events(query).await?;
    lifeline.well();
    while let Some(event) = events.next().await {
        let event = api::event(event?)?;
        if global.json {
            global.print_json_line(&event)?;
        } else {
            table::print(&[line(&event)], global)?;
        }
        // Numbers only grow: what is asked for after this one is neither lost nor told twice.
        (query.after, query.last) = (Some(event.seq.0), 0);
    }
    if query.follow { Err(reconnect::ended().into()) } else { Ok(()) }
}

fn line(event: &Event) -> Line {
    let (style, mark) = match event.severity {
        Severity::Info => (Style::Plain, ' '),
        Severity::Warning => (Style::Warn, '!'),
        Severity::Error => (Style::Bad, '✗'),
    };
    let subject = match (&event.instance, &event.service, &event.node) {
        (Some(instance), _, Some(node)) => format!("{instance} on {node}"),
        (Some(instance), _, None) => instance.to_string(),
        (None, Some(service), _) => service.to_string(),
        (None, None, Some(node)) => node.to_string(),
        (None, None, None) => "cluster".to_owned(),
    };
    let fields: Vec<String> = event.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Line::of(Style::Dim, format!("{} ", show::date(event.at)))
        .then(style, format!("{mark} "))
        .then(Style::Bold, format!("{subject}: "))
        .then(style, event.message.clone())
        .then(Style::Dim, format!("  #{} {} {}", event.seq.0, event.kind, fields.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::id::EventSeq;
    use baton_model::time::UnixMs;

    #[test]
    fn an_event_is_one_line_with_its_facts() {
        let event = Event {
            seq: EventSeq(7),
            at: UnixMs(1_700_000_000_000),
            severity: Severity::Warning,
            kind: "instance-exited".into(),
            message: "ended by signal 9".into(),
            service: Some("web".parse().unwrap()),
            node: Some("node-1".parse().unwrap()),
            instance: Some("web.2".parse().unwrap()),
            fields: [("pid".to_owned(), "42".to_owned())].into(),
        };
        let text = line(&event).render(usize::MAX, false);
        assert_eq!(
            text,
            "2023-11-14 22:13:20 ! web.2 on node-1: ended by signal 9  #7 instance-exited pid=42"
        );
    }
}
