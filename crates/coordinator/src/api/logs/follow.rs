//! A request that follows: it outlives the sessions of its nodes, and goes along with the instances.

use super::{Sender, Subject, skipped_text};
use crate::logs::{LogReader, Part};
use crate::state::Coordinator;
use baton_model::id::NodeName;
use baton_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

/// Marks kept per instance: runs are a few, and of the oldest nothing comes any more.
const MARKS_PER_INSTANCE_MAX: usize = 8;

/// Passes lines on until the caller goes, and asks nodes as they come.
pub(super) async fn follow(
    coordinator: &Coordinator,
    subject: &Subject,
    request: v1::LogRequest,
    mut reader: LogReader,
    missing: Vec<NodeName>,
    sender: &Sender,
) {
    let mut changes = coordinator.sessions.changes();
    let mut view = coordinator.view.clone();
    let placed = subject.nodes(coordinator);
    let mut following = Following::begin(request, placed, &missing);
    for node in missing {
        if !say(format!("node `{node}` is not connected; its lines come when it is back"), sender).await {
            return;
        }
    }
    // Changes are watched from here on: whoever came before that is asked now.
    following.ask_more(coordinator, subject, &reader);
    loop {
        tokio::select! {
            part = reader.next_of_following() => {
                let Some(part) = part else { return };
                if !following.pass_on(part, sender).await {
                    return;
                }
            }
            _ = changes.changed() => following.ask_more(coordinator, subject, &reader),
            _ = view.changed() => following.ask_more(coordinator, subject, &reader),
        }
    }
}

/// What has been asked of whom, and how far that was answered.
struct Following {
    request: v1::LogRequest,
    /// Nodes that had instances when the request came: of them the past is asked as the caller asked for it.
    at_first: BTreeSet<NodeName>,
    /// Nodes that were asked once: they go on where they stood.
    asked: BTreeSet<NodeName>,
    /// Nodes that cannot answer, and said so.
    given_up: BTreeSet<NodeName>,
    marks: BTreeMap<String, BTreeMap<u64, v1::LogMark>>,
}

impl Following {
    fn begin(request: v1::LogRequest, at_first: BTreeSet<NodeName>, missing: &[NodeName]) -> Self {
        let asked = at_first.iter().filter(|node| !missing.contains(node)).cloned().collect();
        let mut following =
            Self { at_first, asked, given_up: BTreeSet::new(), marks: BTreeMap::new(), request };
        following.note(following.request.after.clone());
        following
    }

    fn note(&mut self, marks: Vec<v1::LogMark>) {
        for mark in marks {
            let runs = self.marks.entry(mark.instance.clone()).or_default();
            runs.insert(mark.run, mark);
            while runs.len() > MARKS_PER_INSTANCE_MAX {
                runs.pop_first();
            }
        }
    }

    /// Asks the nodes that have instances of the subject, are connected, and are not being asked.
    fn ask_more(&mut self, coordinator: &Coordinator, subject: &Subject, reader: &LogReader) {
        for node in subject.nodes(coordinator) {
            if self.given_up.contains(&node)
                || reader.asks(&node)
                || !coordinator.sessions.is_connected(&node)
            {
                continue;
            }
            if reader.ask(&self.request_to(&node), &node) {
                self.asked.insert(node);
            }
        }
    }

    fn request_to(&self, node: &NodeName) -> v1::LogRequest {
        let mut request = self.request.clone();
        if self.asked.contains(node) {
            request.after = self.marks.values().flat_map(BTreeMap::values).cloned().collect();
        } else if !self.at_first.contains(node) {
            // Its instances came after the request: all that they wrote is new.
            request.tail_lines = u32::MAX;
        }
        request
    }

    /// `false` when nobody listens any more. A part becomes one message: its marks are of all its lines.
    async fn pass_on(&mut self, part: Part, sender: &Sender) -> bool {
        match part {
            Part::Lines { lines, marks, skipped } => {
                self.note(marks.clone());
                let error = skipped_text(skipped);
                let message = v1::LogLines { lines, marks, error, ..v1::LogLines::default() };
                sender.send(Ok(message)).await.is_ok()
            }
            Part::End { node, error } => {
                self.given_up.insert(node.clone());
                let why = if error.is_empty() { "it has no more" } else { &error };
                say(format!("the lines of node `{node}` ended early: {why}"), sender).await
            }
            Part::Gone { node } => {
                say(format!("node `{node}` is no longer connected; its lines go on when it is back"), sender)
                    .await
            }
        }
    }
}

async fn say(error: String, sender: &Sender) -> bool {
    sender.send(Ok(v1::LogLines { error, ..v1::LogLines::default() })).await.is_ok()
}
