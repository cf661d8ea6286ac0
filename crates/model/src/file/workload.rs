//! Reads what is run and how it is kept: name, artifact, exec, env, ports, checks, stop, restart, logs.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::source::ArtifactSource;
use super::{defaults, value};
use crate::id::{PortName, ServiceName};
use crate::lifecycle::RunKind;
use crate::spec::{Check, Checks, LogPolicy, Probe, RestartMode, RestartPolicy, StopPolicy};
use std::collections::BTreeMap;
use toml::de::DeValue;

pub(super) const CHECKS: &[&str] = &["startup", "readiness", "liveness"];
pub(super) const CHECK: &[&str] =
    &["kind", "port", "path", "status", "command", "service", "interval", "timeout", "rise", "fall"];
pub(super) const STOP: &[&str] = &["signal", "timeout", "drain"];
pub(super) const RESTART: &[&str] = &["mode", "base", "max", "reset_after", "crash_loop_after"];
pub(super) const LOGS: &[&str] = &["max_size", "keep", "journald"];

pub(super) fn name(reader: &mut Reader, top: &Section<'_, '_>) -> ServiceName {
    reader.missing(top, "name", "write `name = \"web\"` with the service's name");
    reader
        .field(top, "name", |v| value::id(v, "web", ServiceName::new))
        .unwrap_or_else(|| ServiceName::new("unnamed").expect("a valid name"))
}

pub(super) fn artifact(reader: &mut Reader, top: &Section<'_, '_>) -> Option<ArtifactSource> {
    reader.missing(
        top,
        "artifact",
        "write `artifact = \"./web\"` with the path of a file, a folder or a tar archive",
    );
    let path = reader.field(top, "artifact", value::path)?;
    Some(ArtifactSource { path: path.into(), span: reader.span_of("artifact") })
}

pub(super) fn exec(reader: &mut Reader, top: &Section<'_, '_>) -> Vec<String> {
    reader.missing(
        top,
        "exec",
        "write `exec = [\"web\"]` with the program inside the artifact and its arguments",
    );
    reader.list(top, "exec", |v| command_fault("exec", v), value::text).unwrap_or_default()
}

/// What to write where a command was not written as a list.
pub(super) fn command_fault(field: &str, written: &DeValue<'_>) -> Fault {
    let what = format!("must be a list of the program and its arguments, not {}", type_name(written));
    let words = written
        .as_str()
        .map(|line| line.split_whitespace().map(|word| format!("{word:?}")).collect::<Vec<_>>());
    let example =
        words.filter(|w| !w.is_empty()).map_or_else(|| "\"web\", \"--verbose\"".to_owned(), |w| w.join(", "));
    Fault::new(what, format!("no shell is involved; write `{field} = [{example}]`"))
}

pub(super) fn env(reader: &mut Reader, top: &Section<'_, '_>) -> BTreeMap<String, String> {
    let section = reader.section(top, "env", Fields::Any);
    reader.map(&section, value::text)
}

pub(super) fn checks(reader: &mut Reader, top: &Section<'_, '_>) -> Checks {
    let section = reader.section(top, "checks", Fields::Only(CHECKS));
    Checks {
        startup: check(reader, &section, "startup", defaults::STARTUP_FALL),
        readiness: check(reader, &section, "readiness", defaults::CHECK_FALL),
        liveness: check(reader, &section, "liveness", defaults::CHECK_FALL),
    }
}

fn check(reader: &mut Reader, checks: &Section<'_, '_>, name: &str, fall: u32) -> Option<Check> {
    let section = reader.section(checks, name, Fields::Only(CHECK));
    if !section.is_present() {
        return None;
    }
    reader.missing(&section, "kind", "write `kind = \"http\"`, `\"tcp\"`, `\"grpc\"` or `\"exec\"`");
    let interval = reader.field(&section, "interval", value::duration).unwrap_or(defaults::CHECK_INTERVAL);
    let timeout =
        reader.field(&section, "timeout", value::duration).unwrap_or(defaults::CHECK_TIMEOUT.min(interval));
    let rise = reader.field(&section, "rise", value::number).unwrap_or(defaults::CHECK_RISE);
    let fall = reader.field(&section, "fall", value::number).unwrap_or(fall);
    let probe = probe(reader, &section)?;
    Some(Check { probe, interval, timeout, rise, fall })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProbeWord {
    Exec,
    Http,
    Tcp,
    Grpc,
}

impl ProbeWord {
    const ALL: &[(&str, Self)] =
        &[("http", Self::Http), ("tcp", Self::Tcp), ("grpc", Self::Grpc), ("exec", Self::Exec)];

    /// Fields that have a meaning for this kind only, among those of [`CHECK`].
    const fn own_fields(self) -> &'static [&'static str] {
        match self {
            Self::Exec => &["command"],
            Self::Http => &["port", "path", "status"],
            Self::Tcp => &["port"],
            Self::Grpc => &["port", "service"],
        }
    }
}

