//! What is counted while two releases are compared: each gateway's counts since it began to compare, whole.
//!
//! A gateway says all of it each time, so that a report that is lost or comes twice changes nothing, and a coordinator
//! that starts anew is soon told what it missed.

use super::StatusCounts;
use super::histogram::Histogram;
use super::sketch::Sketch;
use crate::id::RolloutId;
use serde::{Deserialize, Serialize};

/// What one gateway counted of one comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialEvidence {
    /// A random number of whoever counted: a gateway that restarts counts from nothing, under another one.
    pub source: u64,
    /// The rollout whose releases are compared.
    pub rollout: RolloutId,
    /// The counts.
    pub counts: TrialCounts,
    /// The clients of the release before.
    pub control: Sketch,
    /// The clients of the new release.
    pub treatment: Sketch,
}

/// The counts of both arms of a comparison, and of copies where it is by copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrialCounts {
    /// The release before: of those clients that take part, or of the requests whose copy was answered.
    pub control: ArmCounts,
    /// The new release.
    pub treatment: ArmCounts,
    /// What became of copies.
    pub copies: CopyCounts,
}

/// The counts of one arm. A request counts once, as its client saw it, however often it was tried; one whose client went
/// away before an answer does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmCounts {
    /// Answers by status class.
    pub status: StatusCounts,
    /// Requests that no instance answered: the gateway had to, with 502 to 504.
    pub failures: u64,
    /// From the request's coming in to the head of the answer.
    pub latency: Histogram,
}

/// What became of the requests that were drawn to be copied, and how the answers compare.
///
/// `drawn` is `sent` and all that was `not_...` together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CopyCounts {
    /// Requests that were to be copied: the mirror's share of all.
    pub drawn: u64,
    /// Copies that were sent.
    pub sent: u64,
    /// Not sent: the method is not safe, or the connection was to be upgraded.
    pub not_safe: u64,
    /// Not sent: the body is larger than may be copied, or of unknown length.
    pub not_small: u64,
    /// Not sent: as many as may be were in flight.
    pub not_free: u64,
    /// Not sent: no instance to send it to.
    pub not_there: u64,
    /// Sent, and not answered: no connection, no whole answer in time, or a reset.
    pub unanswered: u64,
    /// Compared: the client's answer was whole too, and the copy was answered or is known not to be.
    pub compared: u64,
    /// Of these: only the client was answered.
    pub differs_unanswered: u64,
    /// Of these: the two answers have another status.
    pub differs_status: u64,
    /// Of these: the same status, and bodies that differ in more than noise.
    pub differs_body: u64,
    /// Of these: bodies that differ in nothing but what the same release says differently each time.
    pub noise: u64,
}

impl ArmCounts {
    /// Requests that were answered, by whomever.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.status.total() + self.failures
    }

    /// Of these: 500 to 599, or not by an instance.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.status.server_error + self.failures
    }

    /// Adds another gateway's.
    pub fn merge(&mut self, other: &Self) {
        self.status.merge(&other.status);
        self.failures += other.failures;
        self.latency.merge(&other.latency);
    }
}

impl CopyCounts {
    /// Copies that should have been made and were not.
    #[must_use]
    pub const fn not_sent(&self) -> u64 {
        self.not_safe + self.not_small + self.not_free + self.not_there
    }

    /// Copies whose answer was another one than the client's.
    #[must_use]
    pub const fn differing(&self) -> u64 {
        self.differs_unanswered + self.differs_status + self.differs_body
    }

    /// Adds another gateway's.
    pub const fn merge(&mut self, other: &Self) {
        self.drawn += other.drawn;
        self.sent += other.sent;
        self.not_safe += other.not_safe;
        self.not_small += other.not_small;
        self.not_free += other.not_free;
        self.not_there += other.not_there;
        self.unanswered += other.unanswered;
        self.compared += other.compared;
        self.differs_unanswered += other.differs_unanswered;
        self.differs_status += other.differs_status;
        self.differs_body += other.differs_body;
        self.noise += other.noise;
    }
}

impl TrialCounts {
    /// Adds another gateway's.
    pub fn merge(&mut self, other: &Self) {
        self.control.merge(&other.control);
        self.treatment.merge(&other.treatment);
        self.copies.merge(&other.copies);
    }
}

/// What all gateways counted of a comparison together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrialObserved {
    /// The rollout whose releases are compared.
    pub rollout: RolloutId,
    /// How many gateways counted; one that restarted counts twice.
    pub sources: u32,
    /// The counts.
    pub counts: TrialCounts,
    /// How many clients of the release before, about.
    pub control_clients: u64,
    /// How many of the new release.
    pub treatment_clients: u64,
}
