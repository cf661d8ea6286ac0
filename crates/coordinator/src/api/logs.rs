//! Logs of a service's instances, from all of their nodes, as one stream.
//!
//! A request for the past is asked of every node once, and ends. One that follows asks a node again when it comes
//! back, and nodes on which instances are placed later; [`follow`] does that.

mod follow;

use super::status::Refusal;
use super::{Answers, services};
use crate::logs::{LogReader, Part};
use crate::records;
use crate::state::Coordinator;
use baton_model::desired::Service;
use baton_model::id::{InstanceId, NodeName, ServiceName};
use baton_proto::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that may wait for the caller before nodes' lines wait in the broker.
const AHEAD: usize = 16;
/// Text that makes a message full; a line may come on top of it.
const MESSAGE_TEXT_BYTES: usize = 64 * 1024;
/// Past lines of several nodes are put in order by their time as long as they are no more than this.
const SORTED_LINES_MAX: usize = 100_000;
/// A request that does not follow ends when nodes say nothing for this long.
const NODES_SILENCE: Duration = Duration::from_secs(10);

type Sender = mpsc::Sender<Result<v1::LogLines, Status>>;

/// Whose lines are asked for.
struct Subject {
    service: ServiceName,
    instance: Option<InstanceId>,
    node: Option<NodeName>,
}

pub(super) async fn logs(
    coordinator: &Arc<Coordinator>,
    request: v1::LogRequest,
) -> Result<Answers<v1::LogLines>, Refusal> {
    let subject = Subject {
        service: ServiceName::new(request.service.clone())?,
        instance: request.instance.as_deref().map(str::parse).transpose()?,
        node: request.node.clone().map(NodeName::new).transpose()?,
    };
    if coordinator.records.get::<Service>(&records::service(&subject.service)).await?.is_none() {
        return Err(services::unknown(&subject.service));
    }
    let nodes = subject.nodes(coordinator);
    if nodes.is_empty() {
        return Err(subject.nowhere());
    }
    let asked = nodes.len();
    let (reader, missing) =
        coordinator.logs.ask(&request, nodes).map_err(|full| Refusal::Exhausted(full.to_string()))?;
    if missing.len() == asked && !request.follow {
        let names: Vec<&str> = missing.iter().map(NodeName::as_str).collect();
        return Err(Refusal::Unavailable(format!(
            "no node that has these logs is connected: {}; try again when one is back",
            names.join(", ")
        )));
    }
    let (sender, answers) = mpsc::channel(AHEAD);
    let coordinator = Arc::clone(coordinator);
    tokio::spawn(async move {
        let send = async {
            if request.follow {
                follow::follow(&coordinator, &subject, request, reader, missing, &sender).await;
            } else {
                send_past(reader, missing, &sender).await;
            }
        };
        tokio::select! {
            () = coordinator.stop.cancelled() => {}
            () = sender.closed() => {}
            () = send => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

impl Subject {
    /// The nodes that may have its logs: those on which the instances are placed. An instance that is gone is
    /// remembered by nobody but the node that still has its log, so all are asked; and a node that is named is asked
    /// also where nothing runs on it any more.
    fn nodes(&self, coordinator: &Coordinator) -> BTreeSet<NodeName> {
        let view = Arc::clone(&coordinator.view.borrow());
        let Some(progress) = view.snapshot.progress.get(&self.service) else { return BTreeSet::new() };
        let is_asked = |node: &NodeName| self.node.as_ref().is_none_or(|only| only == node);
        let all = view.snapshot.desired.nodes.keys().filter(|node| is_asked(node)).cloned();
        let progress = &progress.value;
        let Some(id) = &self.instance else {
            let placed = progress.slots.values().map(|at| at.node.clone()).filter(is_asked);
            return if self.node.is_some() { all.collect() } else { placed.collect() };
        };
        if id.service != self.service || id.slot == 0 || id.slot > progress.last_slot {
            return BTreeSet::new();
        }
        match progress.slots.get(&id.slot) {
            Some(at) => Some(at.node.clone()).filter(is_asked).into_iter().collect(),
            None => all.collect(),
        }
    }

    fn nowhere(&self) -> Refusal {
        let what = match (&self.instance, &self.node) {
            (Some(id), None) => format!("there is no instance `{id}`"),
            (Some(id), Some(node)) => format!("there is no instance `{id}` on node `{node}`"),
            (None, Some(node)) => format!("there is no node `{node}` for logs of service `{}`", self.service),
            (None, None) => format!("service `{}` has no instances", self.service),
        };
        Refusal::NotFound(format!("{what}; `baton service show {}` shows where it runs", self.service))
    }
}

/// Sends what the nodes have, in the order of time as far as that is bounded.
async fn send_past(mut reader: LogReader, missing: Vec<NodeName>, sender: &Sender) {
    for node in missing {
        let error = format!("node `{node}` is not connected, its lines are missing");
        if !pass_on(Vec::new(), error, sender).await {
            return;
        }
    }
    let mut past = Vec::new();
    loop {
        let next = tokio::time::timeout(NODES_SILENCE, reader.next()).await;
        let (lines, error) = match next {
            Ok(Some(part)) => taken(part),
            Ok(None) => break,
            Err(_) => {
                let error = "some nodes did not answer in time, their lines may be missing".to_owned();
                pass_on(Vec::new(), error, sender).await;
                break;
            }
        };
        if past.len() + lines.len() <= SORTED_LINES_MAX {
            past.extend(lines);
            if !error.is_empty() && !pass_on(Vec::new(), error, sender).await {
                return;
            }
            continue;
        }
        if !pass_on(std::mem::take(&mut past), String::new(), sender).await
            || !pass_on(lines, error, sender).await
        {
            return;
        }
    }
    pass_on(past, String::new(), sender).await;
}

/// Sends lines in the order of their time, in messages of a bounded size; `false` when nobody listens any more.
async fn pass_on(mut lines: Vec<v1::LogLine>, error: String, sender: &Sender) -> bool {
    lines.sort_by_key(|line| line.at_ms);
    let mut message = v1::LogLines { error, ..v1::LogLines::default() };
    let mut bytes = 0;
    for line in lines {
        bytes += line.text.len();
        message.lines.push(line);
        if bytes >= MESSAGE_TEXT_BYTES && sender.send(Ok(std::mem::take(&mut message))).await.is_err() {
            return false;
        } else if bytes >= MESSAGE_TEXT_BYTES {
            bytes = 0;
        }
    }
    (message.lines.is_empty() && message.error.is_empty()) || sender.send(Ok(message)).await.is_ok()
}

/// The lines of a part, and what the caller has to be told about them.
fn taken(part: Part) -> (Vec<v1::LogLine>, String) {
    match part {
        Part::Lines { lines, skipped, .. } => (lines, skipped_text(skipped)),
        Part::End { error, .. } if error.is_empty() => (Vec::new(), String::new()),
        Part::End { node, error } => (Vec::new(), format!("the lines of node `{node}` ended early: {error}")),
        Part::Gone { node } => {
            (Vec::new(), format!("the lines of node `{node}` ended early: it is no longer connected"))
        }
    }
}

/// What to say of lines that a slow reader did not get; nothing where it got all.
fn skipped_text(skipped: u64) -> String {
    match skipped {
        0 => String::new(),
        skipped => {
            format!("{skipped} lines were skipped before these: they came faster than they were read")
        }
    }
}
