//! The gateway beside HAProxy and nginx from Debian's packages, on the same upstream in the same run.

mod lost;
mod proxies;
mod rollouts;
mod throughput;
mod weights;

pub(crate) use lost::run as lost;
pub(crate) use rollouts::run as rollouts;
pub(crate) use throughput::{evidence, mirror, run as throughput};
pub(crate) use weights::run as weights;
