//! Deploy and undo: they write what operators want, and nothing else. What is answered is durable.

use super::releases::{self, Wanted};
use super::status::Refusal;
use super::{ATTEMPTS_MAX, artifacts::blocking, contended};
use crate::artifacts::ArtifactError;
use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_engine::cycle::{Snapshot, Versioned};
use baton_engine::input::{ALL_CONFIRMED, Input};
use baton_engine::progress::{Progress, ServiceProgress};
use baton_model::artifact::Artifact;
use baton_model::desired::{Release, Service};
use baton_model::event::Severity;
use baton_model::id::{ReleaseNumber, Revision, RolloutId, ServiceName, Version};
use baton_model::rollout::{RolloutControl, RolloutKind, RolloutRequest};
use baton_model::spec::ServiceSpec;
use baton_model::time::UnixMs;
use baton_proto::v1;
use std::sync::Arc;

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) by: &'a str,
    pub(super) at: UnixMs,
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// This very release is wanted already.
    Unchanged(RolloutId),
    /// The service is to be written so.
    Write(Service),
}

pub(super) async fn deploy(
    coordinator: &Arc<Coordinator>,
    by: &str,
    request: v1::DeployRequest,
) -> Result<v1::RolloutRef, Refusal> {
    let mut wanted = wanted(request)?;
    // Held until the release is written: its secrets must not be removed in between.
    let _pinned = coordinator.secrets.in_use.read().await;
    coordinator.secrets.pin(&mut wanted.spec).await?;
    // Held until the release is written: the collector must not take the artifact away in between.
    let _in_use = coordinator.artifacts.in_use.read().await;
    present(coordinator, &wanted.artifact).await?;
    super::order::check(coordinator, &wanted.spec).await?;
    super::overlap::check(coordinator, &wanted.spec).await?;
    let name = wanted.spec.name.clone();
    let asked = Asked { by, at: coordinator.clock.now() };
    let mut rollout =
        write(coordinator, &name, |service, snapshot| deployed(service, &wanted, asked, snapshot)).await?;
    rollout.warnings = warnings(coordinator, &wanted.spec, asked.at);
    if !rollout.unchanged {
        let message = format!("{by} asked for {name} {}", wanted.version);
        note(coordinator, "deploy-requested", &name, message);
    }
    Ok(rollout)
}

/// What whoever deploys is to know. A first release has nothing to be compared with, and its thresholds are not asked.
fn warnings(coordinator: &Coordinator, spec: &ServiceSpec, now: UnixMs) -> Vec<String> {
    let snapshot = Arc::clone(&coordinator.view.borrow().snapshot);
    if progress_of(&snapshot, &spec.name).is_none_or(|progress| progress.stable.is_none()) {
        return Vec::new();
    }
    let input = Input {
        desired: &snapshot.desired,
        observed: &coordinator.observed(),
        progress: &Progress::default(),
        unconfirmed: &ALL_CONFIRMED,
        now,
    };
    baton_engine::warning(&input, spec).into_iter().collect()
}

pub(super) async fn undo(
    coordinator: &Arc<Coordinator>,
    by: &str,
    request: v1::UndoRequest,
) -> Result<v1::RolloutRef, Refusal> {
    let name = ServiceName::new(request.service)?;
    let version = request.version.map(Version::new).transpose()?;
    let asked = Asked { by, at: coordinator.clock.now() };
    let rollout = write(coordinator, &name, |service, snapshot| {
        let service =
            service.filter(|service| !service.removed).ok_or_else(|| super::services::unknown(&name))?;
        let progress = progress_of(snapshot, &name);
        let target = releases::undo_target(&service, version.as_ref(), progress)?;
        Ok(request_release(service, target, RolloutKind::Undo, asked, snapshot))
    })
    .await?;
    if !rollout.unchanged {
        note(coordinator, "undo-requested", &name, format!("{by} asked {name} to go back"));
    }
    Ok(rollout)
}

/// Checks a deploy request: that it can be read, and that it makes sense as a whole.
pub(super) fn wanted(request: v1::DeployRequest) -> Result<Wanted, Refusal> {
    let missing = |what: &str| Refusal::Invalid(format!("the deploy names no {what}; upgrade the CLI"));
    let spec: ServiceSpec = request.spec.ok_or_else(|| missing("service"))?.try_into().map_err(invalid)?;
    let artifact: Artifact =
        request.artifact.ok_or_else(|| missing("artifact"))?.try_into().map_err(invalid)?;
    let version = Version::new(request.version)?;
    let problems = baton_model::file::check_spec(&spec);
    if !problems.is_empty() {
        return Err(Refusal::Invalid(format!(
            "the service file of `{}` cannot be used: {}",
            spec.name,
            problems.join("; ")
        )));
    }
    Ok(Wanted { version, artifact, spec })
}

