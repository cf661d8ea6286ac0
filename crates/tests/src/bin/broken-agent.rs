//! A program that looks like an agent and is none: it says a version, and as an agent does what the end of its own file
//! says: `hang`, or anything else to end at once. For tests of the agent's upgrade.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "version") {
        return ExitCode::SUCCESS;
    }
    let own = std::fs::read("/proc/self/exe").unwrap_or_default();
    while own.ends_with(b"hang") {
        std::thread::park();
    }
    ExitCode::FAILURE
}
