//! The project's chores, in Rust, so that a machine with only Rust can run them. `cargo xtask` lists them.
//!
//! `cargo xtask check` is exactly what CI runs.

use std::process::{Command, ExitCode};

/// Seeds that CI simulates; a developer may run more with the `sim` binary itself.
const SIMULATION_SEEDS: &str = "1000";

/// One chore: its name, what it does, and the commands it consists of.
struct Chore {
    name: &'static str,
    about: &'static str,
    steps: &'static [&'static [&'static str]],
}

const TEST: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    &["build", "--workspace", "--bins", "--locked"],
    &["test", "--workspace", "--locked", "--no-fail-fast"],
    &["run", "--release", "--locked", "-p", "baton-tests", "--bin", "sim", "--", "--seeds", SIMULATION_SEEDS],
];
const DENY: &[&[&str]] = &[&["deny", "check", "bans", "licenses", "sources"]];
const FOREIGN: &[&[&str]] = &[
    &["build", "--workspace", "--bins", "--locked"],
    &["test", "--locked", "-p", "baton-tests", "--features", "foreign", "--test", "foreign"],
];

const CHORES: &[Chore] = &[
    Chore {
        name: "test",
        about: "format, lints, every test, doc tests, the simulation; needs no root",
        steps: TEST,
    },
    Chore {
        name: "foreign",
        about: "end-to-end tests with redis-server and nginx as workloads",
        steps: FOREIGN,
    },
    Chore { name: "deny", about: "licences, sources and bans of all dependencies (cargo-deny)", steps: DENY },
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let chores: Vec<&Chore> =
        CHORES.iter().filter(|chore| chore.name == wanted || wanted == "check").collect();
    if chores.is_empty() {
        eprintln!("usage: cargo xtask CHORE\n\n  check    all of these, as CI does");
        for chore in CHORES {
            eprintln!("  {:<8} {}", chore.name, chore.about);
        }
        return ExitCode::from(2);
    }
    for step in chores.iter().flat_map(|chore| chore.steps) {
        eprintln!("\n==> cargo {}", step.join(" "));
        match Command::new(env!("CARGO")).args(*step).status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("==> failed ({status}): cargo {}", step.join(" "));
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("==> cargo could not be run: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
