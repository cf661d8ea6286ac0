//! `cargo xtask guest`: the tests of limits, in a guest whose kernel has every controller of cgroup v2.

use crate::package;
use crate::run;
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::Command;

/// What the chore does, for the list of chores.
pub(crate) const ABOUT: &str =
    "limits of control groups, on Debian's kernel in QEMU; needs neither root nor KVM";

/// Programs that the guest needs, with their Debian packages.
const NEEDED: [(&str, &str); 2] = [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];
/// Builds the test, and with it the program that is its shim.
const BUILD: [&str; 8] =
    ["test", "--locked", "-p", "baton-agent", "--features", "guest", "--no-run", "--message-format=json"];

/// Builds the test and its shim, and runs them in the guest.
///
/// # Errors
/// When something is missing, or the test fails.
pub(crate) fn run() -> Result<()> {
    for (program, package) in NEEDED {
        package::need(program, package)?;
    }
    let mut build = run::cargo_command();
    build.args(BUILD).args(["--test", "guest"]);
    let told = String::from_utf8(run::output(&mut build)?)?;
    let (test, shim) = (built(&told, "guest")?, built(&told, "baton-shim-test")?);
    let mut guest = Command::new(run::root().join("tests/lab/guest.sh"));
    guest.arg("run").arg(test).arg(shim).env("GUEST_ARGS", "--nocapture --test-threads=1");
    run::said(&mut guest)
}

/// The executable of this name in cargo's messages.
fn built(messages: &str, name: &str) -> Result<PathBuf> {
    let named = format!("\"name\":\"{name}\"");
    let line = messages.lines().filter(|line| line.contains(&named)).find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split('"').next()
    });
    line.map(PathBuf::from).with_context(|| format!("cargo built no `{name}`"))
}
