//! What the nodes are given beside their plans: where the instances of a service are, and which secrets it has.
//!
//! It is no part of a decision and no part of a plan: peers move without one, and a plan is kept on a node's disk. It is
//! made anew after each decision, and sent where it differs from what a session was sent.

use crate::outline::{Outline, Outlines};
use crate::secrets::Secrets;
use crate::sessions::Sessions;
use baton_engine::cycle::Snapshot;
use baton_model::configuration::{Peer, Provision};
use baton_model::desired::Release;
use baton_model::id::{InstanceId, NodeName, ServiceName};
use baton_model::observed::Observed;
use baton_model::spec::PortKind;
use baton_proto::convert::configuration::provision_to_wire;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What each node is to be given. Only for services of which a release has files or secrets.
pub(crate) fn outlines(snapshot: &Snapshot, observed: impl FnOnce() -> Observed) -> Outlines {
    let configured: BTreeSet<&ServiceName> = snapshot
        .desired
        .services
        .values()
        .filter(|service| service.releases.values().any(|it| !it.spec.configuration.is_empty()))
        .map(|service| &service.name)
        .collect();
    if configured.is_empty() {
        return Outlines::new();
    }
    let observed = observed();
    let mut peers: BTreeMap<&ServiceName, Vec<Peer>> = BTreeMap::new();
    let mut outlines = Outlines::new();
    for (node, plan) in &snapshot.plans {
        let labels = snapshot.desired.nodes.get(node).map(|node| node.labels.clone()).unwrap_or_default();
        for (id, assignment) in &plan.value.assignments {
            let Some(service) = configured.get(&id.service) else { continue };
            let release = snapshot.desired.services[*service].releases.get(&assignment.release);
            let Some(release) = release else { continue };
            peers.entry(service).or_default().extend(peer(id, node, release, snapshot, &observed));
            let outline = outlines.entry(node.clone()).or_default().entry(id.service.clone()).or_default();
            outline.secrets.extend(release.spec.configuration.secrets.values().map(|used| used.key()));
            outline.labels.clone_from(&labels);
        }
    }
    let peers: BTreeMap<&ServiceName, Arc<Vec<Peer>>> = peers
        .into_iter()
        .map(|(service, mut peers)| {
            peers.sort_by(|a, b| a.instance.cmp(&b.instance));
            (service, Arc::new(peers))
        })
        .collect();
    for (service, outline) in outlines.values_mut().flatten() {
        outline.peers = peers.get(service).cloned().unwrap_or_default();
    }
    outlines
}

/// Where an instance is; `None` while a port that its node picks is not known, since nobody could reach it.
fn peer(
    id: &InstanceId,
    node: &NodeName,
    release: &Release,
    snapshot: &Snapshot,
    observed: &Observed,
) -> Option<Peer> {
    let seen = observed.nodes.get(node).and_then(|node| node.instances.get(id));
    let mut ports = BTreeMap::new();
    for (name, port) in &release.spec.ports {
        let number = match &port.kind {
            PortKind::Socket { port } | PortKind::Udp { port } | PortKind::Fixed { port } => *port,
            PortKind::Dynamic => *seen?.ports.get(name.as_str())?,
            // A path of another node is of no use.
            PortKind::Unix { .. } => continue,
        };
        ports.insert(name.to_string(), number);
    }
    let address = snapshot.desired.nodes.get(node)?.address.clone();
    Some(Peer { instance: id.clone(), node: node.clone(), address, ports })
}

/// Sends the nodes what they are given.
pub(crate) struct Provider {
    secrets: Arc<Secrets>,
    sessions: Arc<Sessions>,
}

impl Provider {
    pub(crate) fn new(secrets: Arc<Secrets>, sessions: Arc<Sessions>) -> Self {
        Self { secrets, sessions }
    }

    /// Queues what each connected node does not have yet. A plan that needs it is queued after it.
    pub(crate) async fn send(&self, snapshot: &Snapshot) {
        let outlines = outlines(snapshot, || self.sessions.observed());
        for (node, services) in outlines {
            self.sessions.provide_only(&node, |service| services.contains_key(service));
            for (service, outline) in services {
                if self.sessions.wants(&node, &service, &outline) {
                    let provision = provision_to_wire(service.clone(), self.filled(&outline).await);
                    self.sessions.provide(&node, service, outline, provision);
                }
            }
        }
    }

    /// With the values of the secrets. One that cannot be read is left out: the node waits for it and says so.
    async fn filled(&self, outline: &Outline) -> Provision {
        let mut secrets = BTreeMap::new();
        for key in &outline.secrets {
            match self.secrets.value(key).await {
                Ok(value) => {
                    secrets.insert(key.clone(), value);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a secret cannot be sent to its node"
                    );
                }
            }
        }
        Provision { labels: outline.labels.clone(), peers: outline.peers.to_vec(), secrets }
    }
}
