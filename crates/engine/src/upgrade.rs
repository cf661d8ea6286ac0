//! The agents' own program, rolled over the fleet batch by batch.
//!
//! ```text
//!            its turn                     runs it, all ready for SETTLED_AFTER
//!  Waiting ───────────► Asked ─────────────────────────────────────────────────► Done
//!     └── runs it already ──│───────────────────────────────────────────────────►
//!                           └── said no, silent, or not in time ──► Failed: nobody else is asked
//! ```
//!
//! The next batch is asked only when every node of the one before is `Done`. Nothing of a node's workloads is touched by
//! it, so no service's floor or batch is asked about; a node that is not there, or that its operators have set aside,
//! stays `Waiting` until it is back.

use crate::nodes::SILENT_AFTER;
use crate::outcome::EventDraft;
use baton_model::desired::Node;
use baton_model::event::Severity;
use baton_model::id::{InstanceId, NodeName};
use baton_model::observed::{InstanceState, NodeObserved, Observed};
use baton_model::time::{Millis, UnixMs};
use baton_model::upgrade::{AgentUpgrade, NodeAsked, NodeUpgrade};
use std::collections::{BTreeMap, BTreeSet};

/// A node that was asked and then says nothing for this long has failed: longer than a new program has to come back, and
/// the old one to return.
pub const SILENT_FAILS_AFTER: Millis = Millis::secs(90);
/// A node that goes on with its old program for this long has failed: a large program over a slow line is there by then.
pub const TAKEN_WITHIN: Millis = Millis::secs(600);
/// What was ready before is ready again within this time under the new program, or the node has failed.
pub const READY_WITHIN: Millis = Millis::secs(90);
/// All must have been well for this long: reports of before the upgrade are gone by then, and what ends at once shows.
pub const SETTLED_AFTER: Millis = Millis::secs(3);

/// What comes of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The upgrade as it is now.
    pub upgrade: AgentUpgrade,
    /// What happened.
    pub events: Vec<EventDraft>,
    /// When to decide again at the latest, though nothing changes.
    pub wake_at: Option<UnixMs>,
}

/// Decides how each node stands, and which are asked next.
#[must_use]
pub fn decide(
    upgrade: &AgentUpgrade,
    nodes: &BTreeMap<NodeName, Node>,
    observed: &Observed,
    now: UnixMs,
) -> Decided {
    let mut turn = Turn { upgrade: upgrade.clone(), observed, now, events: Vec::new(), wake_at: None };
    // A node that was removed is nobody's to wait for.
    turn.upgrade.nodes.retain(|name, _| nodes.contains_key(name));
    for name in turn.upgrade.nodes.keys().cloned().collect::<Vec<_>>() {
        turn.look_at(&name);
    }
    turn.ask_next(nodes);
    let was_done = upgrade.is_done();
    if turn.upgrade.is_done() && !was_done {
        let message = format!("every agent runs {}", turn.upgrade.version);
        turn.tell(Severity::Info, "agents-upgraded", None, message);
    }
    Decided { upgrade: turn.upgrade, events: turn.events, wake_at: turn.wake_at }
}

struct Turn<'a> {
    upgrade: AgentUpgrade,
    observed: &'a Observed,
    now: UnixMs,
    events: Vec<EventDraft>,
    wake_at: Option<UnixMs>,
}