fn invalid(error: impl std::fmt::Display) -> Refusal {
    Refusal::Invalid(format!(
        "the deploy cannot be read: {error}; check the service file with `baton validate`, and that CLI and coordinator have the same version"
    ))
}

/// The artifact must be here in full before a release may name it.
pub(super) async fn present(coordinator: &Arc<Coordinator>, artifact: &Artifact) -> Result<(), Refusal> {
    let (artifacts, digest) = (Arc::clone(&coordinator.artifacts), artifact.digest);
    let stat = blocking(move || artifacts.stat(digest)).await?;
    if !stat.complete {
        return Err(ArtifactError::Missing(digest).into());
    }
    if stat.offset != artifact.size_bytes {
        return Err(Refusal::Invalid(format!(
            "artifact {digest} has {} bytes, and the deploy says {}; pack and deploy it again",
            stat.offset, artifact.size_bytes
        )));
    }
    Ok(())
}

/// Reads a service, decides what it should be, and writes that, as often as others get in between.
async fn write(
    coordinator: &Coordinator,
    name: &ServiceName,
    decide: impl Fn(Option<Service>, &Snapshot) -> Result<Step, Refusal>,
) -> Result<v1::RolloutRef, Refusal> {
    let key = records::service(name);
    for _ in 0..ATTEMPTS_MAX {
        let (revision, service) = match coordinator.records.get::<Service>(&key).await? {
            Some(Versioned { revision, value }) => (revision, Some(value)),
            None => (Revision(0), None),
        };
        let snapshot = Arc::clone(&coordinator.view.borrow().snapshot);
        let service = match decide(service, &snapshot)? {
            Step::Unchanged(rollout) => {
                return Ok(v1::RolloutRef {
                    service: name.to_string(),
                    rollout: rollout.0,
                    unchanged: true,
                    warnings: Vec::new(),
                });
            }
            Step::Write(service) => service,
        };
        let rollout = service.request.as_ref().map_or(RolloutId(0), |request| request.id);
        match coordinator.records.put(&key, revision, &service).await {
            Ok(_) => {
                return Ok(v1::RolloutRef {
                    service: name.to_string(),
                    rollout: rollout.0,
                    unchanged: false,
                    warnings: Vec::new(),
                });
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("service `{name}`")))
}

/// What a deploy makes of a service.
pub(super) fn deployed(
    service: Option<Service>,
    wanted: &Wanted,
    asked: Asked<'_>,
    snapshot: &Snapshot,
) -> Result<Step, Refusal> {
    let mut service = service.unwrap_or_else(|| Service {
        name: wanted.spec.name.clone(),
        releases: std::collections::BTreeMap::new(),
        request: None,
        control: RolloutControl::default(),
        removed: false,
        reload: 0,
    });
    let number = match releases::existing(&service, wanted)? {
        Some(number) => number,
        None => {
            let number = releases::next_number(&service);
            let release = Release {
                number,
                version: wanted.version.clone(),
                artifact: wanted.artifact.clone(),
                spec: wanted.spec.clone(),
                created_at: asked.at,
                created_by: asked.by.to_owned(),
            };
            service.releases.insert(number, release);
            number
        }
    };
    Ok(request_release(service, number, RolloutKind::Deploy, asked, snapshot))
}

/// Asks for a release, unless it is what is wanted already.
fn request_release(
    mut service: Service,
    to: ReleaseNumber,
    kind: RolloutKind,
    asked: Asked<'_>,
    snapshot: &Snapshot,
) -> Step {
    let progress = progress_of(snapshot, &service.name);
    if !service.removed
        && let Some(request) =
            service.request.as_ref().filter(|_| releases::is_wanted(&service, to, progress))
    {
        return Step::Unchanged(request.id);
    }
    let requested = service.request.as_ref().map_or(RolloutId(0), |request| request.id);
    let remembered =
        progress.and_then(|progress| progress.rollout.as_ref()).map_or(RolloutId(0), |rollout| rollout.id);
    let id = requested.max(remembered).next();
    service.request =
        Some(RolloutRequest { id, to, kind, requested_at: asked.at, requested_by: asked.by.to_owned() });
    service.control = RolloutControl { rollout: id, ..RolloutControl::default() };
    service.removed = false;
    releases::trim(&mut service, snapshot);
    Step::Write(service)
}

fn progress_of<'a>(snapshot: &'a Snapshot, service: &ServiceName) -> Option<&'a ServiceProgress> {
    snapshot.progress.get(service).map(|progress| &progress.value)
}

fn note(coordinator: &Coordinator, kind: &str, service: &ServiceName, message: String) {
    let mut event = event(coordinator.clock.now(), Severity::Info, kind, message);
    event.service = Some(service.clone());
    coordinator.journal.record(vec![event]);
}
