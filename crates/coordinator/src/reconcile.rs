//! The one task that decides: it drives `engine::cycle`, which says what to read, write and send, and in which order.
//!
//! It is woken by changes of what operators want, by what agents report, and by the time the last decision named. A
//! wake-up carries no data. It runs on a thread of its own, because a decision over a large fleet takes longer than
//! sessions may wait.

mod cache;

pub(crate) use cache::Cache;

use crate::clock::Clock;
use crate::dispatch;
use crate::events::{Journal, from_draft};
use crate::evidence::EvidenceLog;
use crate::gateways::Gateways;
use crate::provisions::Provider;
use crate::records::{self, Records, RecordsError};
use crate::sessions::Sessions;
use crate::store::{Change, Watch};
use crate::trials::TrialLog;
use crate::usage::UsageLog;
use crate::webhooks::waiting;
use baton_engine::cycle::{Action, Cycle, PlanRecord, Snapshot, Write, Written};
use baton_engine::outcome::EventDraft;
use baton_model::event::Event;
use baton_model::id::{NodeName, Revision, ServiceName};
use baton_model::observed::Observed;
use baton_model::report::Report;
use baton_model::time::{Millis, UnixMs};
use baton_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// After a wake-up, what follows within this time is decided upon together. It also bounds how often is decided.
const COALESCE: Duration = Duration::from_millis(5);
/// When the store cannot be read, it is tried again this often.
const RETRY: Duration = Duration::from_secs(1);

/// What the last decision was made from, and what it said: what readers are shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) report: Report,
}

/// The decider.
pub(crate) struct Reconcile {
    records: Records,
    sessions: Arc<Sessions>,
    gateways: Arc<Gateways>,
    evidence: Arc<EvidenceLog>,
    trials: Arc<TrialLog>,
    usage: Arc<UsageLog>,
    journal: Arc<Journal>,
    clock: Clock,
    cache: Cache,
    provider: Provider,
    /// The number of the next record of the outbox.
    next_outbox: u64,
    /// Records of the outbox whose commit failed in a way that does not say whether they are there.
    unsure: Vec<(String, Vec<Event>)>,
    view: watch::Sender<Arc<View>>,
}

/// What wakes it.
struct Wakers {
    nodes: Watch,
    services: Watch,
    gateways: Watch,
    observed: watch::Receiver<u64>,
    traffic: watch::Receiver<u64>,
}

impl Reconcile {
    /// Begins with what was read from the store; the receiver gets what readers are shown.
    #[allow(clippy::too_many_arguments)] // One call, from where the app builds its parts.
    pub(crate) fn new(
        cache: Cache,
        records: Records,
        sessions: Arc<Sessions>,
        gateways: Arc<Gateways>,
        evidence: Arc<EvidenceLog>,
        trials: Arc<TrialLog>,
        usage: Arc<UsageLog>,
        journal: Arc<Journal>,
        clock: Clock,
        next_outbox: u64,
        provider: Provider,
    ) -> (Self, watch::Receiver<Arc<View>>) {
        let (view, receiver) =
            watch::channel(Arc::new(View { snapshot: cache.snapshot(), report: Report::default() }));
        let unsure = Vec::new();
        let decider = Self {
            records,
            sessions,
            gateways,
            evidence,
            trials,
            usage,
            journal,
            clock,
            cache,
            provider,
            next_outbox,
            unsure,
            view,
        };
        (decider, receiver)
    }

    /// Decides until `stop`, on the calling thread.
    pub(crate) fn run_on_this_thread(mut self, runtime: &tokio::runtime::Handle, stop: &CancellationToken) {
        runtime.block_on(async {
            let stopped = stop.cancelled();
            tokio::select! {
                () = stopped => {}
                () = self.run() => {}
            }
        });
    }

    async fn run(&mut self) {
        let mut wakers = Wakers {
            nodes: self.records.store().watch(records::NODES),
            services: self.records.store().watch(records::SERVICES),
            gateways: self.records.store().watch(records::GATEWAYS),
            observed: self.sessions.changes(),
            traffic: self.gateways.changes(),
        };
        let mut cycle = Cycle::default();
        let mut action = cycle.begin();
        let mut decided_at = self.clock.now();
        loop {
            action = match action {
                Action::Load => {
                    self.refresh().await;
                    decided_at = self.clock.now();
                    let (snapshot, observed) = (Snapshot::clone(&self.cache.snapshot()), self.observed());
                    let began = Instant::now();
                    let action = cycle.loaded(snapshot, &observed, decided_at);
                    self.journal.counts().decided(began.elapsed());
                    action
                }
                Action::Write(write) => {
                    let events = cycle.take_events(&write);
                    let written = self.write(write, events, decided_at).await;
                    cycle.written(written)
                }
                Action::Send { plans, events, report, routes } => {
                    if let Some(routes) = routes {
                        self.gateways.publish(routes);
                    }
                    self.send(&plans, events, report, decided_at).await;
                    cycle.sent()
                }
                Action::Wait(until) => {
                    self.wait(&mut wakers, until).await;
                    cycle.begin()
                }
            };
        }
    }

