//! Carries out what the machines ask for. Each effect is idempotent per run, and what takes time answers later.

use super::launch::{self, Launch, surroundings};
use super::told::told;
use super::{Driver, Inner, clock};
use crate::artifacts::{ArtifactError, TreeKey};
use crate::checks::dial::Dial;
use crate::checks::{self, Subject};
use crate::journal::Draft;
use crate::logs::prune_runs;
use crate::provisions::Provisions;
use crate::runs::confine::Confined;
use crate::runs::{RunError, RunHandle, drain};
use baton_engine::instance::{Effect, Event, Trouble};
use baton_model::id::{InstanceId, RunNumber, ServiceName};
use baton_model::observed::InstanceState;
use baton_model::plan::InstancePlan;
use baton_model::spec::StopSignal;
use baton_model::time::Millis;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// An order that a shim did not take is given again so often; a shim that is silent for a minute needs a person.
const ORDER_ATTEMPTS: u32 = 30;
/// And after this long each time.
const ORDER_PAUSE: Duration = Duration::from_secs(2);
/// Between two attempts to turn new connections to a candidate; nothing else can be done for it.
const STEER_PAUSE: Duration = Duration::from_secs(1);
/// So often; then it will not work at the next try either.
const STEER_ATTEMPTS: u32 = 5;

impl Driver {
    pub(super) fn carry_out(&mut self, id: &InstanceId, effect: Effect) {
        match effect {
            Effect::Stage(plan) => self.stage(id, plan),
            Effect::Start { run, plan, beside } => self.start_run(id, run, plan, beside),
            Effect::Check { run, plan } => self.check(id, run, &plan),
            Effect::Steer { run, from } => self.steer(id, run, from, 1),
            Effect::Drain { run, within } => self.drain(id, run, within),
            Effect::Stop { run, signal, timeout } => self.stop(id, run, signal, timeout),
            Effect::Restart { run, signal, timeout } => self.restart(id, run, signal, timeout),
            Effect::Mend { run, plan } => self.mend(id, run, plan),
            Effect::Refresh { run, plan, signals } => self.refresh(id, run, plan, signals),
            Effect::Reload { run, number } => self.reload(id, run, number),
            Effect::TellReady { run } => self.tell_ready(id, run),
            Effect::Forget(run) => self.forget(id, run),
            // Journalled where it was said, in `Managed::step`.
            Effect::Note { .. } => {}
        }
    }

    fn stage(&mut self, id: &InstanceId, plan: Box<InstancePlan>) {
        let (answers, id) = (self.answers.clone(), id.clone());
        let (artifacts, journal) = (Arc::clone(&self.parts.artifacts), self.parts.journal.clone());
        let (state, node) = (Arc::clone(&self.parts.state), Arc::clone(&self.parts.node));
        let provisions = Arc::clone(&self.parts.provisions);
        let (host, loaders) = (Arc::clone(self.parts.runs.host()), Arc::clone(&self.loaders));
        tokio::spawn(async move {
            let release = plan.release;
            let brought = artifacts.bring_in(&plan.spec.name, &plan.artifact).await;
            let event = match brought {
                Ok(()) => {
                    match launch::rehearse(&state, &node, &artifacts, (&host, &loaders), &id, &plan).await {
                        Ok(()) => rehearse_files(provisions, id.clone(), plan).await,
                        Err(reason) => Event::StageFailed { release, reason, trouble: Trouble::Final },
                    }
                }
                Err(error) => {
                    let kind = match &error {
                        ArtifactError::Refused { .. } => Some("artifact-refused"),
                        ArtifactError::NoSpace { .. } => Some("no-space"),
                        ArtifactError::Damaged { .. } => Some("artifact-damaged"),
                        ArtifactError::Unavailable { .. } | ArtifactError::Io { .. } => None,
                    };
                    if let Some(kind) = kind {
                        journal.record(
                            Draft::error(kind, told(&error))
                                .of(&id)
                                .with("release", release)
                                .with("digest", plan.artifact.digest),
                        );
                    }
                    Event::StageFailed { release, reason: told(&error), trouble: error.trouble() }
                }
            };
            let _ = answers.send((id, event)).await;
        });
    }

