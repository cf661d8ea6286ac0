//! The gateway's tie to its coordinator.
//!
//! ```text
//! start:   home ──► table on disk ──► in force                       serves, with or without a coordinator
//! session: table ─► in force at once ─► on disk (shelf) ─► acknowledged, together with what is still in flight
//!                                                          to runs that the table no longer names
//! ```
//!
//! [`home`] is the folder in which all of it is kept, [`shelf`] keeps the newest table there, [`session`] keeps a
//! session up for as long as the gateway lives.

mod held;
pub mod home;
mod join;
pub mod session;
mod shelf;
mod stream;

pub use held::{Control, Parts, Phase, Running};
pub use home::{Home, HomeError};
pub use join::{JoinError, JoinOptions, join};
pub use session::{keep, restore};
