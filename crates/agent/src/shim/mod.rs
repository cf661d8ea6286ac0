//! The shim: the parent of one workload, for as long as the run lives, whatever becomes of the agent.
//!
//! It is the same binary as everything else, in a mode that starts before any runtime. It is single-threaded,
//! waits in one poll(2), and has mapped all its memory before the workload starts. It holds the listening
//! sockets and the log pipes, so that both live through a restart; it is a subreaper, so that every orphan of the
//! workload becomes its child, and "no child" means "nothing is left"; it is deaf to SIGTERM, SIGINT and SIGHUP.
//!
//! ```text
//!            start                    end, restart due            stop            nothing left
//!   (setup) ───────► Running ─────────────────────────► Waiting   ───► Stopping ─────────────► Stopped ──► Quit
//!                      ▲  └── end, mode says no ──► Down   │            (from every state)
//!                      └──────────── delay passed ─────────┘
//! ```
//!
//! **What is left of a workload that ended is killed before it starts again**: its process group at once, then its
//! control group and every inherited child, until there is none. A workload's helpers do not survive it: two
//! incarnations never run side by side. So a program that puts itself into the background is not for `exec`; let it
//! stay in the foreground, as for systemd's `Type=exec`.
//!
//! **A stop** signals the workload alone; when it ends and leaves processes (a shell around a server, say), those get
//! the same signal once, and what is left after the timeout is killed.
//!
//! **Around the workload** the shim runs the hooks, takes in what the workload says of itself (sd_notify(3)), and ends
//! one that misses its watchdog: all of it without the agent.
//!
//! The agent tells the rest: `config` is what it is started with, `protocol` what is said later.
#![allow(unsafe_code)] // The process layer: fork, exec, wait and signals have no safe form; each block says why it holds.

mod backlog;
mod clock;
pub(crate) mod config;
pub(crate) mod confine;
pub(crate) mod control;
mod descriptor;
mod encoding;
mod ending;
mod entry;
mod favour;
pub(crate) mod freeze;
mod group;
mod history;
mod journal;
mod kernel;
pub(crate) mod lifecycle;
mod logs;
mod memory;
pub(crate) mod notify;
mod process;
pub(crate) mod protocol;
mod restart;
pub(crate) mod seal;
mod setup;
pub(crate) mod statefile;
mod supervise;

pub(crate) use memory::release_program_pages;

use std::ffi::OsString;

/// Exit code when the shim could not take over (EX_OSERR of sysexits.h); the agent was told why.
const EXIT_SETUP: i32 = 71;

/// Runs as a shim and never returns. Called first in `main` when the first argument is `shim`; the arguments after it
/// only name the run for people who look at the process list. The agent's socket is standard input.
pub fn main(_args: &[OsString]) -> ! {
    match setup::set_up() {
        Ok(parts) => supervise::Shim::new(parts).run(),
        Err(error) => {
            eprintln!("baton shim: this is started by the agent, with its socket as standard input: {error}");
            std::process::exit(EXIT_SETUP)
        }
    }
}