    /// What is, of nodes and gateways; what gateways counted only of the services that are being rolled out.
    fn observed(&self) -> Observed {
        let snapshot = self.cache.snapshot();
        let rolling = snapshot.progress.iter().filter(|(_, read)| {
            read.value.rollout.as_ref().is_some_and(|rollout| rollout.ended_at.is_none())
        });
        let rolling: BTreeSet<ServiceName> = rolling.map(|(name, _)| name.clone()).collect();
        let windows = rolling.iter().filter_map(|name| Some((name.clone(), usage_window(&snapshot, name)?)));
        Observed {
            gateways: self.gateways.observed(),
            evidence: self.evidence.watch(&rolling),
            trials: self.trials.watch(&rolling),
            usage: self.usage.watch(windows.collect()),
            ..self.sessions.observed()
        }
    }

    /// Reads what has changed, as often as it takes.
    async fn refresh(&mut self) {
        while let Err(error) = self.read().await {
            self.journal.counts().store_failed();
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot read the store; it is tried again"
            );
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn read(&mut self) -> Result<(), RecordsError> {
        while let Some((key, events)) = self.unsure.pop() {
            match self.records.get::<Vec<Event>>(&key).await {
                Ok(Some(_)) => self.journal.record_stored(key, events),
                Ok(None) => {}
                Err(error) => {
                    self.unsure.push((key, events));
                    return Err(error);
                }
            }
        }
        self.cache.refresh(&self.records).await
    }

    /// Commits a write and the events that tell of it, and hands those to the journal.
    async fn write(&mut self, write: Write, events: Vec<EventDraft>, decided_at: UnixMs) -> Written {
        let webhooks = waiting::changes(&events, &self.cache.snapshot().desired);
        let events: Vec<Event> = events.into_iter().map(|draft| from_draft(draft, decided_at)).collect();
        let key = records::outbox(self.next_outbox);
        self.next_outbox += 1;
        let beside =
            self.outbox(&key, &events).and_then(|outbox| Ok(outbox.into_iter().chain(webhooks?).collect()));
        let written = match beside {
            Ok(beside) => self.cache.write(&self.records, write, beside).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(revision) => {
                if !events.is_empty() {
                    self.journal.record_stored(key, events);
                }
                Written::Stored(revision)
            }
            Err(error) if error.is_conflict() => {
                self.journal.counts().conflicted();
                self.cache.forget();
                Written::Conflict
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot write the decision; nothing was sent"
                );
                self.journal.counts().store_failed();
                // What of it is in the store is not known for sure: read all of it again.
                self.cache.forget();
                if !events.is_empty() {
                    self.unsure.push((key, events));
                }
                Written::Failed
            }
        }
    }

    fn outbox(&self, key: &str, events: &[Event]) -> Result<Option<Change>, RecordsError> {
        if events.is_empty() {
            return Ok(None);
        }
        Ok(Some(records::putting(key.to_owned(), Revision(0), &events)?))
    }

    /// Everything is durable: tells the readers and the nodes, and the journal what no write tells of.
    async fn send(
        &mut self,
        plans: &BTreeMap<NodeName, PlanRecord>,
        events: Vec<EventDraft>,
        report: Report,
        decided_at: UnixMs,
    ) {
        self.journal.record(events.into_iter().map(|draft| from_draft(draft, decided_at)).collect());
        let snapshot = self.cache.snapshot();
        // Before any node hears of it: what it answers is held against this.
        self.view.send_replace(Arc::new(View { snapshot: Arc::clone(&snapshot), report }));
        self.provider.send(&snapshot).await;
        for (node, record) in plans {
            match dispatch::fill(node, record, &snapshot.desired) {
                Ok(plan) => self.sessions.send_plan(node, record.generation, || v1::NodePlan::from(plan)),
                Err(error) => tracing::error!(%error, "a plan is withheld"),
            }
        }
        if let Err(error) = self.cache.drop_removed_services(&self.records).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget a removed service yet");
            self.cache.forget();
        }
    }

    async fn wait(&mut self, wakers: &mut Wakers, until: Option<UnixMs>) {
        let deadline = until.map(|at| tokio::time::Instant::from_std(self.clock.instant_of(at)));
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            _ = wakers.nodes.changed() => self.cache.desired_changed(),
            _ = wakers.services.changed() => self.cache.desired_changed(),
            _ = wakers.gateways.changed() => self.cache.desired_changed(),
            _ = wakers.observed.changed() => {}
            _ = wakers.traffic.changed() => {}
        }
        tokio::time::sleep(COALESCE).await;
        wakers.observed.mark_unchanged();
        wakers.traffic.mark_unchanged();
    }
}

/// The longest window of the thresholds on what a service's instances use; `None` where its rollout asks for none.
fn usage_window(snapshot: &Snapshot, service: &ServiceName) -> Option<Millis> {
    let service = snapshot.desired.services.get(service)?;
    let policy = &service.releases.get(&service.request.as_ref()?.to)?.spec.rollout;
    let asked = policy.analysis.iter().filter(|threshold| threshold.metric.is_usage());
    asked.map(|threshold| threshold.window).max()
}
