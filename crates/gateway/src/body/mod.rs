//! Bodies of requests on their way to instances.

mod sent;
mod silence;

pub(crate) use sent::{HELD_MAX, Progress, SentBody, declared, hold};
pub(crate) use silence::Silence;
