//! Two releases compared: what was counted of each, and what may be concluded. Kept with the stage that compared them.

use crate::evidence::trial::CopyCounts;
use crate::id::ReleaseNumber;
use crate::rollout::Answer;
use crate::route::Between;
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Two releases compared. Every figure can be worked out again from the counts beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// By what they are compared.
    pub between: Between,
    /// When it began.
    pub since: UnixMs,
    /// When it ended, or when this was so.
    pub until: UnixMs,
    /// Gateways that counted; one that restarted counts twice.
    pub sources: u32,
    /// The release before.
    pub control: ArmReport,
    /// The new one.
    pub treatment: ArmReport,
    /// How much larger the new release's share of errors is; `None` while one of them has no requests.
    pub errors: Option<Estimate>,
    /// How much slower it is, by quantile.
    pub latency: Vec<LatencyEffect>,
    /// Whether clients fell into the two groups as the split says; `None` where it is not clients that are compared.
    pub sample_ratio: Option<SampleRatio>,
    /// What became of copies, where it is by copies.
    pub copies: Option<CopyCounts>,
    /// What may be concluded, for people.
    pub conclusion: String,
}

/// What was counted of one release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmReport {
    /// The release.
    pub release: ReleaseNumber,
    /// About how many different clients; zero where it is not clients that are compared.
    pub clients: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Of these: answered 500 to 599, or not by an instance.
    pub errors: u64,
    /// The share of errors, in millionths, with its interval; `None` without requests.
    pub error_share: Option<Estimate>,
    /// Half of the answers began within this time, in microseconds.
    pub p50_us: u64,
    /// Nine of ten did.
    pub p90_us: u64,
    /// All but one in a hundred did.
    pub p99_us: u64,
}

/// A figure and the interval that holds the true one with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The lower end.
    pub low: i64,
    /// As measured.
    pub value: i64,
    /// The upper end.
    pub high: i64,
}

/// How much slower the new release is at one quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyEffect {
    /// The quantile in percent.
    pub percent: u32,
    /// The difference in microseconds: more than zero is slower.
    pub slower_us: Estimate,
}

/// Whether clients fell into the two groups as the split says they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRatio {
    /// The share of clients that should have got the new release, in millionths.
    pub expected: i64,
    /// The share that did.
    pub observed: i64,
    /// How likely so great a difference is where nothing is wrong, in millionths: zero is less than one in a million.
    pub chance: i64,
    /// Fail: whatever chose the clients is broken, and nothing that is measured of them can be trusted. Inconclusive: too
    /// few to tell.
    pub answer: Answer,
}

impl Estimate {
    /// Whether more than zero is all that is left.
    #[must_use]
    pub const fn is_above_zero(&self) -> bool {
        self.low > 0
    }

    /// Whether less than zero is all that is left.
    #[must_use]
    pub const fn is_below_zero(&self) -> bool {
        self.high < 0
    }
}

/// Millionths as percent: `1.25%`.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub i64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = (self.0.abs() + 50) / 100;
        let sign = if self.0 < 0 && hundredths > 0 { "-" } else { "" };
        f.pad(&format!("{sign}{}.{:02}%", hundredths / 100, hundredths % 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_read_as_percent() {
        let text = |millionths| Percent(millionths).to_string();
        assert_eq!(text(12_500), "1.25%");
        assert_eq!(text(-12_449), "-1.24%");
        assert_eq!(text(-49), "0.00%");
        assert_eq!(text(1_000_000), "100.00%");
    }
}
