//! `baton plan`: placeholder, written by the owner of this file.

use crate::exit::Exit;
use crate::global::Global;
use anyhow::Result;

/// Say what a deploy would do, and do nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton plan web.toml")]
pub(crate) struct Args {
    /// The service file.
    file: std::path::PathBuf,
}

/// Does it.
///
/// # Errors
/// Always, until it is written.
pub(crate) async fn run(args: Args, _global: &Global) -> Result<Exit> {
    anyhow::bail!("not written yet: {}", args.file.display())
}
