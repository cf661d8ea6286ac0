//! Which releases of a service exist, which are in use, and which are kept.

use baton_engine::cycle::Snapshot;
use baton_engine::progress::ServiceProgress;
use baton_model::artifact::Artifact;
use baton_model::desired::{Release, Service};
use baton_model::id::{ReleaseNumber, ServiceName, Version};
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use std::collections::BTreeSet;

use super::status::Refusal;
use baton_model::spec::ServiceSpec;

/// Releases kept besides those in use and the one that served before: the present one and the three before it.
const KEPT: usize = 4;

/// What a deploy asks for, checked.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) version: Version,
    pub(super) artifact: Artifact,
    pub(super) spec: ServiceSpec,
}

/// The release of the same version, where there is one.
///
/// # Errors
/// When that version has other content: a version names one thing for ever.
pub(super) fn existing(service: &Service, wanted: &Wanted) -> Result<Option<ReleaseNumber>, Refusal> {
    let Some(release) = service.releases.values().find(|release| release.version == wanted.version) else {
        return Ok(None);
    };
    let differs = match (release.artifact == wanted.artifact, release.spec == wanted.spec) {
        (true, true) => return Ok(Some(release.number)),
        (false, true) => "another artifact",
        (true, false) if same_but_secrets(&release.spec, &wanted.spec) => "older values of its secrets",
        (true, false) => "another service file",
        (false, false) => "another artifact and another service file",
    };
    Err(Refusal::AlreadyExists(format!(
        "version {} of `{}` exists as release {} with {differs}; a version never changes, deploy this under another one (`--version`)",
        wanted.version, service.name, release.number
    )))
}

/// Whether nothing differs but the revisions of secrets.
fn same_but_secrets(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    let mut unpinned = [old.clone(), new.clone()];
    for spec in &mut unpinned {
        spec.configuration.secrets.values_mut().for_each(|used| used.revision = 0);
    }
    unpinned[0] == unpinned[1]
}

/// The number of the next release.
pub(super) fn next_number(service: &Service) -> ReleaseNumber {
    service.releases.keys().next_back().copied().unwrap_or_default().next()
}

/// Drops old releases that nothing uses.
pub(super) fn trim(service: &mut Service, snapshot: &Snapshot) {
    let used = in_use(service, snapshot);
    let kept: BTreeSet<ReleaseNumber> = service.releases.keys().rev().take(KEPT).copied().collect();
    service.releases.retain(|number, _| used.contains(number) || kept.contains(number));
}

/// The releases something refers to.
fn in_use(service: &Service, snapshot: &Snapshot) -> BTreeSet<ReleaseNumber> {
    let mut used: BTreeSet<ReleaseNumber> = service.request.iter().map(|request| request.to).collect();
    if let Some(progress) = snapshot.progress.get(&service.name) {
        used.extend(progress.value.stable);
        used.extend(progress.value.stable.and_then(|stable| before(&progress.value, stable)));
        used.extend(progress.value.slots.values().map(|slot| slot.release));
        if let Some(rollout) = &progress.value.rollout {
            used.extend(rollout.from);
            used.insert(rollout.to);
        }
    }
    for plan in snapshot.plans.values() {
        let of_service = plan.value.assignments.iter().filter(|(id, _)| id.service == service.name);
        used.extend(of_service.map(|(_, assignment)| assignment.release));
    }
    used
}

/// Whether the latest request is at `number` and has not come to nothing.
pub(super) fn is_wanted(
    service: &Service,
    number: ReleaseNumber,
    progress: Option<&ServiceProgress>,
) -> bool {
    let Some(request) = service.request.as_ref().filter(|request| request.to == number) else { return false };
    let rollout =
        progress.and_then(|progress| progress.rollout.as_ref()).filter(|rollout| rollout.id == request.id);
    match rollout.map(|rollout| rollout.outcome) {
        None | Some(RolloutOutcome::Running | RolloutOutcome::Paused | RolloutOutcome::Succeeded) => true,
        Some(
            RolloutOutcome::RollingBack
            | RolloutOutcome::RolledBack
            | RolloutOutcome::Superseded
            | RolloutOutcome::Failed,
        ) => false,
    }
}

/// The release an undo goes to: the named one, or the one before the present.
pub(super) fn undo_target(
    service: &Service,
    version: Option<&Version>,
    progress: Option<&ServiceProgress>,
) -> Result<ReleaseNumber, Refusal> {
    if let Some(version) = version {
        let found = service.releases.values().find(|release| release.version == *version);
        return found.map(|release| release.number).ok_or_else(|| not_kept(service, version));
    }
    let asked = service.request.as_ref().map(|request| (request.id, request.to));
    let rollout = progress.and_then(|progress| progress.rollout.as_ref());
    let current = rollout.filter(|rollout| asked.is_some_and(|(id, _)| rollout.id == id));
    let from = match current.map(|rollout| (rollout.outcome, rollout.from)) {
        Some((RolloutOutcome::Running | RolloutOutcome::Paused | RolloutOutcome::Succeeded, from)) => from,
        Some((
            RolloutOutcome::RollingBack
            | RolloutOutcome::RolledBack
            | RolloutOutcome::Superseded
            | RolloutOutcome::Failed,
            _,
        )) => None,
        // Asked for, and not taken up yet: the release before is the one that runs.
        None => progress
            .and_then(|progress| progress.stable)
            .filter(|stable| asked.is_some_and(|(_, to)| to != *stable)),
    };
    let present = progress.and_then(|progress| progress.stable).or(asked.map(|(_, to)| to));
    let is_kept = |number: &ReleaseNumber| service.releases.contains_key(number);
    let served = present.and_then(|present| before(progress?, present));
    let older =
        present.and_then(|present| service.releases.range(..present).next_back().map(|(number, _)| *number));
    from.filter(is_kept).or(served.filter(is_kept)).or(older).ok_or_else(|| no_earlier(&service.name))
}

/// The release that served before `present` did, as far as is remembered: what was tried in between and given up is none.
fn before(progress: &ServiceProgress, present: ReleaseNumber) -> Option<ReleaseNumber> {
    let brought = |report: &&RolloutReport| {
        let succeeded = report.outcome == RolloutOutcome::Succeeded;
        succeeded && report.to == present && report.from != Some(present)
    };
    progress.history.iter().rev().find(brought).and_then(|report| report.from)
}

fn not_kept(service: &Service, version: &Version) -> Refusal {
    let kept: Vec<&str> =
        service.releases.values().map(|release: &Release| release.version.as_str()).collect();
    Refusal::NotFound(format!(
        "`{}` has no release {version}; these are kept: {}. Deploy {version} again instead",
        service.name,
        kept.join(", ")
    ))
}

fn no_earlier(service: &ServiceName) -> Refusal {
    Refusal::NotNow(format!(
        "`{service}` has no release before the present one; deploy another version instead"
    ))
}

#[cfg(test)]
mod tests;
