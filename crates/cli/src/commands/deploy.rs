//! `baton deploy`: makes a release of a service file and asks for its rollout.

use crate::exit::Exit;
use crate::global::Global;
use crate::live::{self, Follow};
use crate::pack::{ProgressLine, upload};
use crate::release::{self, Source};
use crate::show;
use anyhow::Result;
use baton_model::id::{RolloutId, Version};
use baton_model::time::Millis;
use baton_proto::v1;
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// Make a release of a service file and roll it out.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton deploy web.toml --version 2.0
  baton deploy web.toml --version 2.0 --watch
  baton deploy web.toml --version $(git rev-parse --short HEAD) --watch --timeout 15m

With --watch the exit code says how the rollout ended; `baton --help` lists the codes.
An upload that was cut goes on where it stopped when the same command runs again.")]
pub(crate) struct Args {
    /// The service file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Your own name for this release: letters, digits, `.`, `_`, `+`, `-`.
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// Follow the rollout until it ends or pauses.
    #[arg(long)]
    watch: bool,
    /// Stop watching (the rollout goes on) after this long: `30s`, `10m`.
    #[arg(long, value_name = "LENGTH", value_parser = Millis::parse, requires = "watch")]
    timeout: Option<Millis>,
}

/// Checks, packs, uploads, asks for the rollout, and follows it where that was asked.
///
/// # Errors
/// When the file or its artifact is wrong, or the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let source = Source::load(global, &args.file)?;
    let packed = source.pack(global)?;
    release::say_warnings(&packed);
    let mut client = global.client().await?;
    let progress = if std::io::stderr().is_terminal() { ProgressLine::Drawn } else { ProgressLine::Silent };
    let sent = upload(&mut client, &packed, progress).await?;
    let (size, digest) = (show::bytes(packed.artifact.size_bytes), packed.artifact.digest.short());
    if sent == 0 {
        eprintln!("artifact {digest} ({size}) is on the coordinator already");
    } else {
        eprintln!("artifact {digest} ({size}): {} sent", show::bytes(sent));
    }
    let rollout = client.deploy(release::request(&source, &packed, &args.version)).await?.into_inner();
    for warning in &rollout.warnings {
        eprintln!("warning: {warning}");
    }
    let service = source.file.spec.name;
    tell(global, &rollout, &args.version)?;
    if rollout.unchanged && !args.watch {
        return Ok(Exit::Done);
    }
    if !args.watch {
        eprintln!("follow it with `baton rollout watch {service}`");
        return Ok(Exit::Done);
    }
    let timeout = args.timeout.map(Millis::duration);
    live::follow(global, Follow { service, rollout: Some(RolloutId(rollout.rollout)), timeout }).await
}

fn tell(global: &Global, rollout: &v1::RolloutRef, version: &Version) -> Result<()> {
    if global.json {
        return global.print_json_line(&serde_json::json!({
            "service": rollout.service,
            "version": version,
            "rollout": rollout.rollout,
            "unchanged": rollout.unchanged,
            "warnings": rollout.warnings,
        }));
    }
    if rollout.unchanged {
        eprintln!(
            "{} is wanted at {version} already, by rollout {}; nothing new was asked for",
            rollout.service, rollout.rollout
        );
    } else {
        eprintln!("rollout {} of {} to {version} is asked for", rollout.rollout, rollout.service);
    }
    Ok(())
}
