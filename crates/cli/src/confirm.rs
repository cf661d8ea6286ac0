//! Asking before something is taken away.

use crate::fault::Fault;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Asks on the terminal; a script must say `--yes`.
///
/// # Errors
/// When the answer is not yes, or there is nobody to ask.
pub(crate) fn ask(question: &str) -> Result<(), Fault> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Fault::usage(format!("{question} There is nobody to ask"), "add --yes"));
    }
    eprint!("{question} [y/N] ");
    // Without a prompt the question still waits for its answer.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Fault::new("nothing was done", "answer `y`, or add --yes"))
}
