//! `baton context`: which coordinator commands talk to, and as whom.

use crate::contexts::{Context, Contexts, JoinContext};
use crate::exit::Exit;
use crate::global::Global;
use crate::show;
use anyhow::Result;
use baton_model::time::UnixMs;
use baton_proto::identity::Token;
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
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  baton context ls\n  baton context ls --json"
    )]
    Ls,
    /// Join a coordinator as an operator with a one-time token, and make it the current context.
    #[command(
        visible_alias = "join",
        after_help = "Examples:\n  baton context add prod --coordinator 10.0.0.5:7443 --token TOKEN\n  baton context add prod --coordinator 10.0.0.5:7443 --token TOKEN --as alice --force"
    )]
    Add(AddArgs),
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

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// What to call it here.
    name: String,
    /// Where the coordinator listens.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: String,
    /// From `baton coordinator init`, or `baton node token --operator`.
    #[arg(long, env = "BATON_TOKEN", hide_env_values = true)]
    token: String,
    /// The operator's name in the cluster.
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "operator")]
    operator: String,
    /// Replace a context of the same name.
    #[arg(long)]
    force: bool,
}

/// Does what was asked.
///
/// # Errors
/// When the context does not exist, or its files cannot be read or written.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    let contexts = Contexts::open()?;
    match args.action {
        Action::Ls => list(&contexts, global)?,
        Action::Add(args) => add(&contexts, &args).await?,
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

async fn add(contexts: &Contexts, args: &AddArgs) -> Result<()> {
    let token: Token = args.token.parse()?;
    let join = JoinContext {
        coordinator: &args.coordinator,
        token: &token,
        operator: &args.operator,
        replace: args.force,
    };
    contexts.join(&args.name, &join).await?;
    contexts.choose(&args.name)?;
    eprintln!("joined {} as {}; commands now talk to `{}`", args.coordinator, args.operator, args.name);
    Ok(())
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
    let identity = context.identity()?;
    let (cluster, subject) = identity.subject()?;
    let until = identity.not_after()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let until = UnixMs(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    if global.json {
        return global.print_json(&json!({
            "name": context.name,
            "coordinator": context.coordinator,
            "cluster": cluster,
            "subject": subject.to_string(),
            "certificate_until": until,
            "dir": context.dir,
        }));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "context      {}", context.name)?;
    writeln!(out, "coordinator  {}", context.coordinator)?;
    writeln!(out, "cluster      {cluster}")?;
    writeln!(out, "you are      {subject}")?;
    writeln!(out, "certificate  good until {}, in {}", show::date(until), context.dir.display())?;
    Ok(())
}
