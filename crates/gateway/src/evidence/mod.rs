//! What is counted, at next to no cost: one addition on a thread's own shard for each event, and a histogram of
//! latencies whose rows are made when they are first hit.
//!
//! [`Reporter`] makes the reports to the coordinator, [`prometheus::text`] the page for scrapers.

pub mod counters;
pub mod prometheus;
mod report;
pub(crate) mod shard;
mod total;
pub mod trial;

pub use counters::{ReleaseCounters, ServiceCounters};
pub use report::Reporter;
pub use trial::TrialCounters;

#[cfg(test)]
mod tests;
