//! Reports of services and rollouts in every state.

use super::samples::{NOW, id, node, version};
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::report::{
    Health, RolloutReport, ServiceReport, StageReport, StageState, Step, Subject, Waiting,
};
use baton_model::rollout::RolloutOutcome;
use baton_model::route::Weight;
use std::collections::BTreeMap;

pub(super) fn rollouts() -> Vec<RolloutReport> {
    let outcomes = [
        RolloutOutcome::Running,
        RolloutOutcome::Paused,
        RolloutOutcome::RollingBack,
        RolloutOutcome::Succeeded,
        RolloutOutcome::RolledBack,
        RolloutOutcome::Superseded,
        RolloutOutcome::Failed,
    ];
    let numbered = outcomes.into_iter().zip(1..);
    numbered
        .map(|(outcome, number)| RolloutReport {
            id: RolloutId(number),
            from: (number > 1).then_some(ReleaseNumber(number)),
            to: ReleaseNumber(2),
            from_version: (number > 1).then(|| version("1.0")),
            to_version: version("2.0"),
            outcome,
            reason: String::new(),
            started_at: NOW,
            ended_at: outcome.is_final().then_some(NOW),
            stages: stages(),
        })
        .collect()
}

pub(super) fn stages() -> Vec<StageReport> {
    let states =
        [StageState::Pending, StageState::Running, StageState::Baking, StageState::Done, StageState::Failed];
    let steps = [Step::Pending, Step::Changing, Step::Done, Step::Failed, Step::Deferred];
    let instances: BTreeMap<_, _> =
        steps.into_iter().zip(1..).map(|(step, n)| (id(&format!("web.{n}")), step)).collect();
    let numbered = states.into_iter().zip(1..);
    numbered
        .map(|(state, number)| StageReport {
            number,
            title: format!("batch {number}"),
            state,
            instances: instances.clone(),
            started_at: (number > 1).then_some(NOW),
            ended_at: (number > 3).then_some(NOW),
            step: number - 1,
            weight: (number > 2).then_some(Weight(250)),
            verdicts: if number > 3 { super::strategies::verdicts() } else { Vec::new() },
            comparison: match number {
                4 => Some(super::trials::by_clients()),
                5 => Some(super::trials::by_copies()),
                _ => None,
            },
        })
        .collect()
}

pub(super) fn waitings() -> Vec<Waiting> {
    let subjects = [
        Subject::Service,
        Subject::Rollout,
        Subject::Stage(2),
        Subject::Instance(id("web.1")),
        Subject::Node(node("n1")),
    ];
    subjects
        .into_iter()
        .map(|subject| Waiting {
            until: matches!(subject, Subject::Service).then_some(NOW),
            subject,
            gate: "bake".to_owned(),
            reason: "3 s more".to_owned(),
        })
        .collect()
}

pub(super) fn reports() -> Vec<ServiceReport> {
    let healths = [Health::Unknown, Health::Healthy, Health::Changing, Health::Degraded, Health::Down];
    let mut reports = vec![ServiceReport::default()];
    reports.extend(healths.into_iter().map(|health| ServiceReport {
        health,
        stable: Some(ReleaseNumber(1)),
        wanted: 3,
        ready: 2,
        floor: 1,
        rollout: rollouts().pop(),
        waiting: waitings(),
    }));
    reports
}