fn probe(reader: &mut Reader, section: &Section<'_, '_>) -> Option<Probe> {
    let kind = reader.field(section, "kind", |v| value::word(v, ProbeWord::ALL))?;
    refuse_fields_of_other_kinds(reader, section, kind);
    let port_of = |reader: &mut Reader| {
        reader.missing(section, "port", "write `port = \"http\"` with the name of a port of this service");
        // The placeholder is never checked: a missing or broken field takes part in no further check.
        reader
            .field(section, "port", port_reference)
            .unwrap_or_else(|| PortName::new("unnamed").expect("a valid name"))
    };
    Some(match kind {
        ProbeWord::Exec => {
            reader.missing(section, "command", "write `command = [\"check\", \"--quick\"]`");
            let command = reader
                .list(section, "command", |v| command_fault("command", v), value::text)
                .unwrap_or_default();
            Probe::Exec { command }
        }
        ProbeWord::Http => Probe::Http {
            port: port_of(reader),
            path: reader
                .field(section, "path", value::text)
                .unwrap_or_else(|| defaults::HTTP_PATH.to_owned()),
            status: reader.field(section, "status", value::status),
        },
        ProbeWord::Tcp => Probe::Tcp { port: port_of(reader) },
        ProbeWord::Grpc => Probe::Grpc {
            port: port_of(reader),
            service: reader.field(section, "service", value::text).unwrap_or_default(),
        },
    })
}

/// The name of a port of this service.
pub(super) fn port_reference(written: &DeValue<'_>) -> Result<PortName, Fault> {
    if let DeValue::Integer(number) = written {
        return Err(Fault::new(
            format!("is the number {number}, where the name of a port is expected"),
            "declare the port as `[ports.http]` and write `port = \"http\"`",
        ));
    }
    value::id(written, "http", PortName::new)
}

fn refuse_fields_of_other_kinds(reader: &mut Reader, section: &Section<'_, '_>, kind: ProbeWord) {
    let word = ProbeWord::ALL.iter().find(|(_, k)| *k == kind).map_or("", |(word, _)| *word);
    let of_any_kind = ProbeWord::ALL.iter().flat_map(|(_, kind)| kind.own_fields());
    for (name, span) in section.names() {
        if of_any_kind.clone().any(|field| *field == name) && !kind.own_fields().contains(&name) {
            let path = format!("{}.{name}", section.path);
            let own = super::suggest::one_of(kind.own_fields().iter().copied());
            let fault = Fault::new(
                format!("has no meaning for a check of kind `{word}`"),
                format!("leave it out; this kind has {own}"),
            );
            reader.fault(&path, span, &fault);
        }
    }
}

pub(super) fn stop(reader: &mut Reader, top: &Section<'_, '_>) -> StopPolicy {
    let section = reader.section(top, "stop", Fields::Only(STOP));
    StopPolicy {
        signal: reader.field(&section, "signal", value::signal).unwrap_or(defaults::STOP_SIGNAL),
        timeout: reader.field(&section, "timeout", value::duration).unwrap_or(defaults::STOP_TIMEOUT),
        drain: reader.field(&section, "drain", value::duration).unwrap_or(defaults::STOP_DRAIN),
    }
}

pub(super) fn restart(reader: &mut Reader, top: &Section<'_, '_>, kind: RunKind) -> RestartPolicy {
    const MODES: &[(&str, RestartMode)] = &[
        ("always", RestartMode::Always),
        ("on-failure", RestartMode::OnFailure),
        ("never", RestartMode::Never),
    ];
    let section = reader.section(top, "restart", Fields::Only(RESTART));
    let mode = match kind {
        RunKind::Service => defaults::RESTART_MODE,
        RunKind::OneShot => defaults::ONE_SHOT_RESTART_MODE,
    };
    RestartPolicy {
        mode: reader.field(&section, "mode", |v| value::word(v, MODES)).unwrap_or(mode),
        base: reader.field(&section, "base", value::duration).unwrap_or(defaults::RESTART_BASE),
        max: reader.field(&section, "max", value::duration).unwrap_or(defaults::RESTART_MAX),
        reset_after: reader
            .field(&section, "reset_after", value::duration)
            .unwrap_or(defaults::RESTART_RESET_AFTER),
        crash_loop_after: reader
            .field(&section, "crash_loop_after", value::number)
            .unwrap_or(defaults::CRASH_LOOP_AFTER),
    }
}

pub(super) fn logs(reader: &mut Reader, top: &Section<'_, '_>) -> LogPolicy {
    let section = reader.section(top, "logs", Fields::Only(LOGS));
    LogPolicy {
        max_bytes: reader.field(&section, "max_size", value::size).unwrap_or(defaults::LOG_MAX_BYTES),
        keep: reader.field(&section, "keep", value::number).unwrap_or(defaults::LOG_KEEP),
        journald: reader.field(&section, "journald", value::flag).unwrap_or(defaults::LOG_JOURNALD),
    }
}
