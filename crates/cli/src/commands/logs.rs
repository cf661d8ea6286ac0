//! `baton logs`: what a service writes to stdout and stderr, on whatever node it runs.

use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::{Line, Style};
use crate::show;
use anyhow::Result;
use baton_model::id::{InstanceId, ServiceName};
use baton_model::time::{Millis, UnixMs};
use baton_proto::v1;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_stream::StreamExt as _;

/// Print what a service writes to stdout and stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton logs web
  baton logs web -f --tail 20
  baton logs web.2 --since 10m
  baton logs web --json | jq -r .text")]
pub(crate) struct Args {
    /// The service, or one instance of it (`web.2`).
    #[arg(value_name = "SERVICE")]
    subject: String,
    /// Go on with what is written from now on.
    #[arg(long, short)]
    follow: bool,
    /// At most so many past lines of each instance.
    #[arg(long, value_name = "LINES", default_value_t = 100)]
    tail: u32,
    /// Only lines of this last length of time.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse)]
    since: Option<Millis>,
    /// Only this instance.
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<InstanceId>,
    /// Print the time before each line.
    #[arg(long, short)]
    timestamps: bool,
}

/// Prints lines as they come.
///
/// # Errors
/// When the coordinator cannot be reached, or a node cannot give its lines.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let request = request(&args)?;
    let mut batches = global.api().await?.logs(request).await?;
    let mut exit = Exit::Done;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let batch = tokio::select! {
            batch = batches.next() => batch,
            _ = &mut interrupted => return Ok(Exit::Interrupted),
        };
        let Some(batch) = batch else { return Ok(exit) };
        let batch = batch?;
        for line in &batch.lines {
            print(line, &args, global)?;
        }
        if !batch.error.is_empty() {
            // The lines of other nodes still come.
            eprintln!("some lines are missing: {}", batch.error);
            exit = Exit::Error;
        }
    }
}

fn request(args: &Args) -> Result<v1::LogRequest> {
    let wrong = || {
        Fault::usage(
            format!("`{}` is neither a service nor an instance", args.subject),
            "write SERVICE, as `web`, or SERVICE.SLOT, as `web.2`",
        )
    };
    let (service, named) = match args.subject.parse::<InstanceId>() {
        Ok(instance) => (instance.service.clone(), Some(instance)),
        Err(_) => (args.subject.parse::<ServiceName>().map_err(|_| wrong())?, None),
    };
    let since_ms = args.since.map(|since| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(since.duration()).as_millis()).unwrap_or(0)
    });
    Ok(v1::LogRequest {
        // Numbered by the coordinator on its way to the agents.
        request: 0,
        service: service.to_string(),
        instance: args.instance.as_ref().or(named.as_ref()).map(ToString::to_string),
        tail_lines: args.tail,
        since_ms,
        follow: args.follow,
    })
}

/// One line of a log, for programs.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    instance: &'a str,
    at: u64,
    stream: &'static str,
    text: std::borrow::Cow<'a, str>,
}

fn print(line: &v1::LogLine, args: &Args, global: &Global) -> Result<()> {
    let text = String::from_utf8_lossy(&line.text);
    if global.json {
        let stream = if line.stderr { "stderr" } else { "stdout" };
        return global.print_json_line(&JsonLine { instance: &line.instance, at: line.at_ms, stream, text });
    }
    let mut head = Line::of(Style::Busy, format!("{} ", line.instance));
    if args.timestamps {
        head = head.then(Style::Dim, format!("{} ", show::date(UnixMs(line.at_ms))));
    }
    if line.stderr {
        head = head.then(Style::Warn, "! ");
    }
    let mut out = std::io::stdout().lock();
    // On a terminal a workload's control characters must not steer it; a pipe gets the bytes as they are.
    if global.terminal {
        writeln!(out, "{}", head.then(Style::Plain, text.trim_end()).render(usize::MAX, global.color))?;
    } else {
        out.write_all(head.render(usize::MAX, false).as_bytes())?;
        out.write_all(b" ")?;
        out.write_all(line.text.strip_suffix(b"\n").unwrap_or(&line.text))?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
