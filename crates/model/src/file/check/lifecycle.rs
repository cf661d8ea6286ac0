//! What can be wrong with how processes live: jobs that are asked to serve, circles of one, hooks without an end.

use super::Findings;
use super::workload::command;
use crate::lifecycle::{HookPoint, Reload, RunKind};
use crate::spec::{PortKind, RestartMode, ServiceSpec, StopSignal};
use crate::time::Millis;

/// Most services that one comes after.
const AFTER_MAX: usize = 32;
/// More often than this, being woken costs more than it tells.
const WATCHDOG_MIN: Millis = Millis(100);
const TIMEOUT_MIN: Millis = Millis(100);
/// Longest hook, reload, start or watchdog.
const TIMEOUT_MAX: Millis = Millis::secs(3600);

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    let lifecycle = &spec.lifecycle;
    after(spec, findings);
    if let Some(within) = lifecycle.notify.ready_within
        && findings.duration("notify.timeout", within, TIMEOUT_MIN, TIMEOUT_MAX)
        && within > spec.rollout.healthy_deadline
    {
        findings.add(
            &["notify.timeout", "rollout.healthy_deadline"],
            format!(
                "`notify.timeout` of {within} is longer than `rollout.healthy_deadline` of {}, by which a new instance \
                 must be healthy",
                spec.rollout.healthy_deadline
            ),
            format!("write at most \"{}\", or a longer `healthy_deadline`", spec.rollout.healthy_deadline),
        );
    }
    if let Some(watchdog) = lifecycle.notify.watchdog {
        findings.duration("notify.watchdog", watchdog, WATCHDOG_MIN, TIMEOUT_MAX);
        if spec.restart.mode == RestartMode::Never {
            findings.add(
                &["notify.watchdog", "restart.mode"],
                "`notify.watchdog` restarts a workload that misses it, but `restart.mode` is `never`",
                "write `mode = \"on-failure\"`, or take `watchdog` out",
            );
        }
    }
    reload(spec, findings);
    for (point, hook) in lifecycle.hooks.named() {
        if let Some(hook) = hook {
            command(&format!("hooks.{point}.command"), &hook.command, spec, findings);
            findings.duration(&format!("hooks.{point}.timeout"), hook.timeout, TIMEOUT_MIN, TIMEOUT_MAX);
        }
    }
    match lifecycle.kind {
        RunKind::Service => {}
        RunKind::OneShot => one_shot(spec, findings),
    }
}

fn after(spec: &ServiceSpec, findings: &mut Findings) {
    let after = &spec.lifecycle.after;
    if after.len() > AFTER_MAX {
        findings.add(
            &["after"],
            format!("`[after]` has {} services", after.len()),
            format!("write at most {AFTER_MAX}; a service that comes after another needs not name what that one comes after"),
        );
    }
    if after.contains_key(&spec.name) {
        findings.add(
            &[&format!("after.{}", spec.name), "after"],
            format!("`[after]` names `{}` itself, which would wait for itself for ever", spec.name),
            "take it out, or write the name of the service that must be ready first",
        );
    }
}

fn reload(spec: &ServiceSpec, findings: &mut Findings) {
    match &spec.lifecycle.reload {
        None => {}
        Some(Reload::Signal { signal, timeout }) => {
            findings.duration("reload.timeout", *timeout, TIMEOUT_MIN, TIMEOUT_MAX);
            if *signal == StopSignal::Sigkill {
                findings.add(
                    &["reload.signal"],
                    "`reload.signal` is SIGKILL, which ends the workload",
                    "write the signal on which the workload takes in its configuration: \"SIGHUP\"",
                );
            } else if *signal == spec.stop.signal {
                findings.add(
                    &["reload.signal", "stop.signal"],
                    format!("`reload.signal` and `stop.signal` are both {}", signal.name()),
                    "write the signal on which the workload takes in its configuration: \"SIGHUP\"",
                );
            }
        }
        Some(Reload::Command { command: words, timeout }) => {
            command("reload.command", words, spec, findings);
            findings.duration("reload.timeout", *timeout, TIMEOUT_MIN, TIMEOUT_MAX);
        }
    }
}

/// A job has nobody to answer to once it is done.
fn one_shot(spec: &ServiceSpec, findings: &mut Findings) {
    const DONE: &str = "a one-shot is ready when it has ended with exit code 0";
    let checks = [
        ("checks.startup", spec.checks.startup.is_some()),
        ("checks.readiness", spec.checks.readiness.is_some()),
        ("checks.liveness", spec.checks.liveness.is_some()),
    ];
    for (field, there) in checks {
        if there {
            findings.add(
                &[field, "type"],
                format!("`[{field}]` asks a workload that has ended: {DONE}"),
                "take it out, or write `type = \"service\"`",
            );
        }
    }
    for (name, port) in &spec.ports {
        let kind = match port.kind {
            PortKind::Dynamic => continue,
            PortKind::Fixed { .. } => "fixed",
            PortKind::Socket { .. } | PortKind::Udp { .. } | PortKind::Unix { .. } => "socket",
        };
        findings.add(
            &[&format!("ports.{name}"), "type"],
            format!("port `{name}` is of kind `{kind}`, but nobody answers there after a one-shot has ended"),
            "take it out, write `kind = \"dynamic\"` if it is only used while the job runs, or write `type = \"service\"`",
        );
    }
    if spec.lifecycle.notify.ready_within.is_some() {
        findings.add(
            &["notify.ready", "type"],
            format!("`notify.ready` waits for `READY=1`, but {DONE}"),
            "take `ready` out, or write `type = \"service\"`",
        );
    }
    if spec.lifecycle.reload.is_some() {
        findings.add(
            &["reload", "type"],
            "`[reload]` has no meaning for a one-shot, which ends",
            "take it out; deploy again to run the job again",
        );
    }
    if spec.lifecycle.hooks.after_ready.is_some() {
        findings.add(
            &["hooks.after_ready", "type"],
            format!("`[hooks.{}]` has no meaning here: {DONE}", HookPoint::AfterReady),
            "write `[hooks.after_stop]`, which runs after each end",
        );
    }
    if spec.restart.mode == RestartMode::Always {
        findings.add(
            &["restart.mode", "type"],
            "`restart.mode` is `always`, which would run a one-shot again and again",
            "write `mode = \"on-failure\"` to try a failed job again, or `mode = \"never\"`",
        );
    }
}
