//! `baton`: every role of Baton in one binary, and the commands operators use.
//!
//! `main` is arguments, telemetry, one command, and its exit code. The shim comes first, before anything
//! that allocates threads or a runtime, since it must stay as small as it can.

mod api;
mod args;
mod commands;
mod confirm;
mod contexts;
mod demo;
mod dev;
mod diagnostics;
mod exit;
mod fault;
mod global;
mod live;
mod pack;
mod reconnect;
mod release;
mod roles;
mod sample;
mod show;
mod table;

use args::Cli;
use clap::Parser as _;
use global::Global;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let raw: Vec<OsString> = std::env::args_os().collect();
    if raw.get(1).is_some_and(|mode| mode == "shim") {
        baton_agent::shim::main(&raw[2..]);
    }
    let cli = match Cli::try_parse_from(raw) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let global = Global::new(&cli.options);
    let outcome = match cli.command.runtime() {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli.command.run(&global));
            // A task blocked on a terminal read must not hold the process back.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(anyhow::anyhow!("the runtime could not be started: {error}")),
    };
    match outcome {
        Ok(exit) => exit.into(),
        // Whoever read our output has read enough: `baton events | head`.
        Err(error) if fault::is_closed_pipe(&error) => exit::Exit::Done.into(),
        Err(error) => fault::report(&error, global.stderr_color).into(),
    }
}

/// Help and version go to stdout and are no failure; anything else is bad usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to be said when even the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { exit::Exit::BadUsage.into() } else { exit::Exit::Done.into() }
}
