//! Services as operators see them: what is wanted, what the last decision said, and what agents report.

use super::status::Refusal;
use super::{ATTEMPTS_MAX, Answers, contended};
use crate::events::event;
use crate::records::{self, SERVICES};
use crate::sessions::Looks;
use crate::state::Coordinator;
use baton_engine::progress::Slot;
use baton_model::desired::Service;
use baton_model::event::Severity;
use baton_model::id::{InstanceId, ServiceName, Version};
use baton_model::status::{PlacedInstance, ServiceStatus};
use baton_proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Changes within this time are shown as one.
const COALESCE: Duration = Duration::from_millis(50);
/// How often a watcher is told what the releases of a routed service get; gateways report as often.
const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// Statuses that may wait for a watcher; it is always sent whole ones, so that it may skip some.
const WATCH_AHEAD: usize = 2;

pub(super) fn unknown(name: &ServiceName) -> Refusal {
    Refusal::NotFound(format!("there is no service `{name}`; `baton service ls` shows those there are"))
}

async fn find(coordinator: &Coordinator, request: v1::ServiceRef) -> Result<Service, Refusal> {
    let name = ServiceName::new(request.service)?;
    let read = coordinator.records.get::<Service>(&records::service(&name)).await?;
    read.map(|read| read.value).ok_or_else(|| unknown(&name))
}

pub(super) async fn get(
    coordinator: &Coordinator,
    request: v1::ServiceRef,
) -> Result<v1::ServiceStatus, Refusal> {
    status(coordinator, &find(coordinator, request).await?)
}

pub(super) async fn list(coordinator: &Coordinator) -> Result<v1::ListServicesResponse, Refusal> {
    let read = coordinator.records.list::<Service>(SERVICES).await?;
    let services = read.iter().map(|(_, read)| status(coordinator, &read.value)).collect::<Result<_, _>>()?;
    Ok(v1::ListServicesResponse { services })
}

pub(super) async fn history(
    coordinator: &Coordinator,
    request: v1::ServiceRef,
) -> Result<v1::RolloutHistoryResponse, Refusal> {
    let service = find(coordinator, request).await?;
    let view = Arc::clone(&coordinator.view.borrow());
    let current = view.report.services.get(&service.name).and_then(|report| report.rollout.clone());
    let mut rollouts =
        view.snapshot.progress.get(&service.name).map(|read| read.value.history.clone()).unwrap_or_default();
    // The last one may be both: the present report, and ended.
    if let Some(current) = current.filter(|current| rollouts.iter().all(|ended| ended.id != current.id)) {
        rollouts.push(current);
    }
    Ok(v1::RolloutHistoryResponse { rollouts: rollouts.into_iter().rev().map(Into::into).collect() })
}

/// The status of a service at this moment.
pub(super) fn status(coordinator: &Coordinator, service: &Service) -> Result<v1::ServiceStatus, Refusal> {
    Ok(model_status(coordinator, service)?.into())
}

fn model_status(coordinator: &Coordinator, service: &Service) -> Result<ServiceStatus, Refusal> {
    let view = Arc::clone(&coordinator.view.borrow());
    let mut instances = Vec::new();
    if let Some(progress) = view.snapshot.progress.get(&service.name) {
        let looks = coordinator.sessions.look();
        for (slot, at) in &progress.value.slots {
            instances.push(placed(service, *slot, at, &looks)?);
        }
    }
    Ok(ServiceStatus {
        name: service.name.clone(),
        report: view.report.services.get(&service.name).cloned().unwrap_or_default(),
        instances,
        releases: service.releases.values().cloned().collect(),
        traffic: super::traffic::of(coordinator, service),
        webhooks: coordinator.undelivered.of(&service.name),
        now: coordinator.clock.now(),
        removed: service.removed,
    })
}

/// An instance where it is placed, with what its node says of it.
pub(super) fn placed(
    service: &Service,
    slot: u64,
    at: &Slot,
    looks: &Looks<'_>,
) -> Result<PlacedInstance, Refusal> {
    let id = InstanceId { service: service.name.clone(), slot };
    let look = looks.get(&at.node);
    let version = match service.releases.get(&at.release) {
        Some(release) => release.version.clone(),
        None => Version::new("unknown")?,
    };
    Ok(PlacedInstance {
        node: at.node.clone(),
        wanted_release: at.release,
        wanted_version: version,
        node_silent: look.is_none_or(|look| look.silent),
        observed: look.and_then(|look| look.observed.instances.get(&id).cloned()),
        metrics: look.and_then(|look| look.metrics).and_then(|metrics| metrics.instances.get(&id).copied()),
        id,
    })
}

