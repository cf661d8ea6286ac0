//! Programs as they are packaged: optimised across crates, and by a profile of what a busy gateway does.
//!
//! The profile is a file of the repository, so that everybody builds the same from the sources alone. `cargo xtask profile`
//! makes it anew, which is worth it after large changes of the gateway and with each version of the compiler: what the
//! profile does not know is built as without it. Why: docs/adr/0023.

use crate::package::target;
use crate::run;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo xtask dist` does, for the list of chores.
pub(crate) const ABOUT: &str = "programs as they are packaged, in target/dist; prints their paths";
/// What `cargo xtask profile` does.
pub(crate) const PROFILE_ABOUT: &str =
    "the profile by which they are optimised; needs haproxy, nginx, wrk, llvm-tools";

/// Where the profile is.
const PROFILE: &str = "packaging/profile/gateway.profdata";
/// That a function has changed since it was profiled is no fault, and not worth a warning for each.
const QUIET: &str = "-Cllvm-args=-no-pgo-warn-mismatch";
/// What is profiled: a gateway as a process of its own.
const PROFILED: &str = "baton-gateway-static";

/// `cargo xtask dist [PROGRAM...]`: builds `baton`, or the programs named.
///
/// # Errors
/// When there is no such program, or the build fails.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let named: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Some(option) = named.iter().find(|arg| arg.starts_with('-')) {
        bail!("{option} is no program's name: cargo xtask dist [PROGRAM...]");
    }
    let programs = if named.is_empty() { vec!["baton"] } else { named };
    let folder = build(&programs)?;
    programs.iter().for_each(|program| println!("{}", folder.join(program).display()));
    Ok(())
}

/// Builds programs by the profile of the repository, and returns the folder that they are in.
///
/// # Errors
/// When the profile is missing or the build fails.
pub(crate) fn build(programs: &[&str]) -> Result<PathBuf> {
    let profile = run::root().join(PROFILE);
    ensure!(profile.is_file(), "{PROFILE} is missing: check it out again, or make it: cargo xtask profile");
    let mut cargo = built(programs);
    let by_profile = format!("-Cprofile-use={}", profile.display());
    run::said(flagged(&mut cargo, &[&by_profile, QUIET]))?;
    Ok(target().join("dist"))
}

/// `cargo xtask profile`: runs a gateway that counts what it executes under the load of `bench gateway`.
///
/// # Errors
/// When a tool is missing, or the build or the load fails.
pub(crate) fn profile() -> Result<()> {
    let merge = merger()?;
    let folder = target().join("profile");
    let (raw, by_the_way) = (folder.join("raw"), folder.join("build-scripts"));
    for old in [&raw, &by_the_way].into_iter().filter(|it| it.exists()) {
        std::fs::remove_dir_all(old).with_context(|| format!("clearing {}", old.display()))?;
    }
    let mut cargo = built(&[PROFILED]);
    let counting = format!("-Cprofile-generate={}", by_the_way.display());
    run::said(flagged(&mut cargo, &[&counting]).env("CARGO_TARGET_DIR", &folder))?;
    run::said(
        run::cargo_command()
            .args(["run", "--release", "--locked", "-p", "baton-tests", "--bin", "bench", "--"])
            .args(["gateway", "--rounds", "1"])
            .env("BATON_GATEWAY_PROGRAM", folder.join("dist").join(PROFILED))
            .env("LLVM_PROFILE_FILE", raw.join("%p.profraw")),
    )?;
    let profile = run::root().join(PROFILE);
    let counted = std::fs::read_dir(&raw).context("the gateway has left no profile")?;
    let counted = counted.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    run::said(Command::new(merge).args(["merge", "-sparse", "-o"]).arg(&profile).args(counted))?;
    println!("{}", profile.display());
    Ok(())
}

/// All programs are built with the features of the whole workspace, so that their functions have the same names, by which the
/// profile knows them.
fn built(programs: &[&str]) -> Command {
    let mut cargo = run::cargo_command();
    cargo.args(["build", "--locked", "--workspace", "--profile", "dist"]);
    programs.iter().for_each(|program| {
        cargo.args(["--bin", program]);
    });
    cargo
}

/// Adds flags of rustc to those that the environment asks for.
fn flagged<'a>(cargo: &'a mut Command, more: &[&str]) -> &'a mut Command {
    let mut flags = match (std::env::var("CARGO_ENCODED_RUSTFLAGS"), std::env::var("RUSTFLAGS")) {
        (Ok(flags), _) => flags.split('\u{1f}').map(str::to_owned).collect(),
        (Err(_), Ok(flags)) => flags.split_whitespace().map(str::to_owned).collect(),
        (Err(_), Err(_)) => Vec::new(),
    };
    flags.retain(|it: &String| !it.is_empty());
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
}

/// `llvm-profdata` of the compiler's own version: another's does not read what the compiler writes.
fn merger() -> Result<PathBuf> {
    let library = String::from_utf8(run::output(Command::new("rustc").args(["--print", "target-libdir"]))?)?;
    let program = Path::new(library.trim()).with_file_name("bin").join("llvm-profdata");
    ensure!(program.is_file(), "llvm-profdata is missing: rustup component add llvm-tools");
    Ok(program)
}
