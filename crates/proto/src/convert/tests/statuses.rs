//! What an operator is shown of services, nodes and deploys.

use super::observed::{instances, metrics, sample};
use super::reports::{reports, stages, waitings};
use super::samples::{NOW, id, node, nodes, releases, version};
use super::specs::service;
use baton_model::configuration::OnChange;
use baton_model::confinement::{Ability, Controller};
use baton_model::id::{Digest, Generation, ReleaseNumber, Version};
use baton_model::observed::NodeFacts;
use baton_model::report::ServiceReport;
use baton_model::route::Weight;
use baton_model::status::{
    ConfigurationChange, DeployPlan, NodeStatus, PlacedInstance, PlannedChange, PlannedInstance,
    ReleaseTraffic, ServiceStatus, UndeliveredWebhook,
};
use baton_model::time::{Millis, UnixMs};
use baton_model::upgrade::UpgradeFailure;

fn placed() -> Vec<PlacedInstance> {
    let numbered = instances().into_iter().enumerate();
    numbered
        .map(|(n, (id, observed))| PlacedInstance {
            id,
            node: node("n1"),
            wanted_release: ReleaseNumber(2),
            wanted_version: version("2.0"),
            node_silent: n % 2 == 0,
            observed: (n > 0).then_some(observed),
            metrics: (n > 1).then(sample),
        })
        .collect()
}

fn traffic(version: Option<Version>) -> ReleaseTraffic {
    ReleaseTraffic {
        release: ReleaseNumber(1),
        version,
        weight: Weight(9_999),
        rules: vec!["header:x-staff".to_owned()],
        instances: 3,
        span: Millis(10_000),
        requests: u64::MAX,
        errors: 2,
        in_flight: 3,
        p50_ms: 0.5,
        p99_ms: 99.0,
        mirrored: 4,
        unmirrored: 5,
        differing: 6,
        diverted: 7,
        left_out: 8,
    }
}

fn webhook() -> UndeliveredWebhook {
    UndeliveredWebhook {
        target: "https://hooks.example.com".to_owned(),
        threshold: "errors".to_owned(),
        attempts: 3,
        reason: "it answered 503".to_owned(),
        next_at: UnixMs(4_000),
        given_up_after: UnixMs(3_600_000),
    }
}

pub(super) fn services() -> Vec<ServiceStatus> {
    let one = ServiceStatus {
        name: service("web"),
        report: reports().pop().unwrap(),
        instances: placed(),
        releases: releases(),
        traffic: vec![traffic(Some("1.0".parse().unwrap())), traffic(None)],
        webhooks: vec![webhook()],
        now: NOW,
        removed: true,
    };
    vec![
        ServiceStatus {
            instances: vec![],
            releases: vec![],
            webhooks: vec![],
            removed: false,
            report: ServiceReport::default(),
            ..one.clone()
        },
        one,
    ]
}

pub(super) fn node_statuses() -> Vec<NodeStatus> {
    let facts = NodeFacts {
        agent_version: "0.1.0".to_owned(),
        boot_id: "b".to_owned(),
        kernel: "6.1".to_owned(),
        arch: "x86_64".to_owned(),
        containment: "cgroup2".to_owned(),
        cpus: 2,
        memory_bytes: 1,
        ability: Some(Ability {
            controllers: Controller::ALL.into(),
            users: true,
            capabilities: true,
            mounts: true,
            open_files_max: 1 << 20,
            nice_min: -20,
            journal: true,
        }),
        program: Some(Digest([7; 32])),
        upgrade_failure: Some(UpgradeFailure { request: 3, reason: "it does not start".to_owned() }),
    };
    let one = NodeStatus {
        node: nodes().pop().unwrap(),
        connected: true,
        reported: true,
        silent_for: None,
        facts,
        plan_generation: Generation(3),
        acked_generation: Generation(2),
        instances: placed(),
        metrics: metrics().pop(),
        now: NOW,
    };
    vec![
        NodeStatus {
            connected: false,
            reported: false,
            silent_for: Some(Millis(0)),
            facts: NodeFacts::default(),
            metrics: None,
            instances: vec![],
            ..one.clone()
        },
        one,
    ]
}

pub(super) fn deploy_plans() -> Vec<DeployPlan> {
    let one = DeployPlan {
        first: true,
        unchanged: true,
        changes: vec!["exec".to_owned()],
        stages: stages(),
        new_instances: vec![PlannedInstance { instance: id("web.1"), node: node("n1") }],
        waiting: waitings(),
        configuration: vec![
            ConfigurationChange {
                name: "app.conf".to_owned(),
                secret: false,
                from_revision: None,
                to_revision: None,
                diff: "-a\n+b\n".to_owned(),
                on_change: OnChange::Nothing,
            },
            ConfigurationChange {
                name: "key".to_owned(),
                secret: true,
                from_revision: Some(1),
                to_revision: Some(2),
                diff: String::new(),
                on_change: OnChange::Restart,
            },
        ],
        change: Some(PlannedChange::Refresh),
    };
    let swap = DeployPlan { change: Some(PlannedChange::Swap), ..DeployPlan::default() };
    vec![DeployPlan::default(), swap, one]
}
