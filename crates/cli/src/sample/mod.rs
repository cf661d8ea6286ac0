//! A small web service to deploy: the workload of `baton demo` and of the end-to-end tests.
//!
//! It behaves as a good server does: it takes its listening socket from its supervisor (`LISTEN_FDS`), and on
//! SIGTERM it accepts no more, finishes what it has, and answers what still comes over connections that are
//! open with `Connection: close`, so that no client is cut off. Options make it behave badly on purpose.

mod answer;
mod serve;

pub(crate) use answer::{INSTANCE_HEADER, PID_HEADER, RELEASE_HEADER};

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use baton_model::time::Millis;
use std::net::SocketAddr;
use std::time::Duration;

/// Serve HTTP as a sample workload.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  baton sample-web --release 1.0 --instance web.1 --listen 127.0.0.1:8080
  baton sample-web --release 3.0 --unhealthy
  baton sample-web --release 4.0 --fail-one-in 3 --slow-by 400ms

Asks:
  GET /            200 `RELEASE INSTANCE PID`
  GET /quote/N     200 what N apples cost: the same of every release
  GET /healthz     200 `ok`, or 500 with --unhealthy
  GET /wait/MS     the same as /, after so many milliseconds
  GET /exit/CODE   ends the process with that code, without an answer")]
pub(crate) struct Args {
    /// The version it says it is.
    #[arg(long, env = "RELEASE", default_value = "0")]
    release: String,
    /// The instance it says it is.
    #[arg(long, env = "INSTANCE", default_value = "-")]
    instance: String,
    /// Listen here where no socket is handed over in LISTEN_FDS.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    faults: Faults,
    /// Start to serve only after this long.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "0s")]
    start_after: Millis,
    /// End with exit code 1 this long after the start.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse)]
    crash_after: Option<Millis>,
    /// After SIGTERM, keep idle connections open this long for one last request each.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "2s")]
    linger: Millis,
}

/// How it behaves badly on purpose.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Faults {
    /// Answer everything with 500.
    #[arg(long)]
    unhealthy: bool,
    /// Answer every N-th page with 500; its health stays well.
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_one_in: u64,
    /// Answer pages only after this long; its health stays quick.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, default_value = "0s")]
    slow_by: Millis,
    /// Answer /quote/N wrongly where N can be divided by this.
    #[arg(long, value_name = "N", default_value_t = 0)]
    miscount_one_in: u64,
}

/// What `/quote/NUMBER` answers: something that whoever asks can check, and that says nothing of who answered.
pub(crate) fn quote(number: u64) -> String {
    format!("{number} apples cost {} cents\n", number.saturating_mul(35))
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When there is no socket to listen on.
pub(crate) async fn run(args: Args) -> Result<Exit> {
    tokio::time::sleep(args.start_after.duration()).await;
    let listeners = listeners(args.listen)?;
    let site = answer::Site::new(args.release, args.instance, args.faults)?;
    let crash = async {
        match args.crash_after {
            Some(after) => tokio::time::sleep(after.duration()).await,
            None => std::future::pending().await,
        }
    };
    let stop = stop_asked()?;
    tokio::select! {
        () = serve::serve(listeners, site, args.linger.duration(), stop) => Ok(Exit::Done),
        () = crash => {
            eprintln!("crashing, as --crash-after asks");
            Ok(Exit::Error)
        }
    }
}

/// Ends when the process is asked to stop.
fn stop_asked() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The sockets handed over, else one of our own.
fn listeners(listen: Option<SocketAddr>) -> Result<Vec<tokio::net::TcpListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    let mut found = Vec::new();
    for index in 0..handed.len() {
        if let Some(listener) =
            handed.take_tcp_listener(index).context("a socket in LISTEN_FDS is not a TCP listener")?
        {
            found.push(listener);
        }
    }
    if found.is_empty() {
        let address = listen.context("no socket in LISTEN_FDS; give --listen ADDR:PORT")?;
        found.push(
            std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?,
        );
    }
    found
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true)?;
            Ok(tokio::net::TcpListener::from_std(listener)?)
        })
        .collect()
}

/// Longest wait for requests in flight after the idle connections are closed.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
