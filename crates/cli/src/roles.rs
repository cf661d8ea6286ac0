//! What the long-running roles share: their log, their end, and their tie to a parent.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Options of every role's process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ProcessOptions {
    /// The form of the log on stderr.
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
    /// End when this process, the parent, ends: for clusters that are thrown away.
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<u32>,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogForm {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl ProcessOptions {
    /// Begins the log and ties the process to its parent, where that was asked.
    ///
    /// # Errors
    /// When the parent is gone already.
    pub(crate) fn prepare(&self) -> Result<()> {
        let filter = EnvFilter::try_from_env("BATON_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        // A subscriber that is there already, as in a test, serves as well.
        let _ = match self.log {
            LogForm::Text => log.with_target(false).try_init(),
            LogForm::Json => log.json().try_init(),
        };
        if let Some(parent) = self.with_parent {
            // prctl(2): delivered when the thread that started us ends. `baton dev` starts roles from threads
            // that live as long as it does.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
            let now = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(0);
            anyhow::ensure!(now == parent, "the parent {parent} has ended");
        }
        Ok(())
    }
}

/// Cancelled when the process is asked to stop. A second Ctrl-C ends it at once.
///
/// # Errors
/// When signals cannot be listened to.
pub(crate) fn stop_asked() -> Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
        interrupt.recv().await;
        std::process::exit(i32::from(crate::exit::Exit::Interrupted.code()));
    });
    Ok(stop)
}
