//! Analysis: what is asked of the evidence that gateways and agents report, and what was answered.

use crate::route::Weight;
use crate::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A question that a new release must answer well for as long as it is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// What people call it.
    pub name: String,
    /// What is measured, and its bound.
    pub metric: Metric,
    /// Over the latest evidence of this length; over more where that has fewer than [`Threshold::requests_min`].
    pub window: Millis,
    /// With fewer requests there is no verdict, and so no pass. What agents count or measure needs
    /// none.
    pub requests_min: u32,
    /// What follows when the bound is broken.
    pub action: AnalysisAction,
}

/// What is measured of the new release alone, and its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Metric {
    /// Requests that were answered 500 to 599, or not at all.
    ErrorShare {
        /// Of all requests.
        at_most: Weight,
    },
    /// A quantile of the time to the head of the answer.
    Latency {
        /// Which quantile: 99 % are at least as fast.
        quantile: Weight,
        /// The time.
        at_most: Millis,
    },
    /// Requests a second.
    RequestRate {
        /// On average over the window.
        at_least: u32,
    },
    /// Restarts of the runs of its instances; after a pause, since an operator said `retry`.
    Restarts {
        /// All instances together.
        at_most: u32,
    },
    /// Processor time of an instance, on average over the window; the instance that uses most counts.
    Cpu {
        /// In percent of one processor.
        at_most_percent: u32,
    },
    /// Resident memory of an instance, at its highest in the window; the instance that has most counts.
    Memory {
        /// In bytes.
        at_most: u64,
    },
    /// Copied requests whose two answers differ.
    Differing {
        /// Of all that were compared.
        at_most: Weight,
    },
}

/// What follows when a bound is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum AnalysisAction {
    /// Nothing further begins while it is broken; when it holds again, the rollout goes on by itself.
    Hold,
    /// The rollout waits for an operator.
    Pause,
    /// Back to the release before.
    RollBack,
    /// As [`AnalysisAction::Hold`], and the coordinator posts the verdict to a URL, once each time the bound breaks.
    Webhook {
        /// `https://HOST[:PORT]/PATH`, or `http://` of the coordinator's own host.
        url: String,
    },
}

/// The answer to a question. Missing data is never a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// There was enough evidence, and the bound held.
    Pass,
    /// There was enough evidence, and the bound was broken.
    Fail,
    /// There was not enough evidence.
    Inconclusive,
}

/// A verdict, with the data it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The name of the threshold.
    pub name: String,
    /// The answer.
    pub answer: Answer,
    /// When it was given.
    pub at: UnixMs,
    /// The evidence begins here.
    pub since: UnixMs,
    /// Requests it counts.
    pub requests: u64,
    /// What was measured, in the unit of its metric; `None` where nothing was.
    pub measured: Option<Measured>,
    /// A sentence for people.
    pub text: String,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "unit", content = "value")]
pub enum Measured {
    /// A share of requests.
    Share(Weight),
    /// A time in microseconds.
    Micros(u64),
    /// Thousandths of a request a second.
    MilliRate(u64),
    /// A number.
    Count(u64),
    /// Processor time in thousandths of one processor.
    MilliCores(u64),
    /// A size.
    Bytes(u64),
}

impl Answer {
    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl AnalysisAction {
    /// The word by which a service file names it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Pause => "pause",
            Self::RollBack => "roll-back",
            Self::Webhook { .. } => "webhook",
        }
    }
}

impl Metric {
    /// The word by which a service file names it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::ErrorShare { .. } => "error-share",
            Self::Latency { .. } => "latency",
            Self::RequestRate { .. } => "request-rate",
            Self::Restarts { .. } => "restarts",
            Self::Cpu { .. } => "cpu",
            Self::Memory { .. } => "memory",
            Self::Differing { .. } => "differing",
        }
    }
}

impl Metric {
    /// Whether gateways count it; what they do not count, agents do.
    #[must_use]
    pub const fn is_from_gateways(&self) -> bool {
        match self {
            Self::ErrorShare { .. }
            | Self::Latency { .. }
            | Self::RequestRate { .. }
            | Self::Differing { .. } => true,
            Self::Restarts { .. } | Self::Cpu { .. } | Self::Memory { .. } => false,
        }
    }

    /// Whether it is what instances use of their nodes, which agents measure every two seconds.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Cpu { .. } | Self::Memory { .. } => true,
            Self::ErrorShare { .. }
            | Self::Latency { .. }
            | Self::RequestRate { .. }
            | Self::Restarts { .. }
            | Self::Differing { .. } => false,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorShare { at_most } => write!(f, "error share at most {at_most}"),
            Self::Latency { quantile, at_most } => write!(f, "latency of {quantile} at most {at_most}"),
            Self::RequestRate { at_least } => write!(f, "at least {at_least} requests a second"),
            Self::Restarts { at_most } => write!(f, "at most {at_most} restarts"),
            Self::Cpu { at_most_percent } => {
                write!(f, "processor time of an instance at most {at_most_percent}%")
            }
            Self::Memory { at_most } => {
                write!(f, "memory of an instance at most {}", Measured::Bytes(*at_most))
            }
            Self::Differing { at_most } => write!(f, "differing answers at most {at_most}"),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{share}"),
            Self::Micros(micros) => write!(f, "{}.{:03} ms", micros / 1000, micros % 1000),
            Self::MilliRate(rate) => write!(f, "{}.{:03}/s", rate / 1000, rate % 1000),
            Self::Count(count) => write!(f, "{count}"),
            Self::MilliCores(milli) => write!(f, "{}.{}%", milli / 10, milli % 10),
            Self::Bytes(bytes) => {
                const KIB: u64 = 1 << 10;
                let (unit, size) = if *bytes < KIB * KIB { ("KiB", KIB) } else { ("MiB", KIB * KIB) };
                write!(f, "{}.{} {unit}", bytes / size, bytes % size * 10 / size)
            }
        }
    }
}