    fn start_run(
        &mut self,
        id: &InstanceId,
        run: RunNumber,
        plan: Box<InstancePlan>,
        beside: Option<RunNumber>,
    ) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        if managed.live.contains_key(&run) || managed.launching.contains_key(&run) {
            return;
        }
        managed.launching.entry(run).or_default();
        managed.record_mut().artifacts.insert(run, self.parts.artifacts.key(&plan.artifact));
        let beside = beside.and_then(|old| Some((old, managed.live.get(&old)?.handle.listeners().to_vec())));
        let launch = Launch {
            leaving: managed.leaving_listeners(),
            instance: id.clone(),
            run,
            plan,
            beside,
            kept: managed.kept.take(),
            state: Arc::clone(&self.parts.state),
            node: Arc::clone(&self.parts.node),
            runs: self.parts.runs.clone(),
            artifacts: Arc::clone(&self.parts.artifacts),
            provisions: Arc::clone(&self.parts.provisions),
        };
        let (inner, instance) = (self.inner.clone(), id.clone());
        tokio::spawn(async move {
            let result = launch.start().await.map(Box::new);
            let _ = inner.send(Inner::Launched { instance, run, result }).await;
        });
    }

    fn check(&mut self, id: &InstanceId, run: RunNumber, plan: &InstancePlan) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        let seen = managed.machine().observe(clock::boot_now());
        let was_ready = seen.is_some_and(|(seen, _)| seen.run == run && seen.state == InstanceState::Ready);
        let Some(live) = managed.live.get_mut(&run) else { return };
        let ports = live.handle.ports().clone();
        let mut around =
            surroundings(&self.parts.state, &self.parts.node, &self.parts.artifacts, id, plan, ports.clone());
        around.folders = self.parts.provisions.folders(id, run, plan);
        let folder = self.parts.runs.directory(id, run);
        let confined = match Confined::read(&folder) {
            Ok(confined) => Arc::new(confined),
            Err(error) => {
                // Unchecked is not ready, and nothing is run outside of the sandbox in its place.
                tracing::error!(%error, instance = %id, folder = %folder.display(), "no checks: the run's sandbox cannot be read");
                return;
            }
        };
        let subject = Subject {
            run,
            was_ready,
            spec: Arc::new(plan.spec.clone()),
            dial: Dial { address: around.address, ports, paths: live.paths(), steering: live.steering() },
            around: Arc::new(around),
            notified: live.handle.watch(),
            confined,
        };
        let task = tokio::spawn(checks::watch(subject, self.answers.clone()));
        live.checks = Some(AbortOnDropHandle::new(task));
    }

    /// The choice is written before it takes effect, so that an agent that dies in between finds its way again.
    /// All sockets are turned or none is; then it is tried again, and the old run serves meanwhile. Where it does not
    /// work, the swap fails.
    pub(super) fn steer(&mut self, id: &InstanceId, run: RunNumber, from: Option<RunNumber>, attempt: u32) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        managed.record_mut().turned_to = Some(run);
        // What cannot be written is told, and tried again.
        self.write_changed();
        let Some(managed) = self.instances.get_mut(id) else { return };
        // Turned back from a candidate that was lost: it is forgotten next, and its sockets with it.
        if let Some(live) = managed.live.get_mut(&run)
            && let Err(error) = live.flip()
        {
            let reason = told(&error);
            if attempt >= STEER_ATTEMPTS {
                return self.step(id, Event::SteerFailed { run, reason });
            }
            let message = format!(
                "new connections of {id} could not be turned to run {run}: {reason}; this is tried again"
            );
            self.parts.journal.record(Draft::error("swap-not-turned", message).of(id).with("run", run));
            let (inner, instance) = (self.inner.clone(), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(STEER_PAUSE).await;
                let _ = inner.send(Inner::SteerAgain { instance, run, from, attempt: attempt + 1 }).await;
            });
            return;
        }
        if let Some(from) = from {
            managed.end_checks(from);
        }
        let old_is_gone = from.is_none_or(|from| !managed.live.contains_key(&from));
        let closing = managed.live.get_mut(&run).filter(|_| old_is_gone).and_then(|live| live.take_closing());
        if let Some(closing) = closing {
            tokio::spawn(closing.close(id.clone(), self.parts.journal.clone()));
        }
        self.step(id, Event::Steered(run));
    }

    fn drain(&mut self, id: &InstanceId, run: RunNumber, within: Millis) {
        let Some(handle) = self.handle(id, run) else {
            return self.step(id, Event::Drained { run, cut: 0 });
        };
        let (answers, id) = (self.answers.clone(), id.clone());
        tokio::spawn(async move {
            let cut = drain::drain(&handle, handle.listeners(), within).await;
            let _ = answers.send((id, Event::Drained { run, cut })).await;
        });
    }

    pub(super) fn stop(&mut self, id: &InstanceId, run: RunNumber, signal: StopSignal, timeout: Millis) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        managed.end_checks(run);
        if let Some(launching) = managed.launching.get_mut(&run) {
            launching.stop = Some((signal, timeout));
            return;
        }
        let Some(handle) = self.handle(id, run) else {
            return self.step(id, Event::Stopped { run, killed: false });
        };
        let (journal, id) = (self.parts.journal.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = order(&handle, || handle.stop(signal, timeout)).await {
                let message = format!("{id} (run {run}) could not be told to stop: {}", told(&error));
                journal.record(Draft::error("stop-not-taken", message).of(&id).with("run", run));
            }
        });
    }

    fn restart(&mut self, id: &InstanceId, run: RunNumber, signal: StopSignal, timeout: Millis) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        managed.end_checks(run);
        let Some(handle) = self.handle(id, run) else { return };
        let (journal, id) = (self.parts.journal.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = order(&handle, || handle.restart(signal, timeout)).await {
                let message = format!("{id} (run {run}) could not be told to restart: {}", told(&error));
                journal.record(Draft::error("restart-not-taken", message).of(&id).with("run", run));
            }
        });
    }

    fn mend(&mut self, id: &InstanceId, run: RunNumber, plan: Box<InstancePlan>) {
        let (answers, id) = (self.answers.clone(), id.clone());
        let artifacts = Arc::clone(&self.parts.artifacts);
        tokio::spawn(async move {
            let event = match artifacts.verify(&plan.spec.name, &plan.artifact).await {
                Ok(verified) => Event::Mended { run, fetched: verified.fetched },
                Err(error) => Event::MendFailed { run, reason: told(&error) },
            };
            let _ = answers.send((id, event)).await;
        });
    }

    fn reload(&mut self, id: &InstanceId, run: RunNumber, number: u64) {
        let Some(handle) = self.handle(id, run) else { return };
        let (answers, id) = (self.answers.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = order(&handle, || handle.reload(number)).await {
                let failure = Some(format!("its shim did not take the order: {}", told(&error)));
                let _ = answers.send((id, Event::Reloaded { run, reload: number, failure })).await;
            }
        });
    }

    fn tell_ready(&mut self, id: &InstanceId, run: RunNumber) {
        let Some(handle) = self.handle(id, run) else { return };
        let Some(pid) = handle.state().pid else { return };
        let (journal, id) = (self.parts.journal.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = order(&handle, || handle.ready(pid)).await {
                let message =
                    format!("the after_ready hook of {id} could not be asked for: {}", told(&error));
                journal.record(Draft::error("hook-not-run", message).of(&id).with("run", run));
            }
        });
    }

    fn forget(&mut self, id: &InstanceId, run: RunNumber) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        let live = managed.live.remove(&run);
        let unused = live.as_ref().map(|live| managed.unused_sockets(live)).unwrap_or_default();
        managed.record_mut().artifacts.remove(&run);
        let (runs, id, logs) = (self.parts.runs.clone(), id.clone(), self.parts.state.log_dir(id));
        let provisions = Arc::clone(&self.parts.provisions);
        tokio::spawn(async move {
            if let Some(mut live) = live {
                std::mem::take(&mut live.steered).into_values().for_each(super::swap::Steered::withdraw);
                match live.handle.quit().await {
                    Ok(()) | Err(RunError::Gone { .. }) => {}
                    Err(error @ (RunError::Silent { .. } | RunError::Busy { .. } | RunError::Io(_))) => {
                        tracing::warn!(error = told(&error), instance = %id, %run, "a shim did not end");
                    }
                }
            }
            for socket in unused {
                if let Err(error) = socket.remove() {
                    tracing::warn!(%error, instance = %id, %run, "a socket could not be removed");
                }
            }
            if let Err(error) = runs.forget(&id, run).await {
                tracing::warn!(%error, instance = %id, %run, "what is left of a run could not be removed");
            }
            provisions.forget(&id, run);
            prune_runs(&logs);
        });
        self.collect_garbage();
    }

    pub(super) fn acknowledge(&mut self, id: &InstanceId, run: RunNumber, seq: u64) {
        let Some(handle) = self.handle(id, run) else { return };
        tokio::spawn(async move {
            // If it is not taken, it is told again after the next adoption, and acknowledged then.
            let _ = handle.acknowledge(seq).await;
        });
    }

    /// Removes artifacts that nothing needs: not the plan, not a run, not the two releases before.
    pub(super) fn collect_garbage(&mut self) {
        let planned = self.parts.plan.current().map(|plan| &plan.instances);
        let plans = planned.into_iter().flat_map(|instances| instances.values());
        let mut in_use: BTreeSet<TreeKey> =
            plans.map(|plan| self.parts.artifacts.key(&plan.artifact)).collect();
        in_use
            .extend(self.instances.values().flat_map(|managed| managed.record().artifacts.values().copied()));
        let services: BTreeSet<ServiceName> = planned
            .into_iter()
            .flat_map(|instances| instances.keys())
            .chain(self.instances.keys())
            .map(|id| id.service.clone())
            .collect();
        let artifacts = Arc::clone(&self.parts.artifacts);
        tokio::task::spawn_blocking(move || artifacts.collect_garbage(&services, &in_use));
    }

    pub(super) fn handle(&self, id: &InstanceId, run: RunNumber) -> Option<RunHandle> {
        Some(self.instances.get(id)?.live.get(&run)?.handle.clone())
    }
}

