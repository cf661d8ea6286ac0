//! Values that between them hold every variant and every field both set and unset: what an operator wants. What nodes
//! report is in `observed`, what is decided in `reports`, what is shown of it in `statuses`.

use super::specs::{map, service, spec};
use super::{observed, statuses};
use crate::v1;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::desired::{Node, Release};
use baton_model::event::{Event, Severity};
use baton_model::id::{
    Digest, EventSeq, Generation, InstanceId, NodeName, ReleaseNumber, RunNumber, Version,
};
use baton_model::plan::{InstancePlan, NodePlan};
use baton_model::spec::{Amount, StopSignal};
use baton_model::time::UnixMs;
use baton_model::upgrade::{AgentUpgrade, NodeAsked, NodeUpgrade};
use prost::Message;
use std::collections::BTreeMap;

pub(super) const NOW: UnixMs = UnixMs(1_700_000_000_000);

pub(super) fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}
pub(super) fn node(text: &str) -> NodeName {
    text.parse().unwrap()
}
pub(super) fn version(text: &str) -> Version {
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

/// Good messages of every kind, as bytes.
pub(super) fn encoded() -> Vec<Vec<u8>> {
    let observed =
        observed::instances().into_iter().map(|(id, one)| super::instance_to_wire(&id, one, NOW)).collect();
    vec![
        v1::ServiceSpec::from(super::specs::specs().pop().unwrap()).encode_to_vec(),
        v1::NodePlan::from(plans().pop().unwrap()).encode_to_vec(),
        v1::Node::from(nodes().pop().unwrap()).encode_to_vec(),
        v1::NodeMetrics::from(observed::metrics().pop().unwrap()).encode_to_vec(),
        v1::Event::from(events().pop().unwrap()).encode_to_vec(),
        v1::ServiceStatus::from(statuses::services().pop().unwrap()).encode_to_vec(),
        v1::NodeStatus::from(statuses::node_statuses().pop().unwrap()).encode_to_vec(),
        v1::DeployPlan::from(statuses::deploy_plans().pop().unwrap()).encode_to_vec(),
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
