//! Evidence over time: spans of one service, each with what was counted of each release.

use super::ReleaseEvidence;
use crate::id::ReleaseNumber;
use crate::time::{Millis, UnixMs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Spans in the order of their time. They are shared, since whoever decides looks at the same ones every second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceSeries {
    spans: VecDeque<Arc<Span>>,
}

/// What all gateways counted in a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub from: UnixMs,
    /// When it ended.
    pub to: UnixMs,
    /// What was counted.
    pub releases: BTreeMap<ReleaseNumber, ReleaseEvidence>,
}

impl EvidenceSeries {
    /// Adds the latest span.
    pub fn push(&mut self, from: UnixMs, to: UnixMs, releases: BTreeMap<ReleaseNumber, ReleaseEvidence>) {
        self.spans.push_back(Arc::new(Span { from, to, releases }));
    }

    /// Forgets the spans that ended before `oldest`.
    pub fn forget_before(&mut self, oldest: UnixMs) {
        while self.spans.front().is_some_and(|span| span.to < oldest) {
            self.spans.pop_front();
        }
    }

    /// What was counted of a release in the spans that began at `since` or later. A span that began before is left out:
    /// a part of it was counted under other circumstances.
    #[must_use]
    pub fn since(&self, release: ReleaseNumber, since: UnixMs) -> ReleaseEvidence {
        let mut sum = ReleaseEvidence::default();
        let mut latest = None;
        let recent = self.spans.iter().rev().take_while(|span| span.from >= since);
        for evidence in recent.filter_map(|span| span.releases.get(&release)) {
            // Walked backwards: what is in flight or left out is that of the latest.
            let now = *latest.get_or_insert((evidence.in_flight, evidence.left_out));
            sum.merge(evidence);
            (sum.in_flight, sum.left_out) = now;
        }
        sum
    }

    /// How long the spans are together that began at `since` or later: for so long somebody counted, whether there were
    /// requests or not. Where two of them overlap, their time counts once.
    #[must_use]
    pub fn covered(&self, since: UnixMs) -> Millis {
        let mut begun = UnixMs(u64::MAX);
        let mut sum = Millis::ZERO;
        for span in self.spans.iter().rev().take_while(|span| span.from >= since) {
            sum = Millis(sum.0 + span.to.min(begun).since(span.from).0);
            begun = begun.min(span.from);
        }
        sum
    }

    /// The latest span.
    #[must_use]
    pub fn latest(&self) -> Option<&Span> {
        self.spans.back().map(AsRef::as_ref)
    }

    /// How many spans it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}
