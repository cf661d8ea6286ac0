//! Values that between them hold every variant and every field both set and unset.

use super::specs::{map, service, spec};
use crate::v1;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::configuration::OnChange;
use baton_model::confinement::{Ability, Controller};
use baton_model::desired::{Node, Release};
use baton_model::event::{Event, Severity};
use baton_model::id::{
    Digest, EventSeq, Generation, InstanceId, NodeName, ReleaseNumber, RolloutId, RunNumber, Version,
};
use baton_model::metrics::{InstanceMetrics, NodeMetrics};
use baton_model::observed::{
    Exit, HookEnd, InstanceObserved, InstanceState, LogDrops, NodeFacts, ReloadObserved, ReloadPhase,
    SwapObserved, SwapPhase,
};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::report::{
    Health, RolloutReport, ServiceReport, StageReport, StageState, Step, Subject, Waiting,
};
use baton_model::rollout::RolloutOutcome;
use baton_model::route::Weight;
use baton_model::spec::{Amount, StopSignal};
use baton_model::status::{
    ConfigurationChange, DeployPlan, NodeStatus, PlacedInstance, PlannedChange, PlannedInstance,
    ReleaseTraffic, ServiceStatus,
};
use baton_model::time::{Millis, UnixMs};
use baton_model::upgrade::{AgentUpgrade, NodeAsked, NodeUpgrade, UpgradeFailure};
use prost::Message;
use std::collections::BTreeMap;

const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}
fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}
fn version(text: &str) -> Version {
    text.parse().unwrap()
}

pub(super) fn releases() -> Vec<Release> {
    let formats = [
        ArtifactFormat::File { name: "server".to_owned() },
        ArtifactFormat::Tar,
        ArtifactFormat::TarGzip,
        ArtifactFormat::TarZstd,
    ];
    let numbered = formats.into_iter().zip(1..);
    numbered
        .map(|(format, number)| Release {
            number: ReleaseNumber(number),
            version: version(&format!("1.{number}")),
            artifact: Artifact {
                digest: Digest([number as u8; 32]),
                size_bytes: number,
                format,
                unpacked_bytes: 0,
            },
            spec: spec("web", number as usize, StopSignal::Sigterm),
            created_at: NOW,
            created_by: "ann".to_owned(),
        })
        .collect()
}

/// None, one, and six instances of two services in two releases each.
pub(super) fn plans() -> Vec<NodePlan> {
    let instance = |name: &str, number: usize, attempt| {
        let release = &releases()[number];
        InstancePlan {
            release: release.number,
            version: release.version.clone(),
            attempt,
            reload: u64::from(attempt) * 7,
            released: RunNumber(u64::from(attempt) * 3),
            artifact: release.artifact.clone(),
            spec: spec(name, number, StopSignal::Sigint),
        }
    };
    let many: BTreeMap<_, _> =
        [("web.1", 0), ("web.2", 1), ("web.10", 0), ("db.1", 0), ("db.2", 0), ("db.3", 3)]
            .into_iter()
            .map(|(text, number)| (id(text), instance(id(text).service.as_str(), number, number as u32)))
            .collect();
    let plan = |instances| NodePlan { node: node("n1"), generation: Generation(9), instances };
    vec![plan(BTreeMap::new()), plan(many.clone().into_iter().take(1).collect()), plan(many)]
}

pub(super) fn nodes() -> Vec<Node> {
    let one = Node {
        name: node("n1"),
        address: "10.0.0.1".to_owned(),
        labels: map(&[("zone", "a")]),
        cordoned: false,
        draining: true,
        joined_at: NOW,
    };
    vec![
        Node {
            address: "::1".to_owned(),
            cordoned: true,
            draining: false,
            labels: BTreeMap::new(),
            ..one.clone()
        },
        one,
    ]
}

fn sample() -> InstanceMetrics {
    InstanceMetrics { cpu: 1.5, memory_bytes: 1 << 40, processes: 3 }
}

pub(super) fn metrics() -> Vec<NodeMetrics> {
    let one = NodeMetrics {
        cpu: 0.25,
        load1: 12.5,
        memory_used_bytes: 1,
        memory_total_bytes: 2,
        disk_free_bytes: 3,
        disk_total_bytes: 4,
        network_rx_bytes_per_s: 0.0,
        network_tx_bytes_per_s: 1e9,
        agent_memory_bytes: 5,
        instances: BTreeMap::from([(id("web.1"), sample())]),
    };
    vec![NodeMetrics::default(), one]
}

pub(super) fn events() -> Vec<Event> {
    let one = |severity| Event {
        seq: EventSeq(1),
        at: NOW,
        severity,
        kind: "instance-exited".to_owned(),
        message: "web.1 ended".to_owned(),
        service: Some(service("web")),
        node: Some(node("n1")),
        instance: Some(id("web.1")),
        fields: map(&[("code", "1")]),
    };
    let bare =
        Event { service: None, node: None, instance: None, fields: BTreeMap::new(), ..one(Severity::Info) };
    vec![bare, one(Severity::Info), one(Severity::Warning), one(Severity::Error)]
}

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

