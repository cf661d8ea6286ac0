//! The measured record of a rollout, a failover or a drill.

use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// What was counted and measured, phase by phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// What this is a receipt of.
    pub title: String,
    /// Whether every phase ended as it must, and no request failed.
    pub ok: bool,
    /// Requests sent in all.
    pub requests: u64,
    /// Requests that failed in all: refused, reset, cut short, timed out, answered by no instance, or wrongly.
    pub failed: u64,
    /// Requests that a release known to be bad answered itself with an error; not among the failed.
    pub bad_answers: u64,
    /// From the start of the load to its end.
    pub duration: Millis,
    /// For how long its machine let the load send nothing; what was due then was not sent.
    pub held_up: Millis,
    /// The phases, in order.
    pub phases: Vec<PhaseReceipt>,
}

/// What was counted and measured in one phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseReceipt {
    /// A stable word.
    pub name: String,
    /// For people: what was done.
    pub title: String,
    /// Whether it ended as it must.
    pub ok: bool,
    /// Why not, or what is worth saying.
    pub note: String,
    /// How long it took.
    pub duration: Millis,
    /// Requests sent in it.
    pub requests: u64,
    /// Requests that failed in it.
    pub failed: u64,
    /// Requests that its bad release answered itself with an error.
    pub bad_answers: u64,
    /// Latency of its requests, in milliseconds.
    pub latency_ms: Latency,
    /// What each release answered.
    pub releases: Vec<ReleaseReceipt>,
    /// Further measured times and counts, by name; the unit is in the name.
    pub measured: std::collections::BTreeMap<String, f64>,
}

/// What one release answered in a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseReceipt {
    /// The service.
    pub service: String,
    /// The release's version.
    pub version: String,
    /// Requests that it answered.
    pub answers: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Latency of its answers, in milliseconds.
    pub latency_ms: Latency,
}

/// Latency quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}