/// Whether the release could be given its files here: a template that gives no text, or a secret that has not come, is
/// known before the old release is touched.
async fn rehearse_files(provisions: Arc<Provisions>, id: InstanceId, plan: Box<InstancePlan>) -> Event {
    let release = plan.release;
    match tokio::task::spawn_blocking(move || provisions.rehearse(&id, &plan)).await {
        Ok(Ok(())) => Event::Staged(release),
        Ok(Err(error)) => {
            let trouble = if error.retryable() { Trouble::Passing } else { Trouble::Final };
            Event::StageFailed { release, reason: told(&error), trouble }
        }
        Err(error) => Event::StageFailed { release, reason: told(&error), trouble: Trouble::Passing },
    }
}

/// Gives a shim an order until it takes it. A shim that is gone has nothing left to order: that is told as an event.
pub(super) async fn order<F>(handle: &RunHandle, give: impl Fn() -> F) -> Result<(), RunError>
where
    F: Future<Output = Result<(), RunError>>,
{
    let mut attempt = 1;
    loop {
        match give().await {
            Ok(()) | Err(RunError::Gone { .. }) => return Ok(()),
            Err(error) if attempt >= ORDER_ATTEMPTS => return Err(error),
            Err(error) => {
                tracing::warn!(error = told(&error), instance = %handle.instance(), "a shim did not take an order");
            }
        }
        attempt += 1;
        tokio::time::sleep(ORDER_PAUSE).await;
    }
}
