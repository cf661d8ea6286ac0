//! `baton version`: what this program is.

use crate::exit::Exit;
use crate::global::Global;
use anyhow::Result;
use std::io::Write as _;

/// Print the version of this program.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton version
  baton version --json")]
pub(crate) struct Args {}

/// Prints name and version, or an object with `version` and `target`.
///
/// # Errors
/// When stdout is gone.
pub(crate) fn run(_args: Args, global: &Global) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if global.json {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        global.print_json(&serde_json::json!({ "version": version, "target": target }))?;
    } else {
        writeln!(std::io::stdout(), "baton {version}")?;
    }
    Ok(Exit::Done)
}
