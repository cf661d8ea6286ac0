//! What the coordinator counts of itself, for its page of metrics.

use baton_model::event::{Event, Severity};
use baton_model::evidence::histogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a rollout ends: the kind of its event, and the word of its label.
pub(crate) const ENDS: [(&str, &str); 4] = [
    ("rollout-succeeded", "succeeded"),
    ("rolled-back", "rolled-back"),
    ("rollout-superseded", "superseded"),
    ("rollout-ended", "failed"),
];
/// How much an event matters, and the word of its label.
pub(crate) const SEVERITIES: [(Severity, &str); 3] =
    [(Severity::Info, "info"), (Severity::Warning, "warning"), (Severity::Error, "error")];

/// What is counted from the start of the process on.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: [AtomicU64; SEVERITIES.len()],
    pub(crate) started: AtomicU64,
    pub(crate) ended: [AtomicU64; ENDS.len()],
    pub(crate) conflicts: AtomicU64,
    pub(crate) failures: AtomicU64,
    decisions: Mutex<Histogram>,
}

impl Counts {
    /// Events that go into the journal.
    pub(crate) fn happened(&self, events: &[Event]) {
        for event in events {
            if let Some(at) = SEVERITIES.iter().position(|(severity, _)| *severity == event.severity) {
                self.events[at].fetch_add(1, Ordering::Relaxed);
            }
            if let Some(at) = ENDS.iter().position(|(kind, _)| *kind == event.kind) {
                self.ended[at].fetch_add(1, Ordering::Relaxed);
            }
            if event.kind == "rollout-started" {
                self.started.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A decision was made, which took this long.
    pub(crate) fn decided(&self, took: Duration) {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).record(took);
    }

    /// How long decisions took.
    pub(crate) fn decisions(&self) -> Histogram {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A write met a change by somebody else: decided again.
    pub(crate) fn conflicted(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// The store could not be read or written.
    pub(crate) fn store_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
