//! Ending all of a node's workloads while no agent runs: for a host that stops being a node, as when the package is
//! removed. What the node is told to run stays written, so an agent that starts later starts it all again.

use crate::config::{StateDir, StateError};
use crate::plan::PlanStore;
use crate::runs::{Adoption, Containment, RunEvent, RunEventKind, RunHandle, Runs};
use baton_model::id::{InstanceId, RunNumber, ServiceName};
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// A run that no plan names any more is given this long to stop.
const STOP_WITHIN_DEFAULT: Millis = Millis::secs(30);
/// Beyond its own timeout, for the kill and its confirmation.
const KILL_ROOM: Duration = Duration::from_secs(10);

/// Runs that are to be ended.
type Live = BTreeMap<(InstanceId, RunNumber), RunHandle>;

/// What was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halted {
    /// Runs whose workload ended; `true`: it had to be killed.
    pub ended: Vec<(InstanceId, bool)>,
    /// What could not be ended, in words.
    pub left: Vec<String>,
}

/// Ends every workload below the state directory `dir`, each by its own stop signal and timeout, and its shim: all at
/// once but for those that others come after, which end when the others have. What cannot be ended is told and left;
/// the call may be repeated.
///
/// # Errors
/// [`StateError`] when an agent runs there, or the folder cannot be read.
pub async fn halt(dir: &Path) -> Result<Halted, StateError> {
    let state = StateDir::open(dir)?;
    let node = state.agent_file()?;
    let plan_path = state.plan_path();
    let plan = PlanStore::open(&plan_path, &node.name).map_err(StateError::io("read", &plan_path))?;
    let runs_dir = state.runs_dir();
    let failed = |source| StateError::io("read", &runs_dir)(source);
    let program = std::env::current_exe().map_err(failed)?;
    // Groups are made for new runs only; those that there are know their own.
    let (runs, mut events) = Runs::new(&runs_dir, program, Containment::process_group()).map_err(failed)?;
    let mut halted = Halted::default();
    let mut live = Live::new();
    for directory in runs.list().map_err(failed)? {
        match runs.adopt(&directory).await {
            Ok(Adoption::Adopted(run)) => {
                live.insert((run.handle.instance().clone(), run.handle.run()), run.handle);
            }
            Ok(Adoption::Gone { record: Some(record), .. }) => {
                forget(&runs, &record.instance, record.run, &mut halted).await;
            }
            Ok(Adoption::Gone { record: None, .. }) => {}
            Err(error) => halted.left.push(error.to_string()),
        }
    }
    // Each wave ends something; what does not end is given up with it, so the next ones still have their turn.
    while !live.is_empty() {
        let mut wave = take_wave(&mut live, &plan);
        end_wave(&runs, &mut events, &mut wave, &plan, &mut halted).await;
    }
    if halted.left.is_empty()
        && let Err(error) = crate::provisions::forget_secrets(state.root())
    {
        halted.left.push(format!("the secrets of this node could not be removed from memory: {error}"));
    }
    Ok(halted)
}

fn stop_policy(plan: &PlanStore, instance: &InstanceId) -> (StopSignal, Millis) {
    let planned = plan.current().and_then(|plan| plan.instances.get(instance));
    planned.map_or((StopSignal::Sigterm, STOP_WITHIN_DEFAULT), |planned| {
        (planned.spec.stop.signal, planned.spec.stop.timeout)
    })
}

/// The longest that the hooks around a stop may take.
fn hooks_take(plan: &PlanStore, instance: &InstanceId) -> Duration {
    let planned = plan.current().and_then(|plan| plan.instances.get(instance));
    let hooks = planned.map(|planned| &planned.spec.lifecycle.hooks);
    let around = hooks.into_iter().flat_map(|hooks| [&hooks.before_stop, &hooks.after_stop]).flatten();
    around.map(|hook| hook.timeout.duration()).sum()
}

/// The runs that nothing which still runs comes after; all of them, should there be a circle.
fn take_wave(live: &mut Live, plan: &PlanStore) -> Live {
    let held: BTreeSet<ServiceName> = live
        .keys()
        .flat_map(|(instance, _)| {
            let planned = plan.current().and_then(|plan| plan.instances.get(instance));
            planned.into_iter().flat_map(|planned| planned.spec.lifecycle.after.keys()).cloned()
        })
        .collect();
    let wave: Live = live.extract_if(.., |(instance, _), _| !held.contains(&instance.service)).collect();
    if wave.is_empty() { std::mem::take(live) } else { wave }
}

/// Stops these runs at the same time, and tells what does not end.
async fn end_wave(
    runs: &Runs,
    events: &mut Receiver<RunEvent>,
    wave: &mut Live,
    plan: &PlanStore,
    halted: &mut Halted,
) {
    let mut longest = Duration::ZERO;
    let mut refused = Vec::new();
    for (key, handle) in wave.iter() {
        let (signal, timeout) = stop_policy(plan, &key.0);
        match handle.stop(signal, timeout).await {
            Ok(()) => longest = longest.max(timeout.duration() + hooks_take(plan, &key.0)),
            Err(error) => {
                halted.left.push(error.to_string());
                refused.push(key.clone());
            }
        }
    }
    refused.iter().for_each(|key| drop(wave.remove(key)));
    let room = longest + KILL_ROOM;
    if tokio::time::timeout(room, end_all(runs, events, wave, halted)).await.is_err() {
        halted.left.extend(wave.keys().map(|(instance, run)| format!("{instance} run {run} does not end")));
    }
}

/// Waits until each run has stopped, and ends its shim.
async fn end_all(runs: &Runs, events: &mut Receiver<RunEvent>, stopping: &mut Live, halted: &mut Halted) {
    while !stopping.is_empty() {
        let Some(event) = events.recv().await else { return };
        let key = (event.instance, event.run);
        let killed = match event.kind {
            RunEventKind::Stopped { killed } => killed,
            RunEventKind::ShimLost => true,
            RunEventKind::Started { .. } | RunEventKind::Exited { .. } | RunEventKind::Notified => continue,
            RunEventKind::HookFailed { .. } | RunEventKind::Reloaded { .. } => continue,
            RunEventKind::LogDropped { .. } => continue,
        };
        let Some(handle) = stopping.remove(&key) else { continue };
        if let Err(error) = handle.quit().await {
            halted.left.push(error.to_string());
        }
        forget(runs, &key.0, key.1, halted).await;
        halted.ended.push((key.0, killed));
    }
}

async fn forget(runs: &Runs, instance: &InstanceId, run: RunNumber, halted: &mut Halted) {
    if let Err(error) = runs.forget(instance, run).await {
        halted.left.push(format!("the folder of {instance} run {run} stays: {error}"));
    }
}
