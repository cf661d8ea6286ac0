//! Strategies, thresholds and verdicts that between them hold every variant and every field both set and unset.

use baton_model::rollout::{
    AbTest, AfterDark, AnalysisAction, Answer, BlueGreen, Canary, CanaryStep, DarkLaunch, Measured, Metric,
    Preview, Strategy, Threshold, Verdict,
};
use baton_model::route::{Condition, Key, Weight};
use baton_model::spec::Amount;
use baton_model::time::{Millis, UnixMs};

pub(super) fn strategy(n: usize) -> Strategy {
    let step = |weight| CanaryStep {
        weight: Weight(weight),
        instances: (weight > 1).then_some(Amount::Percent(5)),
        bake: Millis(u64::MAX),
    };
    let name = || Some("preview".to_owned());
    let previews = [Preview { header: name(), host: None }, Preview { header: None, host: name() }];
    let preview = previews[n % 2].clone();
    match n % 5 {
        0 => Strategy::Rolling,
        1 => Strategy::Canary(Canary {
            cohort: vec![Condition::Path { prefix: "/api".to_owned() }],
            cohort_steps: vec![step(10_000)],
            steps: vec![step(1), step(10_000)],
        }),
        2 => Strategy::BlueGreen(BlueGreen { preview, bake: Millis(1), keep_warm: Millis(0) }),
        3 => Strategy::Ab(AbTest { key: Key::Address, share: Weight(5_000), duration: Millis(1) }),
        _ => Strategy::Dark(DarkLaunch {
            share: Weight::ALL,
            duration: Millis(1),
            body_bytes_max: u64::MAX,
            in_flight_max: u32::MAX,
            unsafe_methods: n.is_multiple_of(2),
            compare_bodies: n % 2 == 1,
            then: if n.is_multiple_of(2) { AfterDark::Wait } else { AfterDark::Promote },
            preview,
            keep_warm: Millis(1),
        }),
    }
}

pub(super) fn thresholds(n: usize) -> Vec<Threshold> {
    let metrics = [
        Metric::ErrorShare { at_most: Weight(1) },
        Metric::Latency { quantile: Weight(9_990), at_most: Millis(u64::MAX) },
        Metric::RequestRate { at_least: u32::MAX },
        Metric::Restarts { at_most: 0 },
        Metric::Differing { at_most: Weight::ALL },
        Metric::Cpu { at_most_percent: 150 },
        Metric::Memory { at_most: u64::MAX },
    ];
    let actions = [
        AnalysisAction::Hold,
        AnalysisAction::Pause,
        AnalysisAction::RollBack,
        AnalysisAction::Webhook { url: "https://hooks/".to_owned() },
    ];
    // There is one more of them than of what else a specification is made of.
    let count = if n + 1 < metrics.len() { n } else { metrics.len() };
    let all = metrics.into_iter().zip(actions.into_iter().cycle()).take(count);
    all.map(|(metric, action)| Threshold {
        name: metric.word().to_owned(),
        metric,
        window: Millis(60_000),
        requests_min: 100,
        action,
    })
    .collect()
}

pub(super) fn verdicts() -> Vec<Verdict> {
    let answers = [Answer::Pass, Answer::Fail, Answer::Inconclusive, Answer::Pass, Answer::Pass].into_iter();
    let measured = [
        Some(Measured::Share(Weight(125))),
        Some(Measured::Micros(1)),
        None,
        Some(Measured::MilliRate(1)),
        Some(Measured::Count(0)),
        Some(Measured::MilliCores(812)),
        Some(Measured::Bytes(1 << 53)),
    ];
    let verdict = |(answer, measured): (_, Option<Measured>)| Verdict {
        name: "errors".to_owned(),
        answer,
        at: UnixMs(2),
        since: UnixMs(1),
        // Where nobody has asked yet, there is nothing to measure.
        requests: if measured.is_some() { 1 << 53 } else { 0 },
        measured,
        text: "1.25%".to_owned(),
    };
    answers.cycle().zip(measured).map(verdict).collect()
}
