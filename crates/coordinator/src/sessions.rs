//! The agents that are connected, and what each of them reports. Liveness lives here and does not pass through the
//! store.
//!
//! ```text
//!             open                  word, Observed            silence_ms without a word
//!   unheard ───────► heard ◄──────────────┐      heard ───────────────────────────────► silent
//!                      └──────────────────┘      silent ──── any word, or a new session ──► heard
//! ```
//!
//! A node has at most one session; a newer one always replaces the older. A closed stream alone changes nothing:
//! silence is what makes a node suspect. What a node last reported is kept, because it is still the best guess.

pub(crate) mod boundary;
mod entry;
mod provide;
pub(crate) mod ready;
pub(crate) mod stream;
mod upgrade;

use self::entry::Entry;
use crate::clock::Clock;
use crate::outline::Outline;
use crate::pulse::Pulse;
use baton_model::id::{Generation, NodeName, ServiceName, SessionId};
use baton_model::metrics::NodeMetrics;
use baton_model::observed::{NodeFacts, NodeObserved, Observed};
use baton_model::time::{Millis, UnixMs};
use baton_proto::v1;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for an agent: a plan, and what each of its services is given. One that leaves more unread is
/// dropped, not waited for.
const QUEUE_MAX: usize = 1024;

/// How often each side speaks, and when it gives the other up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) heartbeat: Millis,
    pub(crate) silence: Millis,
}

/// All sessions, and what the nodes last reported.
pub(crate) struct Sessions {
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    listening_since: UnixMs,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    nodes: BTreeMap<NodeName, Entry>,
    next: SessionId,
    pulse: Pulse,
}

/// The sending side of one session.
struct Link {
    session: SessionId,
    queue: mpsc::Sender<v1::CoordinatorMessage>,
    /// Ends the reading side.
    ended: CancellationToken,
    /// Ends the sending side at once, with what is queued.
    cut: CancellationToken,
    /// The newest plan this session was sent.
    sent: Generation,
    /// What it was given for each service.
    provided: BTreeMap<ServiceName, Outline>,
    /// The latest request to go on as another program that it was sent; 0: none.
    upgrade_asked: u64,
    /// The node has said in it what runs on it.
    reported: bool,
}

/// What a session is run with.
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) outbound: mpsc::Receiver<v1::CoordinatorMessage>,
    pub(crate) ended: CancellationToken,
    pub(crate) cut: CancellationToken,
    /// Two agents seem to use this identity: sessions were replaced again and again.
    pub(crate) flapping: bool,
    /// It had been silent.
    pub(crate) was_silent: bool,
}

/// Why nothing could be handed to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotConnected;

/// What is known of one node, for readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeLook<'a> {
    pub(crate) connected: bool,
    pub(crate) reported: bool,
    pub(crate) silent: bool,
    pub(crate) observed: &'a NodeObserved,
    pub(crate) metrics: Option<&'a NodeMetrics>,
}

/// What is known of all nodes that were heard since the start, at one moment.
pub(crate) struct Looks<'a>(MutexGuard<'a, State>);

impl Looks<'_> {
    pub(crate) fn get(&self, node: &NodeName) -> Option<NodeLook<'_>> {
        let entry = self.0.nodes.get(node)?;
        Some(NodeLook {
            connected: entry.link.is_some(),
            reported: entry.link.as_ref().is_some_and(|link| link.reported),
            silent: entry.silent,
            observed: &entry.observed,
            metrics: entry.metrics.as_ref(),
        })
    }
}

