//! `baton secret`: values that services are given and nobody is shown.

use crate::confirm;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::global::Global;
use crate::live::Style;
use crate::show;
use crate::table::{self, Table, plain, styled};
use anyhow::Result;
use baton_model::id::SecretName;
use baton_model::secret::Secret;
use baton_model::status::SecretStatus;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Set, list and remove secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  printf %s \"$PASSWORD\" | baton secret set db-password
  baton secret set tls-key --from ./key.pem
  baton secret ls
  baton secret rm db-password

A value is never shown again: no command and no call gives it back.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Keep a value as the newest revision of a secret; running releases keep theirs.
    #[command(after_help = "Examples:
  printf %s \"$PASSWORD\" | baton secret set db-password
  baton secret set tls-key --from ./key.pem

The bytes are taken as they are, an ending newline with them. The next deploy of a service that names the
secret makes a release with this revision; `baton rollout undo` goes back to the one before.")]
    Set {
        /// The secret: letters, digits, `.`, `_`, `-`.
        name: SecretName,
        /// A file with the value; `-` or none: standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// List the secrets, their revisions, and the releases that use them.
    #[command(visible_alias = "list", after_help = "Examples:\n  baton secret ls\n  baton secret ls --json")]
    Ls,
    /// Forget a secret that no release uses.
    #[command(visible_alias = "remove", after_help = "Examples:\n  baton secret rm db-password")]
    Rm {
        /// The secret.
        name: SecretName,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Sets, lists or removes.
///
/// # Errors
/// When the value cannot be read, or the coordinator cannot be reached or refuses.
pub(crate) async fn run(args: Args, global: &Global) -> Result<Exit> {
    match args.action {
        Action::Set { name, from } => set(&name, from.as_deref(), global).await,
        Action::Ls => list(global).await,
        Action::Rm { name, yes } => remove(&name, yes, global).await,
    }
}

async fn set(name: &SecretName, from: Option<&Path>, global: &Global) -> Result<Exit> {
    let value = read(from)?;
    let ends_in_newline = value.expose().ends_with(b"\n");
    let status = global.api().await?.set_secret(name, value).await?;
    if global.json {
        global.print_json(&status)?;
        return Ok(Exit::Done);
    }
    let newest = status.revisions.last();
    let (revision, size) = newest.map_or((0, 0), |newest| (newest.revision, newest.size_bytes));
    eprintln!("secret {name} is set: revision {revision}, {}", show::bytes(size));
    if ends_in_newline {
        eprintln!(
            "its value ends with a newline; where that is not meant, use `printf %s` instead of `echo`"
        );
    }
    let users = older_users(&status);
    if users.is_empty() {
        eprintln!("a release that names it in `[secrets]` is made with this revision");
    } else {
        eprintln!(
            "these releases keep the revision they were made with: {}; deploy the same file under a new version to bring this one to them",
            users.join(", ")
        );
    }
    Ok(Exit::Done)
}

/// The releases that use a revision before the newest.
fn older_users(status: &SecretStatus) -> Vec<&str> {
    let older = status.revisions.iter().rev().skip(1);
    older.flat_map(|revision| revision.used_by.iter().map(String::as_str)).collect()
}

/// The value: from a file or from standard input, never from the command line, which every process may read.
fn read(from: Option<&Path>) -> Result<Secret> {
    let limit = Secret::BYTES_MAX as u64 + 1;
    let mut bytes = Vec::with_capacity(Secret::BYTES_MAX + 1);
    let (what, read) = match from.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
            (path.display().to_string(), read)
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Fault::usage(
                "there is no value: standard input is a terminal, which would show it",
                "give it by a pipe, as in `printf %s \"$PASSWORD\" | baton secret set NAME`, or with --from FILE",
            )
            .into());
        }
        None => ("standard input".to_owned(), std::io::stdin().lock().take(limit).read_to_end(&mut bytes)),
    };
    let value = Secret::new(bytes);
    read.map_err(|error| {
        Fault::usage(format!("{what} cannot be read: {error}"), "name a file with the value")
    })?;
    let size = value.expose().len();
    if size == 0 || size > Secret::BYTES_MAX {
        let bytes =
            if size == 0 { "no bytes".to_owned() } else { format!("more than {} bytes", Secret::BYTES_MAX) };
        return Err(Fault::usage(
            format!("{what} has {bytes}"),
            format!("a secret has 1 to {} bytes: a password, a key, a certificate", Secret::BYTES_MAX),
        )
        .into());
    }
    Ok(value)
}

async fn list(global: &Global) -> Result<Exit> {
    let secrets = global.api().await?.secrets().await?;
    if global.json {
        global.print_json(&secrets)?;
        return Ok(Exit::Done);
    }
    if secrets.is_empty() {
        eprintln!("there are no secrets yet; `baton secret set NAME` makes one");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["NAME", "REVISION", "SET", "BY", "SIZE", "USED BY"]);
    for secret in &secrets {
        let newest = secret.revisions.last().map(|newest| newest.revision);
        for revision in secret.revisions.iter().rev() {
            let style = if Some(revision.revision) == newest { Style::Plain } else { Style::Dim };
            table.row(vec![
                styled(style, &secret.name),
                styled(style, revision.revision),
                styled(style, show::date(revision.created_at)),
                styled(style, &revision.created_by),
                styled(style, show::bytes(revision.size_bytes)),
                plain(revision.used_by.join(", ")),
            ]);
        }
    }
    table::print(&table.lines(), global)?;
    Ok(Exit::Done)
}

async fn remove(name: &SecretName, yes: bool, global: &Global) -> Result<Exit> {
    if !yes {
        confirm::ask(&format!("Forget every value of secret {name}?"))?;
    }
    global.api().await?.remove_secret(name).await?;
    writeln!(std::io::stderr(), "secret {name} is forgotten")?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_is_and_within_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("value");
        let read_back = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(Some(&path))
        };
        assert_eq!(read_back(b"one\n").unwrap().expose(), b"one\n");
        assert!(read_back(b"").unwrap_err().to_string().contains("no bytes"));
        assert!(read_back(&vec![b'x'; Secret::BYTES_MAX + 1]).unwrap_err().to_string().contains("more than"));
        assert_eq!(read_back(&vec![b'x'; Secret::BYTES_MAX]).unwrap().expose().len(), Secret::BYTES_MAX);
        assert!(read(Some(Path::new("/dev/zero"))).unwrap_err().to_string().contains("more than"));
    }
}
