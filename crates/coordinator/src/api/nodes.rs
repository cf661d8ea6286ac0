//! Nodes as operators see and set them.

use super::status::Refusal;
use super::{ATTEMPTS_MAX, contended, services};
use crate::events::event;
use crate::records::{self, NODES};
use crate::sessions::Looks;
use crate::state::Coordinator;
use baton_model::desired::Node;
use baton_model::event::Severity;
use baton_model::id::{Generation, InstanceId, NodeName};
use baton_model::status::{NodeStatus, PlacedInstance};
use baton_proto::identity::Peer;
use baton_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels of one node.
const LABELS_MAX: usize = 64;
/// Characters of a label's name, and of its value.
const LABEL_CHARS_MAX: usize = 63;
/// Instances named in a message to a person.
const NAMED_MAX: usize = 5;

pub(super) fn unknown(name: &NodeName) -> Refusal {
    Refusal::NotFound(format!("there is no node `{name}`; `baton node ls` shows those there are"))
}

pub(super) async fn get(coordinator: &Coordinator, request: v1::NodeRef) -> Result<v1::NodeStatus, Refusal> {
    let name = NodeName::new(request.name)?;
    let read = coordinator.records.get::<Node>(&records::node(&name)).await?.ok_or_else(|| unknown(&name))?;
    status(coordinator, read.value)
}

pub(super) async fn list(coordinator: &Coordinator) -> Result<v1::ListNodesResponse, Refusal> {
    let nodes: Vec<Node> =
        coordinator.records.list::<Node>(NODES).await?.into_iter().map(|(_, read)| read.value).collect();
    let mut placed = placed_by_node(coordinator)?;
    let looks = coordinator.sessions.look();
    let statuses = nodes.into_iter().map(|node| {
        let instances = placed.remove(&node.name).unwrap_or_default();
        put_together(coordinator, node, instances, &looks).into()
    });
    Ok(v1::ListNodesResponse { nodes: statuses.collect() })
}

fn status(coordinator: &Coordinator, node: Node) -> Result<v1::NodeStatus, Refusal> {
    let instances = placed_by_node(coordinator)?.remove(&node.name).unwrap_or_default();
    Ok(put_together(coordinator, node, instances, &coordinator.sessions.look()).into())
}

fn placed_by_node(coordinator: &Coordinator) -> Result<BTreeMap<NodeName, Vec<PlacedInstance>>, Refusal> {
    let view = Arc::clone(&coordinator.view.borrow());
    let looks = coordinator.sessions.look();
    let mut placed: BTreeMap<NodeName, Vec<PlacedInstance>> = BTreeMap::new();
    for (name, progress) in &view.snapshot.progress {
        let Some(service) = view.snapshot.desired.services.get(name) else { continue };
        for (slot, at) in &progress.value.slots {
            placed.entry(at.node.clone()).or_default().push(services::placed(service, *slot, at, &looks)?);
        }
    }
    Ok(placed)
}

fn put_together(
    coordinator: &Coordinator,
    node: Node,
    instances: Vec<PlacedInstance>,
    looks: &Looks<'_>,
) -> NodeStatus {
    let now = coordinator.clock.now();
    let view = coordinator.view.borrow();
    let plan_generation =
        view.snapshot.plans.get(&node.name).map_or(Generation(0), |plan| plan.value.generation);
    let look = looks.get(&node.name);
    let connected = look.is_some_and(|look| look.connected);
    NodeStatus {
        connected,
        reported: look.is_some_and(|look| look.reported),
        silent_for: look.filter(|_| !connected).map(|look| now.since(look.observed.last_heard)),
        facts: look.map(|look| look.observed.facts.clone()).unwrap_or_default(),
        plan_generation,
        acked_generation: look.map_or(Generation(0), |look| look.observed.generation),
        instances,
        metrics: look.and_then(|look| look.metrics.cloned()),
        now,
        node,
    }
}

