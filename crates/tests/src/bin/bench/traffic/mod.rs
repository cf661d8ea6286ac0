//! The gateway: beside HAProxy and nginx from Debian's packages, on the same upstream in the same run, and what it does with
//! weights and switches.

mod lost;
mod mirror;
mod moves;
mod proxies;
mod rollouts;
mod throughput;
mod weights;

pub(crate) use lost::run as lost;
pub(crate) use mirror::run as mirror;
pub(crate) use moves::{split, switch};
pub(crate) use rollouts::run as rollouts;
pub(crate) use throughput::{evidence, run as throughput};
pub(crate) use weights::run as weights;
