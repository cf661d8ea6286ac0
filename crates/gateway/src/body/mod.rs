//! Bodies of requests on their way to instances.

mod client;
mod sent;
mod silence;

pub(crate) use client::ClientBody;
pub(crate) use sent::{HELD_MAX, Progress, SentBody, declared, hold};
pub(crate) use silence::Silence;