fn stages() -> Vec<StageReport> {
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

/// Every way in which a workload ends.
pub(super) fn exits() -> Vec<Exit> {
    let hooks = [HookEnd::Code(3), HookEnd::Signal(9), HookEnd::Exec(2), HookEnd::Timeout];
    let mut exits = vec![
        Exit::Code(-1),
        Exit::Signal(9),
        Exit::Exec(2),
        Exit::CoreDump(11),
        Exit::HostDown,
        Exit::OutOfMemory,
        Exit::Watchdog,
        Exit::NotLive,
        Exit::StartDeadline,
        Exit::StopDeadline,
    ];
    exits.extend(hooks.map(Exit::BeforeStart));
    exits
}

/// One instance for each state; between them every phase of a swap and every kind of exit.
pub(super) fn instances() -> Vec<(InstanceId, InstanceObserved)> {
    let states = [
        InstanceState::Absent,
        InstanceState::Fetching,
        InstanceState::Staged,
        InstanceState::Starting,
        InstanceState::Ready,
        InstanceState::Draining,
        InstanceState::Stopped,
        InstanceState::Failed,
    ];
    let reloads = [ReloadPhase::Running, ReloadPhase::Done, ReloadPhase::Failed];
    let phases = [
        SwapPhase::Staging,
        SwapPhase::StoppingOld,
        SwapPhase::Confirming,
        SwapPhase::DrainingOld,
        SwapPhase::Reverting,
        SwapPhase::Refreshing,
        SwapPhase::Failed,
    ];
    let exits = exits();
    let numbered = states.into_iter().enumerate();
    numbered
        .map(|(n, state)| {
            let swap = phases.get(n).map(|phase| SwapObserved {
                to: ReleaseNumber(2),
                attempt: 1,
                phase: *phase,
                reason: "because".to_owned(),
            });
            let instance = InstanceObserved {
                release: ReleaseNumber(1),
                state,
                ready_since: (state == InstanceState::Ready).then_some(UnixMs(NOW.0 - 5000)),
                run: RunNumber(n as u64),
                pid: (n > 2).then_some(4242),
                ports: BTreeMap::from([("http".to_owned(), 1), ("admin".to_owned(), u16::MAX)]),
                restarts: 7,
                crash_loop: n % 2 == 0,
                last_exit: exits.get(n).copied(),
                reason: String::new(),
                swap,
                status: format!("serves {n}"),
                reload: reloads.get(n).map(|phase| ReloadObserved {
                    number: u64::MAX,
                    phase: *phase,
                    reason: "its command failed".to_owned(),
                }),
                log_drops: LogDrops { lines: n as u64, bytes: u64::MAX, journal_lines: n as u64 / 2 },
            };
            (id(&format!("web.{}", n + 1)), instance)
        })
        .collect()
}

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
    }
}

pub(super) fn services() -> Vec<ServiceStatus> {
    let one = ServiceStatus {
        name: service("web"),
        report: reports().pop().unwrap(),
        instances: placed(),
        releases: releases(),
        traffic: vec![traffic(Some("1.0".parse().unwrap())), traffic(None)],
        now: NOW,
        removed: true,
    };
    vec![
        ServiceStatus {
            instances: vec![],
            releases: vec![],
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

/// Good messages of every kind, as bytes.
pub(super) fn encoded() -> Vec<Vec<u8>> {
    let observed = instances().into_iter().map(|(id, one)| super::instance_to_wire(&id, one, NOW)).collect();
    vec![
        v1::ServiceSpec::from(super::specs::specs().pop().unwrap()).encode_to_vec(),
        v1::NodePlan::from(plans().pop().unwrap()).encode_to_vec(),
        v1::Node::from(nodes().pop().unwrap()).encode_to_vec(),
        v1::NodeMetrics::from(metrics().pop().unwrap()).encode_to_vec(),
        v1::Event::from(events().pop().unwrap()).encode_to_vec(),
        v1::ServiceStatus::from(services().pop().unwrap()).encode_to_vec(),
        v1::NodeStatus::from(node_statuses().pop().unwrap()).encode_to_vec(),
        v1::DeployPlan::from(deploy_plans().pop().unwrap()).encode_to_vec(),
        v1::RouteTable::from(super::routes::tables().pop().unwrap()).encode_to_vec(),
        v1::Evidence::from(super::routes::evidence().pop().unwrap()).encode_to_vec(),
        v1::GatewayState::from(super::routes::states().pop().unwrap()).encode_to_vec(),
        v1::Observed { generation: 1, instances: observed }.encode_to_vec(),
    ]
}

pub(super) fn upgrades() -> Vec<AgentUpgrade> {
    let asked = |back_at, well_since| {
        let ready = ["web.1".parse().unwrap()].into();
        NodeUpgrade::Asked(NodeAsked { at: UnixMs(4), ready, back_at, well_since })
    };
    let nodes = [
        ("a", NodeUpgrade::Waiting),
        ("b", asked(None, None)),
        ("c", asked(Some(UnixMs(5)), Some(UnixMs(6)))),
        ("d", NodeUpgrade::Done { at: UnixMs(7) }),
        ("e", NodeUpgrade::Failed { reason: "silent".to_owned() }),
    ];
    let one = AgentUpgrade {
        request: 2,
        version: "2.0".parse().unwrap(),
        artifact: Artifact {
            digest: Digest([7; 32]),
            size_bytes: 1,
            format: ArtifactFormat::File { name: "baton".to_owned() },
            unpacked_bytes: 1,
        },
        batch: Amount::Percent(25),
        requested_at: UnixMs(3),
        requested_by: "alice".to_owned(),
        nodes: nodes.map(|(name, node)| (name.parse().unwrap(), node)).into(),
        paused: Some("e: silent".to_owned()),
        cancelled: true,
    };
    vec![AgentUpgrade { paused: None, cancelled: false, ..one.clone() }, one]
}
