//! `baton completions`: completions for a shell.

use crate::exit::Exit;
use anyhow::Result;
use std::io::Write as _;

/// Print shell completions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton completions bash > ~/.local/share/bash-completion/completions/baton
  baton completions zsh > ~/.zfunc/_baton
  baton completions fish > ~/.config/fish/completions/baton.fish")]
pub(crate) struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

/// Prints the script for the whole command line `program` on stdout.
///
/// # Errors
/// When stdout is gone.
pub(crate) fn run(args: Args, program: &mut clap::Command) -> Result<Exit> {
    // Generated in memory: the generator panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, program, "baton", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
