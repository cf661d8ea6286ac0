//! `baton validate`: checks a service file and its artifact, offline.

use crate::diagnostics::Verdict;
use crate::exit::Exit;
use crate::global::Global;
use crate::release::{self, Source};
use anyhow::Result;
use std::io::Write as _;
use std::path::PathBuf;

/// Check a service file, offline.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton validate web.toml
  baton validate web.toml --no-artifact     before the artifact is built
  baton validate web.toml --json            problems with line, column, message and help

Exit code 0: the file is right. 2: it is not, and every problem was shown.")]
pub(crate) struct Args {
    /// The service file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do not look at the artifact.
    #[arg(long)]
    no_artifact: bool,
}

/// Checks the file, and the artifact it names.
///
/// # Errors
/// When either is wrong; every problem was told then.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let source = Source::load(global, &args.file)?;
    let packed = if args.no_artifact { None } else { Some(source.pack(global)?) };
    let warnings = packed.as_ref().map_or(&[][..], |packed| &packed.warnings);
    if global.json {
        global.print_json(&Verdict::new(source.path(), "", &[], warnings))?;
        return Ok(Exit::Done);
    }
    if let Some(packed) = &packed {
        release::say_warnings(packed);
    }
    let artifact = packed.map_or_else(String::new, |packed| {
        format!(
            ", artifact {} ({})",
            packed.artifact.digest.short(),
            crate::show::bytes(packed.artifact.size_bytes)
        )
    });
    writeln!(
        std::io::stdout(),
        "{} is right: service {}{artifact}",
        source.path().display(),
        source.file.spec.name
    )?;
    Ok(Exit::Done)
}