impl Sessions {
    pub(crate) fn new(clock: Clock, timing: Timing) -> Arc<Self> {
        let listening_since = clock.now();
        // Numbered from the time of the start: they grow over restarts too.
        let pulse = Pulse::new(timing.silence, listening_since);
        let state = State { nodes: BTreeMap::new(), next: SessionId(listening_since.0), pulse };
        Arc::new(Self {
            clock,
            timing,
            listening_since,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// Wakes whoever follows what is observed; the number has no meaning.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node said hello: its session begins, and an older one ends.
    pub(crate) fn open(&self, node: &NodeName, facts: NodeFacts, generation: Generation) -> Opened {
        let now = self.clock.now();
        let (queue, outbound) = mpsc::channel(QUEUE_MAX);
        let (ended, cut) = (CancellationToken::new(), CancellationToken::new());
        let mut state = self.lock();
        state.next = state.next.next();
        let session = state.next;
        // First in the queue: whoever learns that the node is here may send it something at once.
        let welcome = v1::Welcome {
            session: session.0,
            heartbeat_ms: self.timing.heartbeat.0,
            silence_ms: self.timing.silence.0,
        };
        let welcome = v1::coordinator_message::Message::Welcome(welcome);
        if queue.try_send(v1::CoordinatorMessage { message: Some(welcome) }).is_err() {
            tracing::error!(%node, "a fresh queue has no room");
        }
        let entry = state.nodes.entry(node.clone()).or_insert_with(|| Entry::unheard(now));
        let was_silent = entry.silent;
        let link = Link {
            session,
            queue,
            ended: ended.clone(),
            cut: cut.clone(),
            sent: Generation(0),
            provided: BTreeMap::new(),
            upgrade_asked: 0,
            reported: false,
        };
        let mut flapping = false;
        if let Some(old) = entry.link.replace(link) {
            old.replaced(session);
            flapping = entry.replaced.note(now);
        }
        entry.silent = false;
        entry.observed.last_heard = now;
        entry.observed.generation = generation;
        entry.take_facts(facts);
        drop(state);
        self.notify();
        Opened { session, outbound, ended, cut, flapping, was_silent }
    }

    /// The stream of a session ended. What the node reported is kept.
    pub(crate) fn close(&self, node: &NodeName, session: SessionId) {
        let mut state = self.lock();
        if let Some(entry) = state.nodes.get_mut(node)
            && entry.link.as_ref().is_some_and(|link| link.session == session)
        {
            entry.link = None;
            drop(state);
            self.notify();
        }
    }

    /// Ends the session of a node, if it has one.
    pub(crate) fn cut(&self, node: &NodeName) {
        if let Some(link) = self.lock().nodes.get_mut(node).and_then(|entry| entry.link.take()) {
            link.drop_now();
        }
        self.notify();
    }

    /// Ends every session: the coordinator stops.
    pub(crate) fn end_all(&self) {
        for entry in self.lock().nodes.values_mut() {
            if let Some(link) = entry.link.take() {
                link.ended.cancel();
            }
        }
    }

    /// Forgets what a removed node reported.
    pub(crate) fn forget(&self, node: &NodeName) {
        self.cut(node);
        self.lock().nodes.remove(node);
        self.notify();
    }

    /// Changes what is known of a node in its current session, and marks it as heard. `false` when the session is
    /// not the current one any more: what it said does not count.
    pub(crate) fn hear(
        &self,
        node: &NodeName,
        session: SessionId,
        word: impl FnOnce(&mut NodeObserved) -> Changed,
    ) -> Heard {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(entry) = state
            .nodes
            .get_mut(node)
            .filter(|entry| entry.link.as_ref().is_some_and(|link| link.session == session))
        else {
            return Heard::Replaced;
        };
        let was_silent = std::mem::take(&mut entry.silent);
        entry.observed.last_heard = now;
        let changed = word(&mut entry.observed);
        drop(state);
        if was_silent || changed == Changed::Yes {
            self.notify();
        }
        if was_silent { Heard::AfterSilence } else { Heard::Yes }
    }

    /// A node has said what runs on it: from the first time on it counts as heard.
    pub(crate) fn reported(&self, node: &NodeName) {
        let first = self.lock().nodes.get_mut(node).is_some_and(|it| {
            if let Some(link) = &mut it.link {
                link.reported = true;
            }
            !std::mem::replace(&mut it.reported, true)
        });
        if first {
            self.notify();
        }
    }

    /// Keeps the latest measurements of a node.
    pub(crate) fn measured(&self, node: &NodeName, metrics: NodeMetrics) {
        if let Some(entry) = self.lock().nodes.get_mut(node) {
            entry.metrics = Some(metrics);
        }
    }

    /// Queues a message for a node. A node that leaves its queue full loses its session.
    pub(crate) fn send(
        &self,
        node: &NodeName,
        message: v1::coordinator_message::Message,
    ) -> Result<(), NotConnected> {
        let mut state = self.lock();
        let entry = state.nodes.get_mut(node).ok_or(NotConnected)?;
        entry.send(node, message)
    }

    /// What the engine sees: the nodes that have said what runs on them.
    pub(crate) fn observed(&self) -> Observed {
        let now = self.clock.now();
        let mut state = self.lock();
        if let Some(gap) = state.pulse.feel(now) {
            state.stood_still(gap, now);
        }
        let reported = state.nodes.iter().filter(|(_, entry)| entry.reported);
        let nodes = reported.map(|(name, entry)| (name.clone(), entry.observed.clone())).collect();
        Observed { nodes, listening_since: self.listening_since, ..Observed::default() }
    }

    /// What is known of the nodes. Sessions wait while this is held: look and let go.
    pub(crate) fn look(&self) -> Looks<'_> {
        Looks(self.lock())
    }

    /// Whether a node has a session.
    pub(crate) fn is_connected(&self, node: &NodeName) -> bool {
        self.lock().nodes.get(node).is_some_and(|entry| entry.link.is_some())
    }

    /// How many nodes are connected.
    pub(crate) fn connected(&self) -> usize {
        self.lock().nodes.values().filter(|entry| entry.link.is_some()).count()
    }

    /// Marks the nodes that have fallen silent, and names them.
    pub(crate) fn sweep(&self) -> Vec<NodeName> {
        let now = self.clock.now();
        let mut fallen = Vec::new();
        let mut state = self.lock();
        if let Some(gap) = state.pulse.beat(now) {
            state.stood_still(gap, now);
        }
        for (name, entry) in &mut state.nodes {
            if !entry.silent && now.since(entry.observed.last_heard) > self.timing.silence {
                entry.silent = true;
                fallen.push(name.clone());
                if let Some(link) = entry.link.take() {
                    link.drop_now();
                }
            }
        }
        drop(state);
        if !fallen.is_empty() {
            self.notify();
        }
        fallen
    }
}

impl State {
    /// This process stood still for so long: that is no node's silence.
    fn stood_still(&mut self, gap: Millis, now: UnixMs) {
        for entry in self.nodes.values_mut() {
            entry.observed.last_heard = entry.observed.last_heard.plus(gap).min(now);
        }
    }
}

/// Whether a word of a node changed what the engine would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    No,
}

/// What became of a word of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Yes,
    /// It is the first one after a silence.
    AfterSilence,
    /// A newer session speaks for the node.
    Replaced,
}

impl Link {
    /// A newer session took its place: it is told so, and ends when what is queued has been read.
    fn replaced(self, by: SessionId) {
        let message = v1::coordinator_message::Message::Replaced(v1::Replaced { by_session: by.0 });
        if self.queue.try_send(v1::CoordinatorMessage { message: Some(message) }).is_err() {
            self.cut.cancel();
        }
        self.ended.cancel();
    }

    fn drop_now(self) {
        self.ended.cancel();
        self.cut.cancel();
    }
}

#[cfg(test)]
mod tests;
