//! The agent's heart: owns the machine of every instance (`baton_engine::instance`), feeds it what happens, keeps it
//! on disk, and only then does what it asks for.
//!
//! One task owns everything here; work that takes time runs in tasks of its own ([`effects`], [`launch`]) and comes
//! back as an event. What happened at the same moment is taken in together and written once.

mod adoption;
mod chronicle;
mod confine;
mod effects;
mod launch;
mod lifecycle;
mod live;
mod order;
mod record;
mod refresh;
mod settle;
mod snapshot;
mod swap;
mod told;

pub(crate) use snapshot::Snapshot;
pub(crate) use told::told;

use crate::artifacts::ArtifactStore;
use crate::clock;
use crate::config::{AgentFile, StateDir};
use crate::journal::{Draft, Journal};
use crate::plan::{Offered, PlanStore};
use crate::provisions::Provisions;
use crate::runs::libraries::Loaders;
use crate::runs::{RunEvent, RunEventKind, Runs};
use baton_engine::instance::{Effect, Event};
use baton_model::configuration::Provision;
use baton_model::id::{InstanceId, RunNumber, ServiceName};
use baton_model::plan::NodePlan;
use baton_model::time::BootMs;
use record::Managed;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Answers of effects and checks that wait for the driver; a full queue makes their tasks wait.
const ANSWERS_MAX: usize = 1024;
/// Events taken in together, so that they are written once and a flood still lets the rest have its turn.
const BATCH_MAX: usize = 64;

/// What the driver works with.
pub(crate) struct Parts {
    pub(crate) state: Arc<StateDir>,
    pub(crate) node: Arc<AgentFile>,
    pub(crate) runs: Runs,
    pub(crate) artifacts: Arc<ArtifactStore>,
    pub(crate) provisions: Arc<Provisions>,
    pub(crate) journal: Journal,
    pub(crate) plan: PlanStore,
    /// The host's present boot, as the kernel names it.
    pub(crate) boot_id: String,
}

/// A run of the node as the metrics need it: its instance and the process of its shim.
pub(crate) type ShimPids = BTreeMap<InstanceId, Vec<u32>>;

/// What the driver tells others, always the newest.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    /// What is reported to the coordinator.
    pub(crate) observed: watch::Receiver<Snapshot>,
    /// Whose processes the metrics count.
    pub(crate) shims: watch::Receiver<ShimPids>,
}

/// What the coordinator says, in the order in which it said it.
#[derive(Debug)]
pub(crate) enum Instruction {
    /// The node's plan.
    Plan(NodePlan),
    /// What the instances of a service are given beside it.
    Provision(ServiceName, Provision),
}

/// Something to do once the instance's state is on disk.
enum Due {
    Effect(Effect),
    /// The end with this number is in the journal and in the state.
    Acknowledge {
        run: RunNumber,
        seq: u64,
    },
}

/// News from the driver's own tasks that are not for the machine alone.
enum Inner {
    /// A shim was started, or could not be.
    Launched { instance: InstanceId, run: RunNumber, result: Result<Box<launch::Launched>, String> },
    /// The files of a run were written and its process told, or not.
    Refreshed { instance: InstanceId, run: RunNumber, event: Event },
    /// New connections could not be turned; it is time to try again.
    SteerAgain { instance: InstanceId, run: RunNumber, from: Option<RunNumber>, attempt: u32 },
    /// What a swap had left open at an old run is closed; this event may now be told.
    SwapClosed { instance: InstanceId, event: Event },
    /// A run that could not be spoken with at the start.
    AdoptedLate { instance: InstanceId, found: adoption::Found },
}

/// The driver. [`Driver::start`] adopts what runs, [`Driver::drive`] goes on until it is cancelled.
pub(crate) struct Driver {
    parts: Parts,
    loaders: Arc<Loaders>,
    instances: BTreeMap<InstanceId, Managed>,
    due: Vec<(InstanceId, Due)>,
    answers: mpsc::Sender<(InstanceId, Event)>,
    answered: mpsc::Receiver<(InstanceId, Event)>,
    inner: mpsc::Sender<Inner>,
    inner_news: mpsc::Receiver<Inner>,
    run_events: mpsc::Receiver<RunEvent>,
    observed: watch::Sender<Snapshot>,
    shims: watch::Sender<ShimPids>,
    write_again: Option<BootMs>,
}

