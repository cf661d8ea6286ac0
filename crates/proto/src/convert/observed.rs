//! What agents observe. Times travel as lengths, because every host has its own clock.

use super::field::{WireError, choice, each, optional, port, text};
use crate::v1;
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::observed::{InstanceObserved, InstanceState, LogDrops, SwapObserved, SwapPhase};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// One instance for the wire, as it is at `now`: `ready_since` becomes how long ago that was.
#[must_use]
pub fn instance_to_wire(id: &InstanceId, instance: InstanceObserved, now: UnixMs) -> v1::Instance {
    v1::Instance {
        id: id.to_string(),
        release: instance.release.0,
        state: v1::InstanceState::from(instance.state).into(),
        ready_for_ms: instance.ready_since.map(|since| now.since(since).0),
        run: instance.run.0,
        pid: instance.pid,
        ports: instance.ports.into_iter().map(|(name, port)| (name, port.into())).collect(),
        restarts: instance.restarts,
        crash_loop: instance.crash_loop,
        last_exit: instance.last_exit.map(Into::into),
        reason: instance.reason,
        swap: instance.swap.map(Into::into),
        status: instance.status,
        reload: instance.reload.map(Into::into),
        log_drops: (!instance.log_drops.is_none()).then(|| instance.log_drops.into()),
    }
}

/// One instance from the wire, received at `now`: how long it has been ready becomes since when, on our clock.
///
/// The message was under way for some time, so the answer is late by that time and never early: a gate that waits
/// for a healthy time waits that much longer.
///
/// # Errors
/// Names the field that the model cannot hold.
pub fn instance_observed(
    wire: v1::Instance,
    now: UnixMs,
) -> Result<(InstanceId, InstanceObserved), WireError> {
    let id: InstanceId = text("id", &wire.id)?;
    let ports: Result<BTreeMap<_, _>, WireError> = wire
        .ports
        .into_iter()
        .map(|(name, number)| Ok((name.clone(), port(&format!("ports[{name:?}]"), number)?)))
        .collect();
    let instance = InstanceObserved {
        release: ReleaseNumber(wire.release),
        state: state("state", wire.state)?,
        ready_since: wire.ready_for_ms.map(|length| UnixMs(now.since(UnixMs(length)).0)),
        run: RunNumber(wire.run),
        pid: wire.pid,
        ports: ports?,
        restarts: wire.restarts,
        crash_loop: wire.crash_loop,
        last_exit: optional("last_exit", wire.last_exit)?,
        reason: wire.reason,
        swap: optional("swap", wire.swap)?,
        status: wire.status,
        reload: optional("reload", wire.reload)?,
        log_drops: wire.log_drops.map(Into::into).unwrap_or_default(),
    };
    Ok((id, instance))
}

/// All instances of an agent's report, received at `now`.
///
/// # Errors
/// Names the field that the model cannot hold, or the instance that is there twice.
pub fn instances_observed(
    wire: Vec<v1::Instance>,
    now: UnixMs,
) -> Result<BTreeMap<InstanceId, InstanceObserved>, WireError> {
    let received: Vec<Received> =
        each("instances", wire.into_iter().map(|instance| (instance, now)).collect())?;
    let mut instances = BTreeMap::new();
    for (at, Received(id, instance)) in received.into_iter().enumerate() {
        if instances.contains_key(&id) {
            return Err(WireError::new(format!("instances[{at}].id"), format!("`{id}` is there twice")));
        }
        instances.insert(id, instance);
    }
    Ok(instances)
}

struct Received(InstanceId, InstanceObserved);

impl TryFrom<(v1::Instance, UnixMs)> for Received {
    type Error = WireError;
    fn try_from((wire, now): (v1::Instance, UnixMs)) -> Result<Self, WireError> {
        instance_observed(wire, now).map(|(id, instance)| Self(id, instance))
    }
}

impl From<LogDrops> for v1::LogDrops {
    fn from(drops: LogDrops) -> Self {
        Self { lines: drops.lines, bytes: drops.bytes, journal_lines: drops.journal_lines }
    }
}

impl From<v1::LogDrops> for LogDrops {
    fn from(wire: v1::LogDrops) -> Self {
        Self { lines: wire.lines, bytes: wire.bytes, journal_lines: wire.journal_lines }
    }
}

impl From<InstanceState> for v1::InstanceState {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Absent => Self::Absent,
            InstanceState::Fetching => Self::Fetching,
            InstanceState::Staged => Self::Staged,
            InstanceState::Starting => Self::Starting,
            InstanceState::Ready => Self::Ready,
            InstanceState::Draining => Self::Draining,
            InstanceState::Stopped => Self::Stopped,
            InstanceState::Failed => Self::Failed,
        }
    }
}

fn state(field: &str, wire: i32) -> Result<InstanceState, WireError> {
    match choice(field, wire)? {
        v1::InstanceState::Unspecified => Err(WireError::unset(field)),
        v1::InstanceState::Absent => Ok(InstanceState::Absent),
        v1::InstanceState::Fetching => Ok(InstanceState::Fetching),
        v1::InstanceState::Staged => Ok(InstanceState::Staged),
        v1::InstanceState::Starting => Ok(InstanceState::Starting),
        v1::InstanceState::Ready => Ok(InstanceState::Ready),
        v1::InstanceState::Draining => Ok(InstanceState::Draining),
        v1::InstanceState::Stopped => Ok(InstanceState::Stopped),
        v1::InstanceState::Failed => Ok(InstanceState::Failed),
    }
}

impl From<SwapObserved> for v1::Swap {
    fn from(swap: SwapObserved) -> Self {
        let phase = match swap.phase {
            SwapPhase::Staging => v1::SwapPhase::Staging,
            SwapPhase::StoppingOld => v1::SwapPhase::StoppingOld,
            SwapPhase::Confirming => v1::SwapPhase::Confirming,
            SwapPhase::DrainingOld => v1::SwapPhase::DrainingOld,
            SwapPhase::Reverting => v1::SwapPhase::Reverting,
            SwapPhase::Refreshing => v1::SwapPhase::Refreshing,
            SwapPhase::Failed => v1::SwapPhase::Failed,
        };
        Self { to: swap.to.0, attempt: swap.attempt, phase: phase.into(), reason: swap.reason }
    }
}

impl TryFrom<v1::Swap> for SwapObserved {
    type Error = WireError;
    fn try_from(wire: v1::Swap) -> Result<Self, WireError> {
        let phase = match choice("phase", wire.phase)? {
            v1::SwapPhase::Unspecified => return Err(WireError::unset("phase")),
            v1::SwapPhase::Staging => SwapPhase::Staging,
            v1::SwapPhase::StoppingOld => SwapPhase::StoppingOld,
            v1::SwapPhase::Confirming => SwapPhase::Confirming,
            v1::SwapPhase::DrainingOld => SwapPhase::DrainingOld,
            v1::SwapPhase::Reverting => SwapPhase::Reverting,
            v1::SwapPhase::Refreshing => SwapPhase::Refreshing,
            v1::SwapPhase::Failed => SwapPhase::Failed,
        };
        Ok(Self { to: ReleaseNumber(wire.to), attempt: wire.attempt, phase, reason: wire.reason })
    }
}
