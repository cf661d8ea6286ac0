//! How the services of a seed are rolled out, where gateways are there to share requests out.

use super::random::Random;
use baton_model::rollout::{
    AbTest, AfterDark, AnalysisAction, BlueGreen, Canary, CanaryStep, DarkLaunch, Metric, Preview, Strategy,
    Threshold,
};
use baton_model::route::{Key, Weight};
use baton_model::spec::{Count, PortKind, ServiceSpec};
use baton_model::time::Millis;

/// Draws a strategy that a service file could have. A second set needs ports that are picked for each run.
pub(crate) fn draw(random: &mut Random, spec: &mut ServiceSpec) {
    let several = spec.placement.count != Count::Replicas(1);
    spec.rollout.strategy = match random.between(0, 9) {
        0..=2 => blue_green(random),
        3 => dark(random),
        4..=6 if several => canary(random),
        7 if several => Strategy::Ab(AbTest {
            key: Key::Address,
            share: Weight(3_300),
            duration: Millis::secs(random.between(1, 20)),
        }),
        _ => Strategy::Rolling,
    };
    if spec.rollout.strategy.has_second_set() {
        spec.ports.values_mut().for_each(|port| port.kind = PortKind::Dynamic);
    }
    if spec.rollout.strategy != Strategy::Rolling {
        spec.rollout.zone_at_a_time = false;
    }
    if random.percent(25) {
        spec.rollout.analysis = vec![Threshold {
            name: "restarts".to_owned(),
            metric: Metric::Restarts { at_most: u32::try_from(random.between(0, 2)).unwrap_or(0) },
            window: Millis::secs(10),
            requests_min: 0,
            action: if random.percent(50) { AnalysisAction::RollBack } else { AnalysisAction::Pause },
        }];
    }
}

fn canary(random: &mut Random) -> Strategy {
    let mut step = |weight| CanaryStep {
        weight: Weight(weight),
        instances: None,
        bake: Millis::secs(random.between(0, 10)),
    };
    let steps = [100, 2_500, 10_000].map(&mut step).to_vec();
    let in_cohort = random.percent(40);
    let conditions = ["header:x-staff".parse().expect("a condition")];
    let cohort_step = CanaryStep { weight: Weight(5_000), instances: None, bake: Millis::secs(1) };
    Strategy::Canary(Canary {
        cohort: if in_cohort { conditions.to_vec() } else { Vec::new() },
        cohort_steps: if in_cohort { vec![cohort_step] } else { Vec::new() },
        steps,
    })
}

fn blue_green(random: &mut Random) -> Strategy {
    Strategy::BlueGreen(BlueGreen {
        preview: Preview { header: Some("baton-preview".to_owned()), host: None },
        bake: Millis::secs(random.between(0, 20)),
        keep_warm: Millis::secs(random.between(0, 60)),
    })
}

fn dark(random: &mut Random) -> Strategy {
    Strategy::Dark(DarkLaunch {
        share: Weight(1_000),
        duration: Millis::secs(random.between(1, 20)),
        body_bytes_max: 1024,
        in_flight_max: 8,
        unsafe_methods: false,
        compare_bodies: false,
        then: if random.percent(60) { AfterDark::Promote } else { AfterDark::Wait },
        preview: Preview::default(),
        keep_warm: Millis::secs(random.between(0, 30)),
    })
}
