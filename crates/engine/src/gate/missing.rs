//! Why there is too little evidence, for people: who does not count, who is left out, or that nobody asks.

use crate::progress::StageProgress;
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::Threshold;
use baton_model::time::Millis;

/// Gateways report each second; after this long without a request it is worth saying.
const QUIET: Millis = Millis::secs(5);

/// Why gateways can count nothing for these thresholds; `None` where one does, or none is asked.
pub(crate) fn uncounted(turn: &Turn<'_>, thresholds: &[Threshold]) -> Option<String> {
    let asked = thresholds.iter().any(|threshold| threshold.metric.is_from_gateways());
    if asked { turn.sightings.gateways.absent(turn.name) } else { None }
}

/// Why gateways have counted too little of a release since a stage gave it its share; `None` where it only takes its time.
pub(crate) fn why(turn: &Turn<'_>, release: ReleaseNumber, stage: &StageProgress) -> Option<String> {
    if let Some(blind) = turn.sightings.gateways.blind(turn.name) {
        return Some(blind);
    }
    let since = stage.shifted_at?;
    let series = turn.sightings.input.observed.evidence.get(turn.name);
    let counted = series.map(|series| series.since(release, since)).unwrap_or_default();
    if counted.diverted > 0 {
        let diverted = counted.diverted;
        return Some(format!(
            "gateways leave its instances out, since they fail; {diverted} requests went to another release"
        ));
    }
    let quiet = turn.now.since(since) >= QUIET && counted.asked() == 0;
    quiet.then(|| format!("no request for it has come in the {} since it got its share", length(turn, stage)))
}

/// In whole seconds.
fn length(turn: &Turn<'_>, stage: &StageProgress) -> Millis {
    let waited = turn.now.since(stage.shifted_at.unwrap_or(turn.now));
    Millis::secs(waited.0 / 1000)
}