impl Driver {
    /// A driver over what an earlier agent left on disk; nothing is acted upon yet.
    ///
    /// # Errors
    /// An instance's state that cannot be read: going on without it would start a second copy.
    pub(crate) fn open(
        parts: Parts,
        run_events: mpsc::Receiver<RunEvent>,
    ) -> std::io::Result<(Self, Outlook)> {
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let (inner, inner_news) = mpsc::channel(ANSWERS_MAX);
        let observed = watch::Sender::new(Snapshot::default());
        let shims = watch::Sender::new(ShimPids::new());
        let outlook = Outlook { observed: observed.subscribe(), shims: shims.subscribe() };
        let instances = record::load_all(&parts.state)?;
        let driver = Self {
            parts,
            loaders: Arc::default(),
            instances,
            due: Vec::new(),
            answers,
            answered,
            inner,
            inner_news,
            run_events,
            observed,
            shims,
            write_again: None,
        };
        Ok((driver, outlook))
    }

    /// Goes on until cancelled; workloads and shims then go on without it.
    pub(crate) async fn drive(&mut self, said: &mut mpsc::Receiver<Instruction>, cancel: &CancellationToken) {
        loop {
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                Some(news) = self.inner_news.recv() => self.take_inner(news),
                Some(event) = self.run_events.recv() => self.take_run_event(event),
                Some((id, event)) = self.answered.recv() => self.step(&id, event),
                Some(said) = said.recv() => self.take_instruction(said),
                () = sleep_until(wake) => self.take_time(),
            }
            for _ in 1..BATCH_MAX {
                if let Ok(news) = self.inner_news.try_recv() {
                    self.take_inner(news);
                } else if let Ok(event) = self.run_events.try_recv() {
                    self.take_run_event(event);
                } else if let Ok((id, event)) = self.answered.try_recv() {
                    self.step(&id, event);
                } else {
                    break;
                }
            }
            self.settle();
        }
    }

    /// Feeds one machine and remembers what it asks for.
    fn step(&mut self, id: &InstanceId, event: Event) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        if managed.held {
            // What it was told meanwhile is told again when its runs are known: by adoption, and by the plan.
            return;
        }
        let effects = managed.step(event, clock::boot_now(), &self.parts.journal);
        self.due.extend(effects.into_iter().map(|effect| (id.clone(), Due::Effect(effect))));
    }

    fn take_instruction(&mut self, said: Instruction) {
        match said {
            Instruction::Plan(plan) => self.take_plan(plan),
            Instruction::Provision(service, provision) => self.take_provision(service, provision),
        }
    }

    fn take_plan(&mut self, plan: NodePlan) {
        let generation = plan.generation;
        match self.parts.plan.offer(plan) {
            Ok(Offered::Accepted) => {
                tracing::info!(%generation, "follows a new plan");
                self.parts.provisions.plan_came();
                self.follow_plan();
            }
            Ok(Offered::Same) => {}
            Ok(Offered::Refused(reason)) => self.parts.journal.record(
                Draft::warning("plan-refused", format!("plan {generation} was refused: {reason}"))
                    .with("generation", generation),
            ),
            Err(error) => self.parts.journal.record(
                Draft::error(
                    "plan-not-written",
                    format!(
                        "plan {generation} cannot be written to {}, so it is not followed: {error}; \
                        free some space there",
                        self.parts.state.root().display()
                    ),
                )
                .with("generation", generation),
            ),
        }
    }

    /// Tells every machine what the plan says of it; makes machines for what is new.
    fn follow_plan(&mut self) {
        let Some(plan) = self.parts.plan.current() else { return };
        let wanted = plan.instances.clone();
        for (id, plan) in wanted {
            self.instances
                .entry(id.clone())
                .or_insert_with(|| Managed::new(id.clone(), &self.parts.boot_id))
                .let_go = false;
            self.step(&id, Event::Plan(Some(Box::new(plan))));
        }
        self.let_go();
        self.forget_provisions();
    }

    fn take_time(&mut self) {
        let now = clock::boot_now();
        let due: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, managed)| managed.machine().wake_at().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        due.iter().for_each(|id| self.step(id, Event::Timer));
    }

    fn wake_at(&self) -> Option<BootMs> {
        let machines = self.instances.values().filter(|managed| !managed.held);
        machines.filter_map(|managed| managed.machine().wake_at()).chain(self.write_again).min()
    }

    fn take_run_event(&mut self, event: RunEvent) {
        let (id, run) = (event.instance.clone(), event.run);
        let Some(managed) = self.instances.get_mut(&id) else { return };
        if let Some(launching) = managed.launching.get_mut(&run) {
            // It came before the handle of its run did.
            launching.early.push(event);
            return;
        }
        managed.chronicle.tell(&event, clock::boot_now(), &self.parts.journal);
        if let RunEventKind::Exited { seq, .. } = &event.kind {
            managed.end_checks(run);
            let acknowledge = Due::Acknowledge { run, seq: *seq };
            let Some((id, mut event)) = event.into_engine() else { return };
            if let Event::Exited { restarts, restart_in: Some(_), .. } = &mut event {
                // The shim tells the restarts that were; what is reported counts the one that follows.
                *restarts += 1;
            }
            self.step(&id, event);
            self.due.push((id, acknowledge));
            return;
        }
        if event.kind == RunEventKind::ShimLost {
            managed.keep_sockets_of(run, clock::boot_now());
        }
        let gone = matches!(event.kind, RunEventKind::Stopped { .. } | RunEventKind::ShimLost);
        let Some((id, event)) = event.into_engine() else { return };
        if gone {
            managed.end_checks(run);
            if let Some(closing) = managed.close_swap_from(run) {
                // The old socket is closed last: only then may another swap begin.
                let (inner, journal) = (self.inner.clone(), self.parts.journal.clone());
                tokio::spawn(async move {
                    closing.close(id.clone(), journal).await;
                    let _ = inner.send(Inner::SwapClosed { instance: id, event }).await;
                });
                return;
            }
        }
        self.step(&id, event);
    }

    fn take_inner(&mut self, news: Inner) {
        match news {
            Inner::Launched { instance, run, result } => self.take_launched(&instance, run, result),
            Inner::Refreshed { instance, run, event } => self.take_refreshed(&instance, run, event),
            Inner::SteerAgain { instance, run, from, attempt } => self.steer(&instance, run, from, attempt),
            Inner::SwapClosed { instance, event } => self.step(&instance, event),
            Inner::AdoptedLate { instance, found } => self.take_adopted_late(&instance, found),
        }
    }

    fn take_launched(
        &mut self,
        id: &InstanceId,
        run: RunNumber,
        result: Result<Box<launch::Launched>, String>,
    ) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        let launching = managed.launching.remove(&run).unwrap_or_default();
        match result {
            Ok(launched) => {
                if let Some(closing) = managed.launched(run, *launched) {
                    tokio::spawn(closing.close(id.clone(), self.parts.journal.clone()));
                }
                if let Some((signal, timeout)) = launching.stop {
                    self.stop(id, run, signal, timeout);
                }
                launching.early.into_iter().for_each(|event| self.take_run_event(event));
                // They may have moved while it was started.
                self.follow_peers(id, run);
            }
            Err(reason) => {
                self.step(id, Event::StartFailed { run, reason });
                if launching.stop.is_some() {
                    self.step(id, Event::Stopped { run, killed: false });
                }
            }
        }
    }
}

async fn sleep_until(wake: Option<BootMs>) {
    match wake {
        Some(at) => tokio::time::sleep(at.since(clock::boot_now()).duration()).await,
        None => std::future::pending().await,
    }
}
