//! Reads how processes live: `type`, `[after]`, `[notify]`, `[reload]` and `[hooks]`.

use super::problem::Fault;
use super::reader::{Fields, Reader, Section};
use super::workload::command_fault;
use super::{defaults, value};
use crate::id::ServiceName;
use crate::lifecycle::{Hook, Hooks, Lifecycle, Near, Notify, Reload, RunKind};
use crate::time::Millis;
use std::collections::BTreeMap;

pub(super) const NOTIFY: &[&str] = &["ready", "timeout", "watchdog"];
pub(super) const RELOAD: &[&str] = &["signal", "command", "timeout"];
pub(super) const HOOKS: &[&str] = &["before_start", "after_ready", "before_stop", "after_stop"];
pub(super) const HOOK: &[&str] = &["command", "timeout"];

pub(super) fn kind(reader: &mut Reader, top: &Section<'_, '_>) -> RunKind {
    const KINDS: &[(&str, RunKind)] = &[("service", RunKind::Service), ("one-shot", RunKind::OneShot)];
    reader.field(top, "type", |v| value::word(v, KINDS)).unwrap_or_default()
}

pub(super) fn lifecycle(reader: &mut Reader, top: &Section<'_, '_>, kind: RunKind) -> Lifecycle {
    Lifecycle {
        kind,
        after: after(reader, top),
        notify: notify(reader, top),
        reload: reload(reader, top),
        hooks: hooks(reader, top),
    }
}

fn after(reader: &mut Reader, top: &Section<'_, '_>) -> BTreeMap<ServiceName, Near> {
    const NEAR: &[(&str, Near)] = &[("anywhere", Near::Anywhere), ("same-node", Near::SameNode)];
    let section = reader.section(top, "after", Fields::Any);
    let mut after = BTreeMap::new();
    for (name, span) in section.names() {
        let near = reader.field(&section, name, |v| value::word(v, NEAR));
        match ServiceName::new(name) {
            Ok(name) => {
                after.insert(name, near.unwrap_or(Near::Anywhere));
            }
            Err(_) => {
                let fault = Fault::new(
                    "is not a valid name of a service",
                    "use 1 to 63 lower-case letters, digits and dashes: `db = \"anywhere\"`",
                );
                reader.fault(&format!("after.{name}"), span, &fault);
            }
        }
    }
    after
}

fn notify(reader: &mut Reader, top: &Section<'_, '_>) -> Notify {
    let section = reader.section(top, "notify", Fields::Only(NOTIFY));
    let ready = reader.field(&section, "ready", value::flag).unwrap_or(false);
    let within = reader.field(&section, "timeout", value::duration);
    if within.is_some() && !ready && !reader.is_broken("notify.ready") {
        let span = reader.span_of("notify.timeout");
        let fault = Fault::new(
            "has no meaning where `READY=1` is not waited for",
            "write `ready = true` beside it, or leave it out",
        );
        reader.fault("notify.timeout", span, &fault);
    }
    Notify {
        ready_within: ready.then(|| within.unwrap_or(defaults::NOTIFY_TIMEOUT)),
        watchdog: reader.field(&section, "watchdog", value::duration),
    }
}

fn reload(reader: &mut Reader, top: &Section<'_, '_>) -> Option<Reload> {
    let section = reader.section(top, "reload", Fields::Only(RELOAD));
    if !section.is_present() {
        return None;
    }
    let timeout = timeout(reader, &section, defaults::RELOAD_TIMEOUT);
    match (section.has("signal"), section.has("command")) {
        (true, true) => {
            reader.field(&section, "signal", value::signal);
            let span = reader.span_of("reload.signal");
            let fault =
                Fault::new("and `reload.command` are two ways of the same thing", "keep one of the two");
            reader.fault("reload.signal", span, &fault);
            reader.mark_broken("reload.command");
            None
        }
        (_, false) => {
            reader.missing(
                &section,
                "signal",
                "write `signal = \"SIGHUP\"` with the signal that makes the workload reload, or \
                 `command = [\"bin/reload\"]`",
            );
            let signal = reader.field(&section, "signal", value::signal)?;
            Some(Reload::Signal { signal, timeout })
        }
        (false, true) => Some(Reload::Command { command: command(reader, &section), timeout }),
    }
}

fn hooks(reader: &mut Reader, top: &Section<'_, '_>) -> Hooks {
    let section = reader.section(top, "hooks", Fields::Only(HOOKS));
    let mut hook = |name: &str| {
        let section = reader.section(&section, name, Fields::Only(HOOK));
        if !section.is_present() {
            return None;
        }
        reader.missing(
            &section,
            "command",
            "write `command = [\"bin/migrate\"]` with the program and its arguments",
        );
        let command = command(reader, &section);
        Some(Hook { command, timeout: timeout(reader, &section, defaults::HOOK_TIMEOUT) })
    };
    Hooks {
        before_start: hook("before_start"),
        after_ready: hook("after_ready"),
        before_stop: hook("before_stop"),
        after_stop: hook("after_stop"),
    }
}

fn command(reader: &mut Reader, section: &Section<'_, '_>) -> Vec<String> {
    reader.list(section, "command", |v| command_fault("command", v), value::text).unwrap_or_default()
}

fn timeout(reader: &mut Reader, section: &Section<'_, '_>, default: Millis) -> Millis {
    reader.field(section, "timeout", value::duration).unwrap_or(default)
}
