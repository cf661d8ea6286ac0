//! `baton logs`: what a service writes to stdout and stderr, on whatever node it runs.

use crate::api::Api;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::{Line, Style};
use crate::reconnect::{self, Lifeline};
use crate::show;
use anyhow::Result;
use baton_model::id::{InstanceId, NodeName, ServiceName};
use baton_model::time::{Millis, UnixMs};
use baton_proto::v1;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_stream::StreamExt as _;

/// Lines of the past of each instance that are printed unless told otherwise.
const TAIL_DEFAULT: u32 = 100;
/// Runs of one instance whose place is kept: of older ones nothing comes any more.
const RUNS_MARKED_MAX: usize = 8;

/// Print what a service writes to stdout and stderr.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton logs web
  baton logs web -f --tail 20
  baton logs web.2 --since 10m
  baton logs web -f --grep ' 5[0-9][0-9]$' --node node-1
  baton logs web --stream stderr --since 1h
  baton logs web --json | jq -r .text")]
pub(crate) struct Args {
    /// The service, or one instance of it (`web.2`).
    #[arg(value_name = "SERVICE")]
    subject: String,
    /// Go on with what is written from now on.
    #[arg(long, short)]
    follow: bool,
    /// At most so many past lines of each instance; 100 where neither this nor --since is given.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only lines of this last length of time (`10m`), or since this moment (`2026-11-21T15:00:00Z`, or
    /// "2026-11-21 15:00:00" in this host's zone).
    #[arg(long, value_name = "LENGTH|TIME", value_parser = since)]
    since: Option<Since>,
    /// Only lines in which this regular expression matches; `(?i)` at its start ignores case.
    #[arg(long, value_name = "REGEX", value_parser = expression)]
    grep: Option<String>,
    /// Only lines of this stream.
    #[arg(long, value_enum, value_name = "STREAM")]
    stream: Option<Stream>,
    /// Only instances on this node.
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Only this instance.
    #[arg(long, value_name = "INSTANCE")]
    instance: Option<InstanceId>,
    /// Print the time before each line.
    #[arg(long, short)]
    timestamps: bool,
}

/// Where a workload wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

/// From when on lines are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// This long before now.
    Length(Millis),
    /// This moment.
    Time(UnixMs),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(length) = Millis::parse(text) {
        return Ok(Since::Length(length));
    }
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
    });
    let since_ms = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
    since_ms.map(|ms| Since::Time(UnixMs(ms))).ok_or_else(|| {
        "it is neither a length of time, such as \"10m\", nor a moment, such as \"2026-11-21T15:00:00Z\" or \
         \"2026-11-21 15:00:00\""
            .to_owned()
    })
}

/// Checks a regular expression where a mistake in it is told best; nodes match with the same engine.
fn expression(text: &str) -> Result<String, String> {
    let checked = regex::bytes::Regex::new(text).map_err(|error| error.to_string())?;
    Ok(checked.as_str().to_owned())
}

/// Prints lines as they come. Following outlives restarts of the coordinator and of agents: it goes on after the
/// last line of each instance.
///
/// # Errors
/// When the coordinator cannot be reached at first, or does not know the service.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let mut request = request(&args)?;
    let mut api = global.api().await?;
    let mut lifeline = Lifeline::new(global);
    let mut marks = Marks::default();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        request.after = marks.all();
        let error = tokio::select! {
            ended = print_all(&mut api, &request, &mut marks, &mut lifeline, &args, global) => match ended {
                Ok(exit) => return Ok(exit),
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

/// Prints what comes over one connection; `marks` learns how far that was.
async fn print_all(
    api: &mut Api,
    request: &v1::LogRequest,
    marks: &mut Marks,
    lifeline: &mut Lifeline<'_>,
    args: &Args,
    global: &Global,
) -> Result<Exit> {
    let mut batches = api.logs(request.clone()).await?;
    lifeline.well();
    let mut exit = Exit::Done;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for line in &batch.lines {
            print(line, args, global)?;
        }
        marks.note(batch.marks);
        if !batch.error.is_empty() && request.follow {
            // What it tells of is gone on with.
            eprintln!("{}", batch.error);
        } else if !batch.error.is_empty() {
            // The lines of other nodes still come.
            eprintln!("some lines are missing: {}", batch.error);
            exit = Exit::Error;
        }
    }
    if request.follow { Err(reconnect::ended().into()) } else { Ok(exit) }
}

/// How far the log of each run was printed.
#[derive(Debug, Default)]
struct Marks {
    by_instance: BTreeMap<String, BTreeMap<u64, v1::LogMark>>,
}

impl Marks {
    fn note(&mut self, marks: Vec<v1::LogMark>) {
        for mark in marks {
            let runs = self.by_instance.entry(mark.instance.clone()).or_default();
            runs.insert(mark.run, mark);
            while runs.len() > RUNS_MARKED_MAX {
                runs.pop_first();
            }
        }
    }

    fn all(&self) -> Vec<v1::LogMark> {
        self.by_instance.values().flat_map(BTreeMap::values).cloned().collect()
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
    if let (Some(one), Some(other)) = (&named, &args.instance)
        && one != other
    {
        return Err(Fault::usage(
            format!("`{one}` and `--instance {other}` are two instances"),
            format!("name one, or leave both out for all of `{service}`"),
        )
        .into());
    }
    let since_ms = args.since.map(|since| match since {
        Since::Time(at) => at.0,
        Since::Length(length) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(now.saturating_sub(length.duration()).as_millis()).unwrap_or(0)
        }
    });
    Ok(v1::LogRequest {
        // Numbered by the coordinator on its way to the agents.
        request: 0,
        service: service.to_string(),
        instance: args.instance.as_ref().or(named.as_ref()).map(ToString::to_string),
        tail_lines: args.tail.unwrap_or(if since_ms.is_some() { 0 } else { TAIL_DEFAULT }),
        since_ms,
        follow: args.follow,
        after: Vec::new(),
        grep: args.grep.clone(),
        stream: match args.stream {
            None => v1::LogStream::Unspecified,
            Some(Stream::Stdout) => v1::LogStream::Stdout,
            Some(Stream::Stderr) => v1::LogStream::Stderr,
        }
        .into(),
        node: args.node.as_ref().map(ToString::to_string),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_length_or_a_moment() {
        assert_eq!(since("10m"), Ok(Since::Length(Millis(600_000))));
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(Since::Time(UnixMs(60_000))));
        assert_eq!(since("1970-01-02T02:00:00.5+02:00"), Ok(Since::Time(UnixMs(86_400_500))));
        assert!(matches!(since("2026-11-21 15:00:00"), Ok(Since::Time(_))));
        for wrong in ["yesterday", "", "10", "15:00"] {
            assert!(since(wrong).is_err_and(|told| told.contains("10m")), "{wrong}");
        }
    }
}
