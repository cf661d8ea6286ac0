//! When a stage has failed: more of its instances than are tolerated, too many relapses, or its time.

use super::tally::Tally;
use crate::progress::{RolloutProgress, StageProgress};
use baton_model::id::ServiceName;
use baton_model::rollout::RolloutPolicy;
use baton_model::time::UnixMs;

/// How often one stage may lose its health again while it bakes; a release that flaps more than this has failed.
const RELAPSES_MAX: u32 = 3;

/// Why the stage has failed, if it has. Silent nodes alone do not fail it: they are awaited, then replaced.
pub(super) fn failure(
    service: &ServiceName,
    rollout: &RolloutProgress,
    stage: &StageProgress,
    number: u32,
    policy: &RolloutPolicy,
    tally: &Tally,
    now: UnixMs,
) -> Option<String> {
    let whole = u32::try_from(stage.cohort.len()).unwrap_or(u32::MAX);
    let failed = u32::try_from(stage.failed.len()).unwrap_or(u32::MAX);
    // While nothing has come up anywhere, the release has proven nothing, whatever is tolerated.
    let unproven = failed == whole && rollout.stages.iter().all(|stage| stage.healthy.is_empty());
    let tolerated = if unproven { 0 } else { policy.failure_tolerance.floor_of(whole) };
    let title = &stage.title;
    if failed > tolerated && !rollout.back() {
        let (slot, why) = stage.failed.iter().next()?;
        return Some(format!(
            "stage {number} ({title}): {failed} of {whole} failed, {tolerated} tolerated; {service}.{slot}: {why}"
        ));
    }
    if stage.relapses > RELAPSES_MAX {
        return Some(format!(
            "stage {number} ({title}) lost its health {} times while it baked",
            stage.relapses
        ));
    }
    let waits = tally.open > tally.deferred || tally.missing > 0;
    if waits && now >= rollout.progressed_at.plus(policy.progress_deadline) {
        return Some(format!(
            "stage {number} ({title}): no instance became healthy within {}",
            policy.progress_deadline
        ));
    }
    None
}
