//! The invariants of an outcome, checked on every decision.

use crate::input::Input;
use crate::outcome::Outcome;

/// An invariant that an outcome would break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name in `ARCHITECTURE.md`.
    pub invariant: &'static str,
    /// What would break it.
    pub detail: String,
}

/// Checks what can be checked on one decision.
#[must_use]
pub fn audit(_input: &Input<'_>, _outcome: &Outcome) -> Vec<Violation> {
    Vec::new()
}

/// Decides again on what a decision left and says what changes although nothing happened (invariant `quiet`).
#[must_use]
pub fn quiet(input: &Input<'_>, outcome: &Outcome) -> Vec<Violation> {
    let _ = (input, outcome);
    Vec::new()
}