/// Sends the status at once, and again after every change; what is counted of its requests counts as one.
pub(super) async fn watch(
    coordinator: &Arc<Coordinator>,
    request: v1::ServiceRef,
) -> Result<Answers<v1::ServiceStatus>, Refusal> {
    let service = find(coordinator, request).await?;
    let (sender, answers) = mpsc::channel(WATCH_AHEAD);
    let coordinator = Arc::clone(coordinator);
    tokio::spawn(async move {
        let stop = coordinator.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            () = follow(&coordinator, service, &sender) => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(answers)))
}

async fn follow(
    coordinator: &Coordinator,
    service: Service,
    sender: &mpsc::Sender<Result<v1::ServiceStatus, Status>>,
) {
    let name = service.name.clone();
    let mut view = coordinator.view.clone();
    let mut observed = coordinator.sessions.changes();
    let mut undelivered = coordinator.undelivered.changes();
    let mut stored = coordinator.records.store().watch(&records::service(&name));
    let mut service = Ok(Some(service));
    let mut shown: Option<ServiceStatus> = None;
    loop {
        view.mark_unchanged();
        observed.mark_unchanged();
        undelivered.mark_unchanged();
        let next = match service {
            Ok(Some(service)) => model_status(coordinator, &service),
            Ok(None) => Err(unknown(&name)),
            Err(error) => Err(Refusal::from(error)),
        };
        let next = match next {
            Ok(next) => next,
            Err(refusal) => {
                // The watcher may be gone already; then nobody needs to know.
                let _ = sender.send(Err(refusal.into())).await;
                return;
            }
        };
        let is_routed = !next.traffic.is_empty();
        if !shown.as_ref().is_some_and(|shown| looks_the_same(shown, &next)) {
            shown = Some(next.clone());
            if sender.send(Ok(next.into())).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = observed.changed() => if changed.is_err() { return },
            changed = undelivered.changed() => if changed.is_err() { return },
            changed = stored.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TRAFFIC_EVERY), if is_routed => {}
        }
        tokio::time::sleep(COALESCE).await;
        let read = coordinator.records.get::<Service>(&records::service(&name)).await;
        service = read.map(|read| read.map(|read| read.value));
    }
}

/// Whether two statuses differ only in their time and in what agents measure.
fn looks_the_same(shown: &ServiceStatus, next: &ServiceStatus) -> bool {
    let instances = shown.instances.iter().zip(&next.instances);
    shown.report == next.report
        && shown.removed == next.removed
        && shown.traffic == next.traffic
        && shown.webhooks == next.webhooks
        && shown.releases == next.releases
        && shown.instances.len() == next.instances.len()
        && instances.into_iter().all(|(a, b)| {
            PlacedInstance { metrics: None, ..a.clone() } == PlacedInstance { metrics: None, ..b.clone() }
        })
}

/// Stops a service everywhere and forgets it, as soon as nothing of it runs any more.
pub(super) async fn remove(
    coordinator: &Coordinator,
    by: &str,
    request: v1::ServiceRef,
) -> Result<v1::ServiceStatus, Refusal> {
    let name = ServiceName::new(request.service)?;
    let key = records::service(&name);
    for _ in 0..ATTEMPTS_MAX {
        let read = coordinator.records.get::<Service>(&key).await?.ok_or_else(|| unknown(&name))?;
        let (revision, mut service) = (read.revision, read.value);
        if std::mem::replace(&mut service.removed, true) {
            return status(coordinator, &service);
        }
        super::order::check_removal(coordinator, &name).await?;
        match coordinator.records.put(&key, revision, &service).await {
            Ok(_) => {
                let mut event = event(
                    coordinator.clock.now(),
                    Severity::Info,
                    "removal-requested",
                    format!("{by} asked to remove {name}"),
                );
                event.service = Some(name.clone());
                coordinator.journal.record(vec![event]);
                return status(coordinator, &service);
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("service `{name}`")))
}
