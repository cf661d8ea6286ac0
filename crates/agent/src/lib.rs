//! The node agent: runs what its plan says, keeps it alive, and tells the coordinator.
//!
//! [`join`] makes a node of a host; [`run`] is the agent's life. Workloads outlive it: each has a [`shim`], and an
//! agent that starts again takes them over. Below are the rooms: [`runs`] (shims and sockets), `driver` (the
//! machines of `baton_engine::instance`, and what they ask for), `artifacts`, `checks`, `session` (the stream to the
//! coordinator), `plan` and `journal` (what is on disk before it is acted upon or told), `logs` and `metrics`.

mod artifacts;
mod checks;
mod clock;
mod config;
mod durable;
mod journal;
mod plan;
pub mod runs;
pub mod shim;
mod workload;

pub use config::{AgentConfig, AgentFile, StateDir, StateError};
