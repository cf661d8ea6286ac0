//! From a spec's hooks and reload to commands that can be executed as they are. Asked when a release is staged, too, so
//! that a hook which is not in the artifact is known before the old release is touched.

use super::told::told;
use crate::runs::{Lifecycle, Reload, Timed, preflight, signal_number};
use crate::workload::{Command, Surroundings};
use baton_model::lifecycle as model;
use baton_model::spec::ServiceSpec;
use baton_model::time::Millis;

/// What is done around the workload, in its surroundings.
pub(super) fn resolve(around: &Surroundings, spec: &ServiceSpec) -> Result<Lifecycle, String> {
    let timed = |what: &str, words: &[String], timeout: Millis| {
        let failed = |error: &dyn std::error::Error| format!("{what}: {}", told(error));
        let Command { program, args, .. } = around.command(words, spec).map_err(|error| failed(&error))?;
        preflight(&program).map_err(|error| failed(&error))?;
        Ok::<_, String>(Timed { program, args, timeout })
    };
    let mut hooks = [const { None }; 4];
    for (place, (point, hook)) in hooks.iter_mut().zip(spec.lifecycle.hooks.named()) {
        if let Some(hook) = hook {
            *place = Some(timed(&format!("the {point} hook"), &hook.command, hook.timeout)?);
        }
    }
    let reload = match &spec.lifecycle.reload {
        None => None,
        Some(model::Reload::Signal { signal, timeout }) => {
            Some(Reload::Signal { signal: signal_number(*signal), timeout: *timeout })
        }
        Some(model::Reload::Command { command, timeout }) => {
            Some(Reload::Command(timed("the reload command", command, *timeout)?))
        }
    };
    let notify = spec.lifecycle.notify;
    Ok(Lifecycle { ready_within: notify.ready_within, watchdog: notify.watchdog, reload, hooks })
}
