//! The project's chores, in Rust, so that a machine with only Rust can run them. `cargo xtask` lists them.
//!
//! `cargo xtask check` is what CI runs; then `cargo xtask guest` and, as root, `cargo xtask lab`.

mod dist;
mod guest;
mod lab;
mod package;
mod run;

use std::process::ExitCode;

/// Seeds that CI simulates; a developer may run more with the `sim` binary itself.
const SIMULATION_SEEDS: &str = "1000";

/// One chore: its name, what it does, and the cargo commands it consists of.
struct Chore {
    name: &'static str,
    about: &'static str,
    steps: &'static [&'static [&'static str]],
}

const TEST: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "baton-tests/foreign,baton-tests/lab,baton-agent/guest",
        "--locked",
        "--",
        "-D",
        "warnings",
    ],
    &["build", "--workspace", "--bins", "--locked"],
    &["test", "--workspace", "--locked", "--no-fail-fast"],
    &["run", "--release", "--locked", "-p", "baton-tests", "--bin", "sim", "--", "--seeds", SIMULATION_SEEDS],
];
const DENY: &[&[&str]] = &[&["deny", "check", "bans", "licenses", "sources"]];
const FOREIGN: &[&[&str]] = &[
    &["build", "--workspace", "--bins", "--locked"],
    &["test", "--locked", "-p", "baton-tests", "--features", "foreign", "--test", "foreign"],
    &["test", "--locked", "-p", "baton-gateway", "--test", "traffic", "--", "--ignored", "nginx"],
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
    let mut args = std::env::args().skip(1);
    let wanted = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let outcome = match wanted.as_str() {
        "package" => package::run(&rest),
        "dist" => dist::run(&rest),
        "profile" => dist::profile(),
        "guest" => guest::run(),
        "lab" => lab::run(&rest),
        _ => {
            let chores: Vec<&Chore> =
                CHORES.iter().filter(|chore| chore.name == wanted || wanted == "check").collect();
            if chores.is_empty() {
                usage();
                return ExitCode::from(2);
            }
            chores.iter().flat_map(|chore| chore.steps).try_for_each(|step| run::cargo(step))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("==> failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() {
    eprintln!("usage: cargo xtask CHORE\n\n  check    test, foreign and deny, as CI does");
    for chore in CHORES {
        eprintln!("  {:<8} {}", chore.name, chore.about);
    }
    eprintln!("  {:<8} {}", "package", package::ABOUT);
    eprintln!("  {:<8} {}", "dist", dist::ABOUT);
    eprintln!("  {:<8} {}", "profile", dist::PROFILE_ABOUT);
    eprintln!("  {:<8} {}", "guest", guest::ABOUT);
    eprintln!("  {:<8} {}", "lab", lab::ABOUT);
}
