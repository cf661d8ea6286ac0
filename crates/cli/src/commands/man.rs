//! `baton man`: the manual pages, for whoever packages Baton.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// Write the manual pages into a folder, one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  baton man --dir ./man1")]
pub(crate) struct Args {
    /// The folder; made if it is not there.
    #[arg(long)]
    dir: PathBuf,
}

/// Writes the pages of the whole command line `program`.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn run(args: Args, program: clap::Command) -> Result<Exit> {
    let failed = || format!("cannot write manual pages into {}", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(failed)?;
    clap_mangen::generate_to(program, &args.dir).with_context(failed)?;
    Ok(Exit::Done)
}
