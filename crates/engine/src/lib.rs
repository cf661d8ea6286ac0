//! The two brains of Baton, pure and synchronous.
//!
//! [`decide`] is the coordinator's: from what is desired, observed and remembered, and the time, to what is
//! remembered next, who runs what, and why. [`instance`] is the agent's: one instance's states and the swap.
//! [`cycle`] is the order in which the coordinator reads, decides, commits and sends. Nothing here does I/O,
//! reads a clock, draws a random number, or logs; see `clippy.toml`.

pub mod cycle;
pub mod input;
pub mod instance;
pub mod outcome;
pub mod progress;

/// One decision over the whole fleet. See [`outcome::Outcome`].
#[must_use]
pub fn decide(_input: &input::Input<'_>) -> outcome::Outcome {
    outcome::Outcome::default()
}
