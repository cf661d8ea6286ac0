//! The shim: parent of one workload.

use std::ffi::OsString;

/// Runs as a shim and never returns.
pub fn main(_args: &[OsString]) -> ! {
    std::process::exit(70)
}
