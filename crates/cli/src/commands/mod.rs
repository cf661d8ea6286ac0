//! One file per command: its `Args`, and `run(args, &Global)`, which gives the exit code.

pub(crate) mod agent;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod coordinator;
mod cost;
pub(crate) mod deploy;
pub(crate) mod dev;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod gateway;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod node;
pub(crate) mod plan;
mod preview;
mod reload;
pub(crate) mod rollout;
pub(crate) mod route;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod top;
pub(crate) mod validate;
pub(crate) mod version;
