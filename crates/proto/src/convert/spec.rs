//! Specifications and artifacts.

use super::field::{WireError, choice, keyed, optional, pace, port, required, text};
use crate::v1;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::spec::{
    Amount, Check, Checks, Count, LogPolicy, Placement, Port, PortKind, Probe, RestartMode, RestartPolicy,
    ServiceSpec, StopPolicy, StopSignal,
};
use baton_model::time::Millis;

impl From<ServiceSpec> for v1::ServiceSpec {
    fn from(spec: ServiceSpec) -> Self {
        Self {
            name: spec.name.into(),
            exec: spec.exec,
            env: spec.env,
            ports: spec.ports.into_iter().map(|(name, port)| (name.into(), port.into())).collect(),
            checks: Some(spec.checks.into()),
            stop: Some(spec.stop.into()),
            restart: Some(spec.restart.into()),
            placement: Some(spec.placement.into()),
            min_available: Some(spec.min_available.into()),
            rollout: Some(spec.rollout.into()),
            logs: Some(spec.logs.into()),
            lifecycle: Some(spec.lifecycle.into()),
            limits: Some(spec.limits.into()),
            sandbox: Some(spec.sandbox.into()),
            configuration: Some(spec.configuration.into()),
            route: spec.route.map(Into::into),
        }
    }
}

impl TryFrom<v1::ServiceSpec> for ServiceSpec {
    type Error = WireError;
    fn try_from(wire: v1::ServiceSpec) -> Result<Self, WireError> {
        Ok(Self {
            name: text("name", &wire.name)?,
            exec: wire.exec,
            env: wire.env,
            ports: keyed("ports", wire.ports)?,
            checks: required("checks", wire.checks)?,
            stop: required("stop", wire.stop)?,
            restart: required("restart", wire.restart)?,
            placement: required("placement", wire.placement)?,
            min_available: required("min_available", wire.min_available)?,
            rollout: required("rollout", wire.rollout)?,
            logs: required("logs", wire.logs)?,
            // Absent in what an older side sends.
            lifecycle: optional("lifecycle", wire.lifecycle)?.unwrap_or_default(),
            limits: wire.limits.map(Into::into).unwrap_or_default(),
            sandbox: optional("sandbox", wire.sandbox)?.unwrap_or_default(),
            configuration: optional("configuration", wire.configuration)?.unwrap_or_default(),
            route: optional("route", wire.route)?,
        })
    }
}