/// Cordons, drains and labels a node.
pub(super) async fn set(
    coordinator: &Coordinator,
    by: &str,
    request: v1::SetNodeRequest,
) -> Result<v1::NodeStatus, Refusal> {
    let name = NodeName::new(request.name.clone())?;
    let key = records::node(&name);
    for _ in 0..ATTEMPTS_MAX {
        let read = coordinator.records.get::<Node>(&key).await?.ok_or_else(|| unknown(&name))?;
        let node = changed(read.value.clone(), &request)?;
        if node == read.value {
            return status(coordinator, node);
        }
        match coordinator.records.put(&key, read.revision, &node).await {
            Ok(_) => {
                let message = format!("{by} set node {name}: {}", described(&read.value, &node));
                let mut event = event(coordinator.clock.now(), Severity::Info, "node-set", message);
                event.node = Some(name.clone());
                coordinator.journal.record(vec![event]);
                return status(coordinator, node);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("node `{name}`")))
}

fn changed(mut node: Node, request: &v1::SetNodeRequest) -> Result<Node, Refusal> {
    node.cordoned = request.cordoned.unwrap_or(node.cordoned);
    node.draining = request.draining.unwrap_or(node.draining);
    for name in &request.remove_labels {
        node.labels.remove(name);
    }
    node.labels.extend(request.set_labels.clone());
    check_labels(&node.labels)?;
    Ok(node)
}

/// Refuses labels that nobody could write in a service file or read in a list.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > LABELS_MAX {
        return Err(Refusal::Invalid(format!("a node has at most {LABELS_MAX} labels; remove some")));
    }
    let fits = |text: &str| {
        !text.is_empty()
            && text.len() <= LABEL_CHARS_MAX
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
    };
    match labels.iter().find(|(name, value)| !fits(name) || !fits(value)) {
        None => Ok(()),
        Some((name, value)) => Err(Refusal::Invalid(format!(
            "`{name}={value}` is not a label: name and value have 1 to {LABEL_CHARS_MAX} letters, digits, `.`, `_`, `-` and `/`"
        ))),
    }
}

fn described(old: &Node, new: &Node) -> String {
    let mut parts = Vec::new();
    if old.cordoned != new.cordoned {
        parts.push(if new.cordoned { "cordoned" } else { "not cordoned" });
    }
    if old.draining != new.draining {
        parts.push(if new.draining { "draining" } else { "not draining" });
    }
    if old.labels != new.labels {
        parts.push("labels changed");
    }
    parts.join(", ")
}

/// Forgets a node. Refused while anything is placed on it, or while its agent is connected and it is not drained.
pub(super) async fn remove(
    coordinator: &Coordinator,
    by: &str,
    request: v1::NodeRef,
) -> Result<v1::RemoveNodeResponse, Refusal> {
    let name = NodeName::new(request.name)?;
    let key = records::node(&name);
    let read = coordinator.records.get::<Node>(&key).await?.ok_or_else(|| unknown(&name))?;
    let placed = placed_on(coordinator, &name);
    if !placed.is_empty() {
        let named: Vec<String> = placed.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        return Err(Refusal::NotNow(format!(
            "node `{name}` has {} instances ({}{}); drain it first (`baton node drain {name}`), and remove it when they have moved",
            placed.len(),
            named.join(", "),
            if placed.len() > NAMED_MAX { ", ..." } else { "" }
        )));
    }
    if coordinator.sessions.is_connected(&name) && !read.value.draining {
        return Err(Refusal::NotNow(format!(
            "node `{name}` is connected and not drained; drain it (`baton node drain {name}`) or stop its agent first"
        )));
    }
    match coordinator.records.delete(&key, read.revision).await {
        Ok(()) => {}
        Err(error) if error.is_conflict() => return Err(contended(&format!("node `{name}`"))),
        Err(error) => return Err(error.into()),
    }
    coordinator.authority.forget(&Peer::Node(name.clone())).await?;
    coordinator.sessions.forget(&name);
    coordinator.journal.forget(name.clone()).await;
    let mut event =
        event(coordinator.clock.now(), Severity::Info, "node-removed", format!("{by} removed node {name}"));
    event.node = Some(name);
    coordinator.journal.record(vec![event]);
    Ok(v1::RemoveNodeResponse {})
}

/// What is placed on a node and not on its way out, and what a node that can be asked still runs.
fn placed_on(coordinator: &Coordinator, node: &NodeName) -> Vec<InstanceId> {
    let view = Arc::clone(&coordinator.view.borrow());
    let looks = coordinator.sessions.look();
    let reports = |id: &InstanceId| {
        looks.get(node).is_some_and(|look| look.connected && look.observed.instances.contains_key(id))
    };
    let mut placed = Vec::new();
    for (service, progress) in &view.snapshot.progress {
        for (slot, at) in progress.value.slots.iter().filter(|(_, at)| at.node == *node) {
            let id = InstanceId { service: service.clone(), slot: *slot };
            if !at.retiring || reports(&id) {
                placed.push(id);
            }
        }
    }
    placed
}