impl Turn<'_> {
    fn look_at(&mut self, name: &NodeName) {
        let seen = self.observed.nodes.get(name);
        let next = match self.upgrade.nodes.get(name) {
            Some(NodeUpgrade::Waiting) if self.runs_it(seen) => Some(NodeUpgrade::Done { at: self.now }),
            Some(NodeUpgrade::Asked(asked)) => {
                let asked = asked.clone();
                Some(self.judge(name, seen, asked))
            }
            Some(NodeUpgrade::Waiting | NodeUpgrade::Done { .. } | NodeUpgrade::Failed { .. }) | None => None,
        };
        let Some(next) = next else { return };
        match &next {
            NodeUpgrade::Done { .. } => {
                let message = format!("the agent of {name} runs {}", self.upgrade.version);
                self.tell(Severity::Info, "agent-upgraded", Some(name), message);
            }
            NodeUpgrade::Failed { reason } => {
                let version = &self.upgrade.version;
                let message = format!(
                    "the agent of {name} did not become {version}: {reason}; no further node is asked"
                );
                if self.upgrade.paused.is_none() {
                    self.upgrade.paused = Some(format!("{name}: {reason}"));
                }
                self.tell(Severity::Error, "agent-upgrade-failed", Some(name), message);
            }
            NodeUpgrade::Waiting | NodeUpgrade::Asked(_) => {}
        }
        self.upgrade.nodes.insert(name.clone(), next);
    }

    /// How a node stands that was asked.
    fn judge(&mut self, name: &NodeName, seen: Option<&NodeObserved>, mut asked: NodeAsked) -> NodeUpgrade {
        let failed = |reason: String| NodeUpgrade::Failed { reason };
        if let Some(failure) = seen.and_then(|seen| seen.facts.upgrade_failure.as_ref())
            && failure.request == self.upgrade.request
        {
            return failed(failure.reason.clone());
        }
        let last_heard = seen.map_or(self.observed.listening_since, |seen| seen.last_heard);
        let silent_at = last_heard.max(asked.at).max(self.observed.listening_since).plus(SILENT_FAILS_AFTER);
        if self.is_past(silent_at) {
            return failed(format!("nothing was heard of it for {SILENT_FAILS_AFTER}"));
        }
        let heard = seen.filter(|seen| self.is_heard(seen));
        if heard.is_some_and(|seen| seen.facts.program.is_none()) {
            return failed("its agent is too old to upgrade itself: install the package there".to_owned());
        }
        if !self.runs_it(heard) {
            asked.back_at = None;
            asked.well_since = None;
            if heard.is_some() && self.is_past(asked.at.plus(TAKEN_WITHIN)) {
                return failed(format!("it did not take the program within {TAKEN_WITHIN}"));
            }
            return NodeUpgrade::Asked(asked);
        }
        let back_at = *asked.back_at.get_or_insert(self.now);
        let missing = heard.and_then(|seen| not_ready(&asked.ready, seen));
        let Some(missing) = missing else {
            let well_since = *asked.well_since.get_or_insert(self.now);
            if self.is_past(well_since.plus(SETTLED_AFTER)) {
                return NodeUpgrade::Done { at: self.now };
            }
            return NodeUpgrade::Asked(asked);
        };
        asked.well_since = None;
        if self.is_past(back_at.plus(READY_WITHIN)) {
            return failed(format!(
                "it runs the program, but {missing}, which was ready before, is not (`baton node show {name}`)"
            ));
        }
        NodeUpgrade::Asked(asked)
    }

    /// Asks the next batch, where the one before is done.
    fn ask_next(&mut self, nodes: &BTreeMap<NodeName, Node>) {
        let under_way = self.upgrade.nodes.values().any(|node| matches!(node, NodeUpgrade::Asked(_)));
        if !self.upgrade.goes_on() || under_way {
            return;
        }
        let all = u32::try_from(self.upgrade.nodes.len()).unwrap_or(u32::MAX);
        let batch = self.upgrade.batch.ceil_of(all).max(1);
        let observed = self.observed;
        let waiting = self.upgrade.nodes.iter().filter(|(_, node)| **node == NodeUpgrade::Waiting);
        let there = waiting.filter_map(|(name, _)| {
            let set_aside = nodes.get(name).is_none_or(|node| node.cordoned || node.draining);
            let seen = observed.nodes.get(name).filter(|seen| !set_aside && self.is_heard(seen))?;
            Some((name.clone(), ready(seen)))
        });
        let batch: Vec<_> = there.take(batch as usize).collect();
        for (name, ready) in batch {
            let asked = NodeAsked { at: self.now, ready, back_at: None, well_since: None };
            self.upgrade.nodes.insert(name.clone(), NodeUpgrade::Asked(asked));
            // Deciding again must change nothing: what is known of it already counts now.
            self.look_at(&name);
        }
    }

    fn runs_it(&self, seen: Option<&NodeObserved>) -> bool {
        seen.is_some_and(|seen| {
            self.is_heard(seen) && seen.facts.program == Some(self.upgrade.artifact.digest)
        })
    }

    fn is_heard(&self, seen: &NodeObserved) -> bool {
        self.now.since(seen.last_heard) <= SILENT_AFTER
    }

    /// Whether that time is past; where it is not, it is decided again then.
    fn is_past(&mut self, at: UnixMs) -> bool {
        if at <= self.now {
            return true;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        false
    }

    fn tell(&mut self, severity: Severity, kind: &'static str, node: Option<&NodeName>, message: String) {
        let fields = [
            ("request".to_owned(), self.upgrade.request.to_string()),
            ("version".to_owned(), self.upgrade.version.to_string()),
            ("program".to_owned(), self.upgrade.artifact.digest.to_string()),
        ];
        self.events.push(EventDraft {
            severity,
            kind,
            message,
            service: None,
            node: node.cloned(),
            instance: None,
            fields: fields.into(),
            webhook: None,
        });
    }
}

/// What is ready on a node.
fn ready(seen: &NodeObserved) -> BTreeSet<InstanceId> {
    let ready = seen.instances.iter().filter(|(_, instance)| instance.state == InstanceState::Ready);
    ready.map(|(id, _)| id.clone()).collect()
}

/// The first that was ready, is still on the node, and is not ready.
fn not_ready(before: &BTreeSet<InstanceId>, seen: &NodeObserved) -> Option<InstanceId> {
    let ready = |id: &&InstanceId| {
        seen.instances.get(*id).is_none_or(|instance| instance.state == InstanceState::Ready)
    };
    before.iter().find(|id| !ready(id)).cloned()
}

#[cfg(test)]
mod tests;
