//! How workloads and hooks end.

use super::field::{WireError, required};
use crate::v1;
use baton_model::observed::{Exit, HookEnd};

impl From<Exit> for v1::Exit {
    fn from(exit: Exit) -> Self {
        use v1::exit::Kind;
        let kind = match exit {
            Exit::Code(code) => Kind::Code(code),
            Exit::Signal(signal) => Kind::Signal(signal),
            Exit::Exec(errno) => Kind::ExecErrno(errno),
            Exit::CoreDump(signal) => Kind::CoreDump(signal),
            Exit::OutOfMemory => Kind::OutOfMemory(true),
            Exit::Watchdog | Exit::WatchdogTriggered => Kind::Watchdog(true),
            Exit::NotLive => Kind::NotLive(true),
            Exit::StartDeadline => Kind::StartDeadline(true),
            Exit::StopDeadline => Kind::StopDeadline(true),
            Exit::BeforeStart(end) => Kind::BeforeStart(end.into()),
            Exit::HostDown => Kind::HostDown(true),
        };
        Self { kind: Some(kind), watchdog_triggered: exit == Exit::WatchdogTriggered }
    }
}

impl TryFrom<v1::Exit> for Exit {
    type Error = WireError;
    fn try_from(wire: v1::Exit) -> Result<Self, WireError> {
        use v1::exit::Kind;
        // A flag that is false says nothing; the message cannot mean that.
        match wire.kind.ok_or_else(|| WireError::unset("kind"))? {
            Kind::Code(code) => Ok(Self::Code(code)),
            Kind::Signal(signal) => Ok(Self::Signal(signal)),
            Kind::ExecErrno(errno) => Ok(Self::Exec(errno)),
            Kind::CoreDump(signal) => Ok(Self::CoreDump(signal)),
            Kind::OutOfMemory(true) => Ok(Self::OutOfMemory),
            Kind::Watchdog(true) if wire.watchdog_triggered => Ok(Self::WatchdogTriggered),
            Kind::Watchdog(true) => Ok(Self::Watchdog),
            Kind::NotLive(true) => Ok(Self::NotLive),
            Kind::StartDeadline(true) => Ok(Self::StartDeadline),
            Kind::StopDeadline(true) => Ok(Self::StopDeadline),
            Kind::HostDown(true) => Ok(Self::HostDown),
            Kind::BeforeStart(end) => required("before_start", Some(end)).map(Self::BeforeStart),
            Kind::OutOfMemory(false)
            | Kind::Watchdog(false)
            | Kind::NotLive(false)
            | Kind::StartDeadline(false)
            | Kind::StopDeadline(false)
            | Kind::HostDown(false) => Err(WireError::unset("kind")),
        }
    }
}

impl From<HookEnd> for v1::HookEnd {
    fn from(end: HookEnd) -> Self {
        use v1::hook_end::Kind;
        let kind = match end {
            HookEnd::Code(code) => Kind::Code(code),
            HookEnd::Signal(signal) => Kind::Signal(signal),
            HookEnd::Exec(errno) => Kind::ExecErrno(errno),
            HookEnd::Timeout => Kind::Timeout(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::HookEnd> for HookEnd {
    type Error = WireError;
    fn try_from(wire: v1::HookEnd) -> Result<Self, WireError> {
        use v1::hook_end::Kind;
        match wire.kind {
            Some(Kind::Code(code)) => Ok(Self::Code(code)),
            Some(Kind::Signal(signal)) => Ok(Self::Signal(signal)),
            Some(Kind::ExecErrno(errno)) => Ok(Self::Exec(errno)),
            Some(Kind::Timeout(true)) => Ok(Self::Timeout),
            Some(Kind::Timeout(false)) | None => Err(WireError::unset("kind")),
        }
    }
}
