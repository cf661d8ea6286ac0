//! Comparisons of two releases, with every field set and unset.

use baton_model::evidence::StatusCounts;
use baton_model::evidence::histogram::Histogram;
use baton_model::evidence::sketch::Sketch;
use baton_model::evidence::trial::{ArmCounts, CopyCounts, TrialCounts, TrialEvidence};
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::rollout::{Answer, ArmReport, Comparison, Estimate, LatencyEffect, SampleRatio};
use baton_model::route::{Between, Key, Weight};
use baton_model::time::UnixMs;

const COPIES: CopyCounts = CopyCounts {
    drawn: 1,
    sent: 2,
    not_safe: 3,
    not_small: 4,
    not_free: 5,
    not_there: 6,
    unanswered: 7,
    compared: 8,
    differs_unanswered: 9,
    differs_status: 10,
    differs_body: 11,
    noise: 12,
};

pub(super) fn evidence() -> TrialEvidence {
    let mut latency = Histogram::default();
    latency.record_us(1_000);
    let status = StatusCounts { successful: 1, ..StatusCounts::default() };
    let treatment = ArmCounts { status, failures: 2, latency };
    let mut clients = Sketch::default();
    clients.add(7);
    TrialEvidence {
        source: u64::MAX,
        rollout: RolloutId(3),
        counts: TrialCounts { control: ArmCounts::default(), treatment, copies: COPIES },
        control: Sketch::default(),
        treatment: clients,
    }
}

fn arm(release: u64, error_share: Option<Estimate>) -> ArmReport {
    ArmReport {
        release: ReleaseNumber(release),
        clients: 4,
        requests: 1 << 53,
        errors: 5,
        error_share,
        p50_us: 6,
        p90_us: 7,
        p99_us: 8,
    }
}

pub(super) fn by_clients() -> Comparison {
    let estimate = Estimate { low: -1, value: 2, high: i64::MAX };
    Comparison {
        between: Between::Clients {
            key: Key::Cookie("user".to_owned()),
            share: Weight(5_000),
            test: RolloutId(0),
        },
        since: UnixMs(1),
        until: UnixMs(2),
        sources: 3,
        control: arm(1, Some(estimate)),
        treatment: arm(2, None),
        errors: Some(estimate),
        latency: vec![LatencyEffect { percent: 99, slower_us: estimate }],
        sample_ratio: Some(SampleRatio {
            expected: 500_000,
            observed: 400_000,
            chance: 0,
            answer: Answer::Fail,
        }),
        copies: None,
        conclusion: "not to be trusted".to_owned(),
    }
}

pub(super) fn by_copies() -> Comparison {
    Comparison {
        between: Between::Copies,
        errors: None,
        latency: Vec::new(),
        sample_ratio: None,
        copies: Some(COPIES),
        ..by_clients()
    }
}
