//! `cargo xtask package`: Debian packages from the repository by one command, with `dpkg-deb` alone.

mod changelog;
mod contents;
mod stage;

use crate::{dist, run};
use anyhow::{Context as _, Result, bail, ensure};
use contents::PACKAGES;
use stage::Stage;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the chore does, for the list of chores.
pub(crate) const ABOUT: &str = "Debian packages, in target/package; `cargo xtask package --help`";

const HELP: &str = "\
usage: cargo xtask package [--profile dist|release|dev] [--program FILE] [--version V] [--out DIR]

  --profile   what `baton` is built as (default: dist)
  --program   package this program instead of building one
  --version   the packages' version (default: the workspace's)
  --out       where they go (default: target/package)

DEBFULLNAME and DEBEMAIL name the packages' maintainer, SOURCE_DATE_EPOCH their date (default: the last commit's).
Prints the packages' paths on stdout.";

/// What is packaged.
pub(crate) struct Options {
    /// The `baton` program.
    pub(crate) program: PathBuf,
    /// The packages' version.
    pub(crate) version: String,
    /// Where the packages go.
    pub(crate) out: PathBuf,
    /// Who answers for the packages: a name, and an address in angle brackets.
    pub(crate) maintainer: String,
    /// The date of all that is in the packages, in seconds since 1970.
    pub(crate) epoch: String,
    /// How hard xz tries, from 0 to 9.
    pub(crate) compression: u8,
}

/// Packages that are kept and copied to many hosts.
const SMALL: u8 = 6;
/// Packages that are installed once and thrown away.
pub(crate) const FAST: u8 = 1;

impl Options {
    /// Packages of this program: with the maintainer that Debian's own tools would name, and the source's date.
    ///
    /// # Errors
    /// When neither the environment nor git knows the date.
    pub(crate) fn new(program: PathBuf, version: String, out: PathBuf, compression: u8) -> Result<Self> {
        let maintainer = match (std::env::var("DEBFULLNAME"), std::env::var("DEBEMAIL")) {
            (Ok(name), Ok(email)) => format!("{name} <{email}>"),
            _ => env!("CARGO_PKG_AUTHORS").to_owned(),
        };
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => {
                String::from_utf8(run::output(Command::new("git").args(["log", "-1", "--format=%ct"]))?)?
            }
        };
        Ok(Self { program, version, out, maintainer, epoch: epoch.trim().to_owned(), compression })
    }
}

/// Builds the program if none was named, then the packages.
///
/// # Errors
/// When a tool is missing or fails, or a file of `packaging/` is not there.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut profile, mut program, mut version, mut out) = ("dist".to_owned(), None, None, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--help" {
            println!("{HELP}");
            return Ok(());
        }
        let value = || format!("{arg} needs a value\n\n{HELP}");
        let value = args.next().with_context(value)?.clone();
        match arg.as_str() {
            "--profile" => profile = value,
            "--program" => program = Some(PathBuf::from(value)),
            "--version" => version = Some(value),
            "--out" => out = Some(PathBuf::from(value)),
            other => bail!("{other} is no option\n\n{HELP}"),
        }
    }
    let program = match program {
        Some(program) => std::path::absolute(program)?,
        None => built(&profile)?,
    };
    let version = version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let out = std::path::absolute(out.unwrap_or_else(|| target().join("package")))?;
    let options = Options::new(program, version, out, SMALL)?;
    for package in build(&options)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Builds all packages and returns their files.
///
/// # Errors
/// As [`run`].
pub(crate) fn build(options: &Options) -> Result<Vec<PathBuf>> {
    need("dpkg-deb", "dpkg")?;
    need("gzip", "gzip")?;
    let starts_right = options.version.starts_with(|first: char| first.is_ascii_digit());
    let plain = options.version.chars().all(|c| c.is_ascii_alphanumeric() || ".+~-".contains(c));
    ensure!(starts_right && plain, "{} is no version of a Debian package", options.version);
    let architecture = String::from_utf8(run::output(Command::new("dpkg").arg("--print-architecture"))?)?;
    let stages = options.out.join("stage");
    if stages.exists() {
        std::fs::remove_dir_all(&stages).with_context(|| format!("clearing {}", stages.display()))?;
    }
    let mut files = Vec::new();
    for package in PACKAGES {
        let mut stage = Stage::new(stages.join(package.name), options, architecture.trim())?;
        for part in package.parts {
            stage.add(part)?;
        }
        files.push(stage.seal(package.name)?);
    }
    std::fs::remove_dir_all(&stages).with_context(|| format!("clearing {}", stages.display()))?;
    Ok(files)
}

/// Builds `baton` in a profile and returns the program.
///
/// # Errors
/// When the profile is unknown or the build fails.
pub(crate) fn built(profile: &str) -> Result<PathBuf> {
    let folder = match profile {
        "dist" => return Ok(dist::build(&["baton"])?.join("baton")),
        "release" => profile,
        "dev" => "debug",
        other => bail!("no profile `{other}`: dist, release or dev"),
    };
    run::cargo(&["build", "--locked", "--package", "baton-cli", "--profile", profile])?;
    Ok(target().join(folder).join("baton"))
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    run::root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Fails, and says what to install, when a program is missing.
///
/// # Errors
/// When it is missing.
pub(crate) fn need(program: &str, package: &str) -> Result<()> {
    let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = folders.split(':').any(|folder| Path::new(folder).join(program).exists());
    ensure!(found, "{program} is missing: apt-get install {package}");
    Ok(())
}
