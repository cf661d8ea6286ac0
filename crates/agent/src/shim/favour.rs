//! The kernel's favour when memory runs out is for the agent and its shims, not for what they run.
//!
//! An agent's unit may have a negative `OOMScoreAdjust=`, which is inherited: a workload that eats all memory would be
//! the last to be killed for it, after its neighbours and the rest of the node.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;

const SCORE: &CStr = c"/proc/self/oom_score_adj";

/// Whether this process is favoured, and so would be what it starts.
pub(super) fn is_inherited() -> bool {
    let mut first = [0];
    rustix::fs::open(SCORE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut first))
        .is_ok_and(|len| len == 1 && first == *b"-")
}

/// Gives the favour up, for a child before it executes its program. Everyone may.
pub(super) fn give_up() {
    if let Ok(file) = rustix::fs::open(SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"0");
    }
}
