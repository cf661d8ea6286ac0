//! Events of the journal, and events of agents on their way into it.

use super::field::{WireError, choice, optional_text, text};
use crate::v1;
use baton_model::event::{Event, Severity};
use baton_model::id::{EventSeq, NodeName};
use baton_model::time::{Millis, UnixMs};

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        Self {
            seq: event.seq.0,
            at_ms: event.at.0,
            severity: v1::Severity::from(event.severity).into(),
            kind: event.kind,
            message: event.message,
            service: event.service.map(Into::into),
            node: event.node.map(Into::into),
            instance: event.instance.map(Into::into),
            fields: event.fields,
        }
    }
}

impl TryFrom<v1::Event> for Event {
    type Error = WireError;
    fn try_from(wire: v1::Event) -> Result<Self, WireError> {
        Ok(Self {
            seq: EventSeq(wire.seq),
            at: UnixMs(wire.at_ms),
            severity: severity("severity", wire.severity)?,
            kind: kind(wire.kind)?,
            message: wire.message,
            service: optional_text("service", wire.service.as_deref())?,
            node: optional_text("node", wire.node.as_deref())?,
            instance: optional_text("instance", wire.instance.as_deref())?,
            fields: wire.fields,
        })
    }
}

/// An agent's event, received from `node` at `now`, as an entry of the journal; its place there is `seq`.
///
/// The service is the instance's. The time is the node's own measure of how long ago it was, on our clock.
///
/// # Errors
/// Names the field that the model cannot hold.
pub fn agent_event(
    wire: v1::AgentEvent,
    node: &NodeName,
    now: UnixMs,
    seq: EventSeq,
) -> Result<Event, WireError> {
    let instance: Option<baton_model::id::InstanceId> = optional_text("instance", wire.instance.as_deref())?;
    Ok(Event {
        seq,
        at: UnixMs(now.since(UnixMs(wire.ago_ms)).0),
        severity: severity("severity", wire.severity)?,
        kind: kind(wire.kind)?,
        message: wire.message,
        service: instance.as_ref().map(|instance| instance.service.clone()),
        node: Some(node.clone()),
        instance,
        fields: wire.fields,
    })
}

/// An event for the coordinator: the `sequence`th of this node, `ago` old now.
#[must_use]
pub fn agent_event_to_wire(event: Event, sequence: u64, ago: Millis) -> v1::AgentEvent {
    v1::AgentEvent {
        sequence,
        ago_ms: ago.0,
        severity: v1::Severity::from(event.severity).into(),
        kind: event.kind,
        message: event.message,
        instance: event.instance.map(Into::into),
        fields: event.fields,
    }
}

fn kind(wire: String) -> Result<String, WireError> {
    // The rule of names is the rule of these words too, and people filter by them.
    text::<baton_model::id::ServiceName>("kind", &wire).map_err(|_| {
        WireError::new("kind", format!("{wire:?} is not a stable word such as `instance-exited`"))
    })?;
    Ok(wire)
}

impl From<Severity> for v1::Severity {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Info => Self::Info,
            Severity::Warning => Self::Warning,
            Severity::Error => Self::Error,
        }
    }
}

fn severity(field: &str, wire: i32) -> Result<Severity, WireError> {
    match choice(field, wire)? {
        v1::Severity::Unspecified => Err(WireError::unset(field)),
        v1::Severity::Info => Ok(Severity::Info),
        v1::Severity::Warning => Ok(Severity::Warning),
        v1::Severity::Error => Ok(Severity::Error),
    }
}
