//! Running other programs: said before, and failed loudly.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// The repository, where every chore works.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), ToOwned::to_owned)
}

/// Runs `cargo ARGS`, said before.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    said(cargo_command().args(args))
}

/// Cargo as if it was called from a shell. What `cargo run` tells this program of its own package, build scripts of
/// dependencies would see as a change, and half of everything would be built anew each time.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    let names = std::env::vars_os().map(|(name, _)| name);
    let of_this_package = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for name in names.filter(of_this_package) {
        let _ = command.env_remove(name);
    }
    command
}

/// Runs a command in the repository, said before.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn said(command: &mut Command) -> Result<()> {
    eprintln!("\n==> {}", text(command));
    quiet(command)
}

/// Runs a command in the repository.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let status = command.current_dir(root()).status().with_context(|| text(command))?;
    ensure!(status.success(), "{} ({status})", text(command));
    Ok(())
}

/// What a command prints.
///
/// # Errors
/// When it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.current_dir(root()).output().with_context(|| text(command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ({}): {}", text(command), output.status, said.trim());
    Ok(output.stdout)
}

fn text(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(name).chain(args).collect::<Vec<_>>().join(" ")
}
