//! `cargo xtask lab`: the tests on hosts with a real systemd.

use crate::package::{self, FAST, Options};
use crate::run;
use anyhow::{Result, ensure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the chore does, for the list of chores.
pub(crate) const ABOUT: &str =
    "tests on hosts with a real systemd, booted for them; as root. `cargo xtask lab FILTER` runs some";

/// Programs that the lab needs, with their Debian packages.
const NEEDED: [(&str, &str); 10] = [
    ("git", "git"),
    ("curl", "curl"),
    ("strip", "binutils"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("python3", "python3"),
    ("lintian", "lintian"),
];
/// What a host has beyond Debian's bare system: the supervisors that Baton is measured beside.
const ON_HOSTS: [&str; 2] = ["runit", "supervisor"];
/// The base of the lab's hosts is kept here for the next time, unless `LAB` names another place.
const LAB: &str = "/var/tmp/baton-lab-xtask";
/// Upgrades are to this version, of the same program with these bytes behind it, which ELF does not mind.
const NEWER: &str = "+lab1";

/// Packages the program of this tree, makes the hosts' base, runs the tests, and clears the hosts away whatever came.
///
/// # Errors
/// When it is not root, something is missing, or a test fails.
pub(crate) fn run(filter: &[String]) -> Result<()> {
    ensure!(is_root()?, "the lab boots hosts and makes networks for them: run it as root");
    for (program, package) in NEEDED {
        package::need(program, package)?;
    }
    let packages = packages()?;
    lint(&packages.join("old"))?;
    let lab = std::env::var_os("LAB").map_or_else(|| PathBuf::from(LAB), PathBuf::from);
    run::said(hosts(&lab).arg("base").args(ON_HOSTS))?;
    let mut tests = run::cargo_command();
    tests.args(["test", "--locked", "-p", "baton-tests", "--features", "lab", "--test", "lab", "--"]);
    // One after the other: each has all of the machine, and their figures are not one another's.
    tests.args(["--test-threads=1", "--nocapture"]).args(filter);
    set(&mut tests, &lab);
    let outcome = run::said(tests.env("BATON_LAB_PACKAGES", &packages));
    // Also when a test was cut off.
    let cleared = run::quiet(hosts(&lab).arg("destroy"));
    outcome.and(cleared)
}

/// Builds the packages twice, of one program and of its twin: as this version and as a newer one.
fn packages() -> Result<PathBuf> {
    let out = package::target().join("package/lab");
    let program = match std::env::var_os("BATON_PROGRAM") {
        Some(program) => PathBuf::from(program),
        None => package::built("dev")?,
    };
    // Symbols are most of a development build, and would be unpacked on every host.
    let stripped = out.join("baton");
    std::fs::create_dir_all(&out)?;
    run::quiet(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(&program))?;
    let twin = out.join("baton-newer");
    let _ = std::fs::copy(&stripped, &twin)?;
    std::fs::OpenOptions::new().append(true).open(&twin)?.write_all(NEWER.as_bytes())?;
    for (folder, suffix, program) in [("old", "", stripped), ("new", NEWER, twin)] {
        let version = format!("{}{suffix}", env!("CARGO_PKG_VERSION"));
        let out = out.join(folder);
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        package::build(&Options::new(program, version, out, FAST)?)?;
    }
    Ok(out)
}

/// What Debian's own checker calls an error or warns of fails the lab.
fn lint(packages: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    for entry in std::fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            lintian.arg(path);
        }
    }
    run::said(&mut lintian)
}

fn hosts(lab: &Path) -> Command {
    let mut command = Command::new(run::root().join("tests/lab/hosts.sh"));
    set(&mut command, lab);
    command
}

/// The lab's own names, so that it stands beside others on this machine.
fn set(command: &mut Command, lab: &Path) {
    command.env("LAB", lab);
    for (name, value) in [("LAB_ID", "blx"), ("LAB_NET", "10.93.0")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

fn is_root() -> Result<bool> {
    Ok(run::output(Command::new("id").arg("-u"))?.trim_ascii() == b"0")
}
