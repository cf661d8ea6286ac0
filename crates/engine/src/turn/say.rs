//! What a turn says: events for the journal, reasons to wait for the report, the time to decide again.

use super::Turn;
use crate::outcome::EventDraft;
use baton_model::event::Severity;
use baton_model::report::{Subject, Waiting};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

impl Turn<'_> {
    /// An event about this service, for the caller to complete and push.
    pub(crate) fn event(&self, severity: Severity, kind: &'static str, message: String) -> EventDraft {
        let service = Some(self.name.clone());
        let fields = BTreeMap::new();
        EventDraft { severity, kind, message, service, node: None, instance: None, fields, webhook: None }
    }

    /// Records an event about the rollout or the service as a whole.
    pub(crate) fn tell(&mut self, severity: Severity, kind: &'static str, message: String) {
        let mut event = self.event(severity, kind, message);
        if let Some(rollout) = &self.memory.rollout {
            event.fields.insert("rollout".to_owned(), rollout.id.to_string());
        }
        self.events.push(event);
    }

    /// Says why something waits, and wakes when it ends by itself.
    pub(crate) fn wait(&mut self, subject: Subject, gate: &str, reason: String, until: Option<UnixMs>) {
        self.wake(until);
        self.waiting.push(Waiting { subject, gate: gate.to_owned(), reason, until });
    }

    /// Decides again at this time at the latest.
    pub(crate) fn wake(&mut self, at: Option<UnixMs>) {
        if let Some(at) = at.filter(|at| *at > self.now) {
            self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
        }
    }
}
