//! What end-to-end tests and benches stand on: a real cluster of real processes, driven as an operator drives it,
//! through the `baton` program only.

mod answer;
mod cluster;
mod gateways;
pub mod load;
pub mod local;
pub mod openmetrics;
mod seen;
mod service;
pub mod users;
pub mod wait;

pub use cluster::{Cluster, ClusterOptions, Ran, baton_program, packaged};
pub use service::{ServiceFile, fixture};
