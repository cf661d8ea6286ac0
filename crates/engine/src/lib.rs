//! The two brains of Baton, pure and synchronous.
//!
//! [`decide()`] is the coordinator's: from what is desired, observed and remembered, and the time, to what is
//! remembered next, who runs what, and why. [`instance`] is the agent's: one instance's states and the swap.
//! [`cycle`] is the order in which the coordinator reads, decides, commits and sends. Nothing here does I/O,
//! reads a clock, draws a random number, or logs; see `clippy.toml`.

pub mod audit;
pub mod budget;
pub mod cycle;
mod decide;
#[cfg(any(test, feature = "fleet"))]
pub mod fleet;
mod gate;
mod gateways;
mod heal;
pub mod input;
pub mod instance;
mod memory;
mod nodes;
mod order;
pub mod outcome;
mod placement;
pub mod progress;
mod report;
mod retire;
mod rollout;
mod roster;
pub mod route;
mod scale;
mod sight;
#[cfg(test)]
mod stories;
mod trial;
mod turn;
pub mod upgrade;

pub use audit::audit;
pub use decide::decide;
pub use gateways::warning;
pub use nodes::SILENT_AFTER;