impl From<Port> for v1::Port {
    fn from(port: Port) -> Self {
        use v1::port::Kind;
        let kind = match port.kind {
            PortKind::Socket { port } => Kind::Socket(port.into()),
            PortKind::Udp { port } => Kind::Udp(port.into()),
            PortKind::Unix { path, mode } => Kind::Unix(v1::UnixSocket { path, mode }),
            PortKind::Dynamic => Kind::Dynamic(true),
            PortKind::Fixed { port } => Kind::Fixed(port.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Port> for Port {
    type Error = WireError;
    fn try_from(wire: v1::Port) -> Result<Self, WireError> {
        use v1::port::Kind;
        let kind = match wire.kind {
            Some(Kind::Socket(number)) => PortKind::Socket { port: port("socket", number)? },
            Some(Kind::Udp(number)) => PortKind::Udp { port: port("udp", number)? },
            Some(Kind::Unix(socket)) => PortKind::Unix { path: socket.path, mode: socket.mode },
            Some(Kind::Dynamic(true)) => PortKind::Dynamic,
            Some(Kind::Fixed(number)) => PortKind::Fixed { port: port("fixed", number)? },
            Some(Kind::Dynamic(false)) | None => return Err(WireError::unset("kind")),
        };
        Ok(Self { kind })
    }
}

impl From<Checks> for v1::Checks {
    fn from(checks: Checks) -> Self {
        Self {
            startup: checks.startup.map(Into::into),
            readiness: checks.readiness.map(Into::into),
            liveness: checks.liveness.map(Into::into),
        }
    }
}

impl TryFrom<v1::Checks> for Checks {
    type Error = WireError;
    fn try_from(wire: v1::Checks) -> Result<Self, WireError> {
        Ok(Self {
            startup: optional("startup", wire.startup)?,
            readiness: optional("readiness", wire.readiness)?,
            liveness: optional("liveness", wire.liveness)?,
        })
    }
}

impl From<Check> for v1::Check {
    fn from(check: Check) -> Self {
        use v1::check::Probe as Wire;
        let probe = match check.probe {
            Probe::Exec { command } => Wire::Exec(v1::ExecProbe { command }),
            Probe::Http { port, path, status } => {
                Wire::Http(v1::HttpProbe { port: port.into(), path, status: status.map(Into::into) })
            }
            Probe::Tcp { port } => Wire::Tcp(v1::TcpProbe { port: port.into() }),
            Probe::Grpc { port, service } => Wire::Grpc(v1::GrpcProbe { port: port.into(), service }),
        };
        Self {
            probe: Some(probe),
            interval_ms: check.interval.0,
            timeout_ms: check.timeout.0,
            rise: check.rise,
            fall: check.fall,
        }
    }
}

impl TryFrom<v1::Check> for Check {
    type Error = WireError;
    fn try_from(wire: v1::Check) -> Result<Self, WireError> {
        use v1::check::Probe as Wire;
        pace(wire.interval_ms, wire.timeout_ms, wire.rise, wire.fall)?;
        let probe = match wire.probe.ok_or_else(|| WireError::unset("probe"))? {
            Wire::Exec(exec) if exec.command.is_empty() => {
                return Err(WireError::new("exec.command", "it is empty"));
            }
            Wire::Exec(exec) => Probe::Exec { command: exec.command },
            Wire::Http(http) => Probe::Http {
                port: text("http.port", &http.port)?,
                path: http.path,
                status: http.status.map(http_status).transpose()?,
            },
            Wire::Tcp(tcp) => Probe::Tcp { port: text("tcp.port", &tcp.port)? },
            Wire::Grpc(grpc) => Probe::Grpc { port: text("grpc.port", &grpc.port)?, service: grpc.service },
        };
        Ok(Self {
            probe,
            interval: Millis(wire.interval_ms),
            timeout: Millis(wire.timeout_ms),
            rise: wire.rise,
            fall: wire.fall,
        })
    }
}

fn http_status(wire: u32) -> Result<u16, WireError> {
    u16::try_from(wire)
        .ok()
        .filter(|status| (100..=599).contains(status))
        .ok_or_else(|| WireError::new("http.status", format!("{wire} is not an HTTP status: 100 to 599")))
}

impl From<StopPolicy> for v1::StopPolicy {
    fn from(stop: StopPolicy) -> Self {
        Self { signal: stop.signal.name().to_owned(), timeout_ms: stop.timeout.0, drain_ms: stop.drain.0 }
    }
}

impl TryFrom<v1::StopPolicy> for StopPolicy {
    type Error = WireError;
    fn try_from(wire: v1::StopPolicy) -> Result<Self, WireError> {
        Ok(Self {
            signal: stop_signal(&wire.signal)?,
            timeout: Millis(wire.timeout_ms),
            drain: Millis(wire.drain_ms),
        })
    }
}

/// A signal by its name.
pub(super) fn stop_signal(name: &str) -> Result<StopSignal, WireError> {
    let signal = StopSignal::ALL.into_iter().find(|signal| signal.name() == name);
    signal.ok_or_else(|| {
        let names = StopSignal::ALL.map(StopSignal::name).join(", ");
        WireError::new("signal", format!("`{name}` is not one of {names}"))
    })
}

impl From<RestartPolicy> for v1::RestartPolicy {
    fn from(restart: RestartPolicy) -> Self {
        let mode = match restart.mode {
            RestartMode::Always => v1::RestartMode::Always,
            RestartMode::OnFailure => v1::RestartMode::OnFailure,
            RestartMode::Never => v1::RestartMode::Never,
        };
        Self {
            mode: mode.into(),
            base_ms: restart.base.0,
            max_ms: restart.max.0,
            reset_after_ms: restart.reset_after.0,
            crash_loop_after: restart.crash_loop_after,
        }
    }
}

impl TryFrom<v1::RestartPolicy> for RestartPolicy {
    type Error = WireError;
    fn try_from(wire: v1::RestartPolicy) -> Result<Self, WireError> {
        let mode = match choice("mode", wire.mode)? {
            v1::RestartMode::Unspecified => return Err(WireError::unset("mode")),
            v1::RestartMode::Always => RestartMode::Always,
            v1::RestartMode::OnFailure => RestartMode::OnFailure,
            v1::RestartMode::Never => RestartMode::Never,
        };
        Ok(Self {
            mode,
            base: Millis(wire.base_ms),
            max: Millis(wire.max_ms),
            reset_after: Millis(wire.reset_after_ms),
            crash_loop_after: wire.crash_loop_after,
        })
    }
}

impl From<Placement> for v1::Placement {
    fn from(placement: Placement) -> Self {
        use v1::placement::Count as Wire;
        let count = match placement.count {
            Count::Replicas(replicas) => Wire::Replicas(replicas),
            Count::PerNode => Wire::PerNode(true),
        };
        Self {
            count: Some(count),
            require: placement.require,
            spread: placement.spread,
            lost_after_ms: placement.lost_after.0,
        }
    }
}

impl TryFrom<v1::Placement> for Placement {
    type Error = WireError;
    fn try_from(wire: v1::Placement) -> Result<Self, WireError> {
        use v1::placement::Count as Wire;
        let count = match wire.count {
            Some(Wire::Replicas(replicas)) => Count::Replicas(replicas),
            Some(Wire::PerNode(true)) => Count::PerNode,
            Some(Wire::PerNode(false)) | None => return Err(WireError::unset("count")),
        };
        Ok(Self { count, require: wire.require, spread: wire.spread, lost_after: Millis(wire.lost_after_ms) })
    }
}

impl From<Amount> for v1::Amount {
    fn from(amount: Amount) -> Self {
        use v1::amount::Value;
        let value = match amount {
            Amount::Number(number) => Value::Number(number),
            Amount::Percent(percent) => Value::Percent(percent),
        };
        Self { value: Some(value) }
    }
}

impl TryFrom<v1::Amount> for Amount {
    type Error = WireError;
    fn try_from(wire: v1::Amount) -> Result<Self, WireError> {
        use v1::amount::Value;
        match wire.value.ok_or_else(|| WireError::unset("value"))? {
            Value::Number(number) => Ok(Self::Number(number)),
            Value::Percent(percent) if percent <= 100 => Ok(Self::Percent(percent)),
            Value::Percent(percent) => Err(WireError::new("percent", format!("{percent} is more than 100"))),
        }
    }
}

impl From<LogPolicy> for v1::LogPolicy {
    fn from(logs: LogPolicy) -> Self {
        Self { max_bytes: logs.max_bytes, keep: logs.keep, journald: logs.journald }
    }
}

impl TryFrom<v1::LogPolicy> for LogPolicy {
    type Error = WireError;
    fn try_from(wire: v1::LogPolicy) -> Result<Self, WireError> {
        // Nothing could be written into no bytes, or into no file.
        if wire.max_bytes == 0 || wire.keep == 0 {
            let field = if wire.keep == 0 { "keep" } else { "max_bytes" };
            return Err(WireError::new(field, "it must be at least 1"));
        }
        Ok(Self { max_bytes: wire.max_bytes, keep: wire.keep, journald: wire.journald })
    }
}

impl From<Artifact> for v1::Artifact {
    fn from(artifact: Artifact) -> Self {
        use v1::artifact::Format;
        let format = match artifact.format {
            ArtifactFormat::File { name } => Format::File(name),
            ArtifactFormat::Tar => Format::Archive(v1::Archive::Tar.into()),
            ArtifactFormat::TarGzip => Format::Archive(v1::Archive::TarGzip.into()),
            ArtifactFormat::TarZstd => Format::Archive(v1::Archive::TarZstd.into()),
        };
        Self {
            digest: artifact.digest.into(),
            size_bytes: artifact.size_bytes,
            unpacked_bytes: artifact.unpacked_bytes,
            format: Some(format),
        }
    }
}

impl TryFrom<v1::Artifact> for Artifact {
    type Error = WireError;
    fn try_from(wire: v1::Artifact) -> Result<Self, WireError> {
        use v1::artifact::Format;
        let format = match wire.format.ok_or_else(|| WireError::unset("format"))? {
            Format::File(name) => ArtifactFormat::File { name: file_name(name)? },
            Format::Archive(archive) => match choice("archive", archive)? {
                v1::Archive::Unspecified => return Err(WireError::unset("archive")),
                v1::Archive::Tar => ArtifactFormat::Tar,
                v1::Archive::TarGzip => ArtifactFormat::TarGzip,
                v1::Archive::TarZstd => ArtifactFormat::TarZstd,
            },
        };
        Ok(Self {
            digest: text("digest", &wire.digest)?,
            size_bytes: wire.size_bytes,
            format,
            unpacked_bytes: wire.unpacked_bytes,
        })
    }
}

/// The name becomes a file on the node: it must stay inside its folder.
fn file_name(name: String) -> Result<String, WireError> {
    let inside =
        !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0']);
    if inside {
        return Ok(name);
    }
    Err(WireError::new("file", format!("{name:?} is not a file name: 1 to 255 bytes, without `/`")))
}
