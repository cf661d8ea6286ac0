//! `baton context`: which coordinator commands talk to, and as whom.

use crate::contexts::{Context, Contexts};
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use anyhow::Result;
use serde_json::json;
use std::io::Write as _;

/// Choose which coordinator commands talk to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  baton context add prod --coordinator 10.0.0.5:7443 --token TOKEN
  baton context use prod
  baton context ls")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the contexts; the current one is marked.
    #[command(visible_alias = "list", after_help = "Examples:\n  baton context ls\n  baton context ls --json")]
    Ls,
    /// Make a context the current one.
    #[command(name = "use", after_help = "Examples:\n  baton context use prod")]
    Choose {
        /// The context.
        name: String,
    },
    /// Show a context: its coordinator, and until when its certificate is good.
    #[command(after_help = "Examples:\n  baton context show\n  baton context show prod --json")]
    Show {
        /// The context; the current one where left out.
        name: Option<String>,
    },
    /// Forget a context and its certificate.
    #[command(visible_alias = "remove", after_help = "Examples:\n  baton context rm old")]
    Rm {
        /// The context.
        name: String,
    },
}

/// Does what was asked.
///
/// # Errors
/// When the context does not exist, or its files cannot be read or written.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let contexts = Contexts::open()?;
    match args.action {
        Action::Ls => list(&contexts, global)?,
        Action::Choose { name } => {
            contexts.choose(&name)?;
            eprintln!("commands now talk to `{name}`");
        }
        Action::Show { name } => show(&contexts.get(name.as_deref().or(global.context.as_deref()))?, global)?,
        Action::Rm { name } => {
            contexts.remove(&name)?;
            eprintln!("`{name}` is forgotten, and its certificate with it");
        }
    }
    Ok(Exit::Done)
}

fn list(contexts: &Contexts, global: &Global) -> Result<()> {
    let current = contexts.current()?;
    let all = contexts.list()?;
    let is_current = |context: &Context| current.as_deref() == Some(context.name.as_str());
    if global.json {
        let rows: Vec<_> = all
            .iter()
            .map(|c| json!({ "name": c.name, "coordinator": c.coordinator, "current": is_current(c) }))
            .collect();
        return global.print_json(&rows);
    }
    let mut out = std::io::stdout().lock();
    for context in &all {
        let mark = if is_current(context) { '*' } else { ' ' };
        writeln!(out, "{mark} {:<20} {}", context.name, context.coordinator)?;
    }
    if all.is_empty() {
        eprintln!("there is no context yet; `baton context add` makes one");
    }
    Ok(())
}

fn show(context: &Context, global: &Global) -> Result<()> {
    let facts = json!({ "name": context.name, "coordinator": context.coordinator, "dir": context.dir });
    if global.json {
        return global.print_json(&facts);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "name         {}", context.name)?;
    writeln!(out, "coordinator  {}", context.coordinator)?;
    writeln!(out, "certificate  {}", context.dir.display())?;
    if !context.dir.is_dir() {
        return Err(Fault::new("its folder is gone", "add the context again").into());
    }
    Ok(())
}
