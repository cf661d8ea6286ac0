//! Logs: an operator's request is fanned out to the nodes of the instances, and their lines come back as one stream.
//!
//! Nodes are not slowed down by a slow reader: what it cannot take is skipped, counted, and said in its stream.

use crate::sessions::Sessions;
use baton_model::id::NodeName;
use baton_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Bytes of log text that may wait for one reader.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages that may wait for one reader.
const WAITING_MESSAGES_MAX: usize = 1024;
/// Requests that may run at a time.
const REQUESTS_MAX: usize = 256;
/// Counted for a line besides its text.
const LINE_OVERHEAD_BYTES: usize = 64;

/// Too many requests for logs run already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "{REQUESTS_MAX} requests for logs run already; end some of them (`baton logs -f` elsewhere), then try again"
)]
pub(crate) struct TooManyRequests;

/// The requests that run.
pub(crate) struct LogBroker {
    sessions: Arc<Sessions>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
}

struct Running {
    nodes: BTreeSet<NodeName>,
    sender: mpsc::Sender<Part>,
    waiting: Arc<AtomicUsize>,
    skipped: u64,
}

/// What comes back from a node.
#[derive(Debug)]
pub(crate) enum Part {
    /// Lines, how many were skipped before them because the reader is slow, and where to go on after them.
    Lines { lines: Vec<v1::LogLine>, marks: Vec<v1::LogMark>, skipped: u64 },
    /// A node has no more; the text says why where that is a failure.
    End { node: NodeName, error: String },
    /// The session of a node ended, and with it what it was asked.
    Gone { node: NodeName },
}

/// The reading side of a request. Dropping it cancels the request on every node.
pub(crate) struct LogReader {
    broker: Arc<LogBroker>,
    request: u64,
    receiver: mpsc::Receiver<Part>,
    waiting: Arc<AtomicUsize>,
}

impl LogBroker {
    pub(crate) fn new(sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { sessions, next: AtomicU64::new(1), running: Mutex::default() })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `nodes`. Those that are not connected are returned: nothing will come from them.
    pub(crate) fn ask(
        self: &Arc<Self>,
        asked: &v1::LogRequest,
        nodes: BTreeSet<NodeName>,
    ) -> Result<(LogReader, Vec<NodeName>), TooManyRequests> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        {
            let mut running = self.running();
            if running.len() >= REQUESTS_MAX {
                return Err(TooManyRequests);
            }
            running.insert(
                request,
                Running { nodes: nodes.clone(), sender, waiting: Arc::clone(&waiting), skipped: 0 },
            );
        }
        let reader = LogReader { broker: Arc::clone(self), request, receiver, waiting };
        let mut missing = Vec::new();
        for node in nodes {
            if !self.send(asked, request, &node) {
                self.forget_node(request, &node);
                missing.push(node);
            }
        }
        Ok((reader, missing))
    }

    fn send(&self, asked: &v1::LogRequest, request: u64, node: &NodeName) -> bool {
        let message =
            v1::coordinator_message::Message::LogRequest(v1::LogRequest { request, ..asked.clone() });
        self.sessions.send(node, message).is_ok()
    }

    fn forget_node(&self, request: u64, node: &NodeName) {
        if let Some(running) = self.running().get_mut(&request) {
            running.nodes.remove(node);
        }
    }

    /// Lines came from a node. What nobody asked that node for is dropped, and the node told to stop.
    pub(crate) fn deliver(&self, node: &NodeName, message: v1::LogLines) {
        let request = message.request;
        let mut all = self.running();
        let Some(running) = all.get_mut(&request).filter(|running| running.nodes.contains(node)) else {
            drop(all);
            if !message.end {
                self.cancel(request, node);
            }
            return;
        };
        // One without lines says that a long log is still being read.
        if !message.end || !message.lines.is_empty() || !message.marks.is_empty() {
            running.pass_on(message.lines, message.marks);
        }
        if message.end {
            running.nodes.remove(node);
            running.pass_on_end(Part::End { node: node.clone(), error: message.error });
        }
    }

    /// The session of a node ended: it has no more to say in any request.
    pub(crate) fn node_gone(&self, node: &NodeName) {
        for running in self.running().values_mut() {
            if running.nodes.remove(node) {
                running.pass_on_end(Part::Gone { node: node.clone() });
            }
        }
    }

    fn cancel(&self, request: u64, node: &NodeName) {
        let message = v1::coordinator_message::Message::LogCancel(v1::LogCancel { request });
        if self.sessions.send(node, message).is_err() {
            tracing::debug!(%node, "a node went away before its logs were cancelled");
        }
    }
}

impl Running {
    fn pass_on(&mut self, lines: Vec<v1::LogLine>, marks: Vec<v1::LogMark>) {
        let bytes = size_of_lines(&lines);
        let count = lines.len() as u64;
        if self.waiting.load(Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            self.skipped += count;
            return;
        }
        let skipped = std::mem::take(&mut self.skipped);
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if self.sender.try_send(Part::Lines { lines, marks, skipped }).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.skipped = skipped + count;
        }
    }

    /// The end of a node must arrive; when no room is left the reader learns it from the nodes that are asked.
    fn pass_on_end(&mut self, part: Part) {
        if self.sender.try_send(part).is_err() {
            tracing::debug!("the end of a node's logs found no room; the reader counts nodes itself");
        }
    }
}

impl LogReader {
    /// The next part; `None` when no node has anything more to send.
    pub(crate) async fn next(&mut self) -> Option<Part> {
        if let Ok(part) = self.receiver.try_recv() {
            return Some(self.taken(part));
        }
        let ended = self.broker.running().get(&self.request).is_none_or(|running| running.nodes.is_empty());
        let part = if ended {
            // What was queued before the last node ended is taken first.
            self.receiver.try_recv().ok()?
        } else {
            self.receiver.recv().await?
        };
        Some(self.taken(part))
    }

    /// The next part of a request that follows; it goes on though no node has anything to send for now.
    pub(crate) async fn next_of_following(&mut self) -> Option<Part> {
        let part = self.receiver.recv().await?;
        Some(self.taken(part))
    }

    /// Whether a node is asked, and has not ended.
    pub(crate) fn asks(&self, node: &NodeName) -> bool {
        self.broker.running().get(&self.request).is_some_and(|running| running.nodes.contains(node))
    }

    /// Asks one more node; `false` when it is not connected.
    pub(crate) fn ask(&self, asked: &v1::LogRequest, node: &NodeName) -> bool {
        if let Some(running) = self.broker.running().get_mut(&self.request) {
            running.nodes.insert(node.clone());
        }
        let is_asked = self.broker.send(asked, self.request, node);
        if !is_asked {
            self.broker.forget_node(self.request, node);
        }
        is_asked
    }

    fn taken(&self, part: Part) -> Part {
        if let Part::Lines { lines, .. } = &part {
            self.waiting.fetch_sub(size_of_lines(lines), Ordering::Relaxed);
        }
        part
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let running = self.broker.running().remove(&self.request);
        for node in running.map(|running| running.nodes).unwrap_or_default() {
            self.broker.cancel(self.request, &node);
        }
    }
}

fn size_of_lines(lines: &[v1::LogLine]) -> usize {
    lines.iter().map(|line| line.text.len() + LINE_OVERHEAD_BYTES).sum()
}
