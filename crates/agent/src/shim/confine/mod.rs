//! Confines the process that calls: the steps between fork and exec that set a workload apart.
//!
//! The agent decides what is done and writes it down as a program of [`Step`]s (`runs::confine` makes it); the child
//! reads it where it lies and makes one or two system calls per step. So the child decides nothing, looks nothing up
//! and allocates nothing, and a workload without a sandbox has an empty program, which costs nothing.
//!
//! The same bytes confine a workload, the commands of its checks and its hooks: [`apply`] is the one way.

mod apply;
mod enter;
mod step;
mod words;

pub(crate) use apply::{Failed, apply};
pub(super) use enter::join;
pub(crate) use enter::{Entrance, STEP_EXECUTE, STEP_FOLDER, STEP_GROUP, rehearse, try_own_mounts};
pub(super) use step::check as check_program;
pub(crate) use step::{GROUPS_MAX, Step, encode};
pub(crate) use words::failure_in_words;

/// Longest program: 128 paths of a sandbox at their longest would be 512 KiB; real ones have a few hundred bytes.
pub(crate) const PROGRAM_BYTES_MAX: usize = 1 << 20;
