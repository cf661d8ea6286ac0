//! One file per command: its `Args`, and `run(args, &Global)`, which gives the exit code.

pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod deploy;
pub(crate) mod plan;
pub(crate) mod rollout;
pub(crate) mod validate;
pub(crate) mod version;
