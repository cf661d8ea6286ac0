//! How processes live: jobs, order, notification, reload, hooks.

use super::field::{WireError, Within, choice, optional, text};
use crate::v1;
use baton_model::lifecycle::{Hook, Hooks, Lifecycle, Near, Notify, Reload, RunKind};
use baton_model::observed::{ReloadObserved, ReloadPhase};
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::BTreeMap;

impl From<Lifecycle> for v1::Lifecycle {
    fn from(lifecycle: Lifecycle) -> Self {
        let near = |near| match near {
            Near::SameNode => v1::Near::SameNode.into(),
            Near::Anywhere => v1::Near::Anywhere.into(),
        };
        Self {
            one_shot: match lifecycle.kind {
                RunKind::Service => false,
                RunKind::OneShot => true,
            },
            after: lifecycle.after.into_iter().map(|(name, where_)| (name.into(), near(where_))).collect(),
            ready_within_ms: lifecycle.notify.ready_within.map(|within| within.0),
            watchdog_ms: lifecycle.notify.watchdog.map(|often| often.0),
            reload: lifecycle.reload.map(Into::into),
            before_start: lifecycle.hooks.before_start.map(Into::into),
            after_ready: lifecycle.hooks.after_ready.map(Into::into),
            before_stop: lifecycle.hooks.before_stop.map(Into::into),
            after_stop: lifecycle.hooks.after_stop.map(Into::into),
        }
    }
}

impl TryFrom<v1::Lifecycle> for Lifecycle {
    type Error = WireError;
    fn try_from(wire: v1::Lifecycle) -> Result<Self, WireError> {
        let mut after = BTreeMap::new();
        for (name, near) in wire.after {
            let field = format!("after[{name:?}]");
            let near = match choice(&field, near)? {
                v1::Near::Unspecified => return Err(WireError::unset(&field)),
                v1::Near::SameNode => Near::SameNode,
                v1::Near::Anywhere => Near::Anywhere,
            };
            after.insert(text(&field, &name)?, near);
        }
        Ok(Self {
            kind: if wire.one_shot { RunKind::OneShot } else { RunKind::Service },
            after,
            notify: Notify {
                ready_within: lasting("ready_within_ms", wire.ready_within_ms)?,
                watchdog: lasting("watchdog_ms", wire.watchdog_ms)?,
            },
            reload: optional("reload", wire.reload)?,
            hooks: Hooks {
                before_start: optional("before_start", wire.before_start)?,
                after_ready: optional("after_ready", wire.after_ready)?,
                before_stop: optional("before_stop", wire.before_stop)?,
                after_stop: optional("after_stop", wire.after_stop)?,
            },
        })
    }
}

/// A time of zero would end every workload at its start, whoever sent it.
fn lasting(field: &str, wire: Option<u64>) -> Result<Option<Millis>, WireError> {
    match wire {
        Some(0) => Err(WireError::new(field, "it must be at least 1")),
        length => Ok(length.map(Millis)),
    }
}

fn required_time(wire: u64) -> Result<Millis, WireError> {
    lasting("timeout_ms", Some(wire)).map(Option::unwrap_or_default)
}

impl From<Reload> for v1::Reload {
    fn from(reload: Reload) -> Self {
        use v1::reload::Kind;
        let (kind, timeout) = match reload {
            Reload::Signal { signal, timeout } => (Kind::Signal(signal.name().to_owned()), timeout),
            Reload::Command { command, timeout } => (Kind::Command(v1::ExecProbe { command }), timeout),
        };
        Self { kind: Some(kind), timeout_ms: timeout.0 }
    }
}

impl TryFrom<v1::Reload> for Reload {
    type Error = WireError;
    fn try_from(wire: v1::Reload) -> Result<Self, WireError> {
        use v1::reload::Kind;
        let timeout = required_time(wire.timeout_ms)?;
        match wire.kind.ok_or_else(|| WireError::unset("kind"))? {
            Kind::Signal(name) => {
                let signal: StopSignal = super::spec::stop_signal(&name)?;
                Ok(Self::Signal { signal, timeout })
            }
            Kind::Command(command) => {
                Ok(Self::Command { command: named(command.command).within("command")?, timeout })
            }
        }
    }
}

impl From<Hook> for v1::Hook {
    fn from(hook: Hook) -> Self {
        Self { command: hook.command, timeout_ms: hook.timeout.0 }
    }
}

impl TryFrom<v1::Hook> for Hook {
    type Error = WireError;
    fn try_from(wire: v1::Hook) -> Result<Self, WireError> {
        Ok(Self { command: named(wire.command)?, timeout: required_time(wire.timeout_ms)? })
    }
}

/// A command that names its program.
fn named(command: Vec<String>) -> Result<Vec<String>, WireError> {
    if command.is_empty() {
        return Err(WireError::new("command", "it is empty"));
    }
    Ok(command)
}

impl From<ReloadObserved> for v1::ReloadObserved {
    fn from(reload: ReloadObserved) -> Self {
        let phase = match reload.phase {
            ReloadPhase::Running => v1::ReloadPhase::Running,
            ReloadPhase::Done => v1::ReloadPhase::Done,
            ReloadPhase::Failed => v1::ReloadPhase::Failed,
        };
        Self { number: reload.number, phase: phase.into(), reason: reload.reason }
    }
}

impl TryFrom<v1::ReloadObserved> for ReloadObserved {
    type Error = WireError;
    fn try_from(wire: v1::ReloadObserved) -> Result<Self, WireError> {
        let phase = match choice("phase", wire.phase)? {
            v1::ReloadPhase::Unspecified => return Err(WireError::unset("phase")),
            v1::ReloadPhase::Running => ReloadPhase::Running,
            v1::ReloadPhase::Done => ReloadPhase::Done,
            v1::ReloadPhase::Failed => ReloadPhase::Failed,
        };
        Ok(Self { number: wire.number, phase, reason: wire.reason })
    }
}
