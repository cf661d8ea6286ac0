//! The node agent: runs what its plan says, keeps it alive, and tells the coordinator.
//!
//! [`join`] makes a node of a host; [`run`] is the agent's life. Workloads outlive it: each has a [`shim`], and an
//! agent that starts again takes them over. Below are the rooms: [`runs`] (shims and sockets), `driver` (the
//! machines of `baton_engine::instance`, and what they ask for), `artifacts`, `checks`, `session` (the stream to the
//! coordinator), `plan` and `journal` (what is on disk before it is acted upon or told), `logs` and `metrics`.

mod app;
mod artifacts;
mod checks;
mod clock;
mod config;
mod driver;
mod durable;
mod halt;
mod identity;
mod journal;
mod logs;
mod metrics;
mod notify;
mod plan;
mod provisions;
pub mod runs;
mod session;
pub mod shim;
mod upgrade;
mod workload;

pub use app::{AgentError, run, runtime};
pub use config::{AgentConfig, AgentFile, LOG_BYTES_DEFAULT, StateDir, StateError, UPGRADE_WITHIN_DEFAULT};
pub use halt::{Halted, halt};
pub use identity::{JoinError, JoinOptions, join};
pub use provisions::forget_secrets;
pub use runs::JOURNAL_SOCKET;
pub use upgrade::{Departure, Guard, GuardError, go_on_as, guard};
