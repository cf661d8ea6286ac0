//! Logs of a service's instances, from all of their nodes, as one stream.

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

pub(super) async fn logs(
    coordinator: &Arc<Coordinator>,
    request: v1::LogRequest,
) -> Result<Answers<v1::LogLines>, Refusal> {
    let service = ServiceName::new(request.service.clone())?;
    let instance: Option<InstanceId> = request.instance.as_deref().map(str::parse).transpose()?;
    if coordinator.records.get::<Service>(&records::service(&service)).await?.is_none() {
        return Err(services::unknown(&service));
    }
    let nodes = nodes_of(coordinator, &service, instance.as_ref());
    if nodes.is_empty() {
        let what = instance.map_or_else(
            || format!("service `{service}` has no instances"),
            |id| format!("there is no instance `{id}`"),
        );
        return Err(Refusal::NotFound(format!("{what}; `baton service show {service}` shows where it runs")));
    }
    let asked = nodes.len();
    let (reader, missing) =
        coordinator.logs.ask(&request, nodes).map_err(|full| Refusal::Exhausted(full.to_string()))?;
    if missing.len() == asked {
        let names: Vec<&str> = missing.iter().map(NodeName::as_str).collect();
        return Err(Refusal::Unavailable(format!(
            "no node that has these logs is connected: {}; try again when one is back",
            names.join(", ")
        )));
    }
    let (sender, answers) = mpsc::channel(AHEAD);
    let stop = coordinator.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            () = send(reader, missing, request.follow, &sender) => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// The nodes on which the instances are placed.
fn nodes_of(
    coordinator: &Coordinator,
    service: &ServiceName,
    instance: Option<&InstanceId>,
) -> BTreeSet<NodeName> {
    let view = Arc::clone(&coordinator.view.borrow());
    let Some(progress) = view.snapshot.progress.get(service) else { return BTreeSet::new() };
    let asked = |slot: u64| instance.is_none_or(|id| id.service == *service && id.slot == slot);
    progress.value.slots.iter().filter(|(slot, _)| asked(**slot)).map(|(_, at)| at.node.clone()).collect()
}

async fn send(mut reader: LogReader, missing: Vec<NodeName>, follow: bool, sender: &Sender) {
    for node in missing {
        if !pass_on(Vec::new(), format!("node `{node}` is not connected, its lines are missing"), sender)
            .await
        {
            return;
        }
    }
    let mut past = Vec::new();
    loop {
        let next = tokio::time::timeout(NODES_SILENCE, reader.next()).await;
        let (lines, error) = match next {
            Ok(Some(part)) => taken(part),
            Ok(None) => break,
            Err(_) if follow => continue,
            Err(_) => {
                let error = "some nodes did not answer in time, their lines may be missing".to_owned();
                pass_on(Vec::new(), error, sender).await;
                break;
            }
        };
        if !follow && past.len() + lines.len() <= SORTED_LINES_MAX {
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
    let mut message = v1::LogLines { request: 0, lines: Vec::new(), end: false, error };
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
        Part::Lines { lines, skipped: 0 } => (lines, String::new()),
        Part::Lines { lines, skipped } => (
            lines,
            format!("{skipped} lines were skipped before these: they came faster than they were read"),
        ),
        Part::End { error, .. } if error.is_empty() => (Vec::new(), String::new()),
        Part::End { node, error } => (Vec::new(), format!("the lines of node `{node}` ended early: {error}")),
    }
}
