//! The nouns of Baton, and nothing else: no I/O, no clock, no runtime.
//!
//! Every crate speaks in these types. Input from people ([`mod@file`]) and from the wire (crate `baton-proto`)
//! is parsed into them once, at the edge, and never again. They derive serde because one representation
//! serves both the records of the store and the CLI's `--json` (`docs/adr/0001-one-serde-form.md`).

pub mod amount;
pub mod artifact;
pub mod configuration;
pub mod confinement;
pub mod desired;
pub mod event;
pub mod evidence;
pub mod file;
pub mod id;
pub mod lifecycle;
pub mod metrics;
pub mod observed;
pub mod plan;
pub mod receipt;
pub mod render;
pub mod report;
pub mod rollout;
pub mod route;
pub mod secret;
pub mod signal;
pub mod spec;
pub mod status;
pub mod time;
pub mod upgrade;
