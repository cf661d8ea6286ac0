//! What the instances of a release use of their nodes, against a bound. The worst instance counts, since a fleet's average hides
//! the one that is about to be killed for memory; what was not measured for the whole window is not known, and does not pass.

use super::bound::holds;
use crate::turn::Turn;
use baton_model::id::{InstanceId, ReleaseNumber};
use baton_model::metrics::Usage;
use baton_model::rollout::{Answer, Measured, Metric, Threshold, Verdict};
use baton_model::time::{Millis, UnixMs};

/// Agents measure every two seconds; without a sample for this long something is missing.
const GAP_MAX: Millis = Millis::secs(10);

/// What is known of one instance.
struct Reading {
    id: InstanceId,
    /// Of what was measured in the window; `None` where nothing was.
    measured: Option<Measured>,
    /// It was measured for the whole window.
    whole: bool,
}

/// The verdict on a release since it got its share. A bound on memory is broken by a single sample above it; an average of
/// processor time is one only over the whole window.
pub(super) fn answer(
    turn: &Turn<'_>,
    release: ReleaseNumber,
    since: UnixMs,
    threshold: &Threshold,
) -> Verdict {
    let (now, metric) = (turn.now, &threshold.metric);
    let begin = UnixMs(now.0.saturating_sub(threshold.window.0)).max(since);
    let (readings, unheard) = readings(turn, release, begin, threshold);
    let measured = |reading: &&Reading| reading.measured.map(size).unwrap_or_default();
    let worst = readings.iter().max_by_key(measured).filter(|worst| worst.measured.is_some());
    let broken = |reading: &&Reading| {
        let counts = reading.whole || matches!(metric, Metric::Memory { .. });
        counts && reading.measured.is_some_and(|measured| !holds(metric, measured))
    };
    let broken = readings.iter().filter(broken).max_by_key(measured);
    let known = !unheard && !readings.is_empty() && readings.iter().all(|reading| reading.whole);
    let (answer, told) = match (broken, known) {
        (Some(broken), _) => (Answer::Fail, Some(broken)),
        (None, true) => (Answer::Pass, worst),
        (None, false) => (Answer::Inconclusive, worst),
    };
    let (name, window) = (&threshold.name, threshold.window);
    let text = match (answer, told) {
        (Answer::Fail, Some(Reading { id, measured: Some(measured), .. })) => {
            format!("{name} ({metric}) is broken: {measured} of {id} over {}", seconds(now.since(begin)))
        }
        (Answer::Pass, Some(Reading { id, measured: Some(measured), .. })) => {
            format!(
                "{name} ({metric}) holds: {measured} of {id}, the most, over {}",
                seconds(now.since(begin))
            )
        }
        (Answer::Fail | Answer::Pass | Answer::Inconclusive, _) if unheard => {
            format!("{name} ({metric}): not all of its instances can be asked")
        }
        (Answer::Fail | Answer::Pass | Answer::Inconclusive, _) => {
            format!("{name} ({metric}): not all of its instances were measured for {window} yet")
        }
    };
    let measured = told.and_then(|reading| reading.measured);
    Verdict { name: name.clone(), answer, at: now, since: begin, requests: 0, measured, text }
}

/// Of each instance that runs the release; and whether there is one on a node that is not heard.
fn readings(
    turn: &Turn<'_>,
    release: ReleaseNumber,
    begin: UnixMs,
    threshold: &Threshold,
) -> (Vec<Reading>, bool) {
    let (mut readings, mut unheard) = (Vec::new(), false);
    for (number, _, sight) in turn.live_seen().filter(|(_, slot, _)| slot.release == release) {
        unheard |= !sight.heard;
        // One that is still to be changed runs the release before.
        if !sight.heard || sight.seen.is_none_or(|seen| seen.release != release) {
            continue;
        }
        let id = turn.id(number);
        let all = turn.sightings.input.observed.usage.get(&id);
        let of_release = |sample: &&Usage| sample.release == release && sample.at > begin;
        let samples: Vec<&Usage> = all.iter().flat_map(|all| all.iter()).filter(of_release).collect();
        let window = turn.now.since(begin) >= threshold.window;
        readings.push(Reading {
            id,
            measured: measured(&threshold.metric, &samples),
            whole: window && is_whole(&samples, begin, turn.now),
        });
    }
    (readings, unheard)
}

/// Whether no time of the window is without samples.
fn is_whole(samples: &[&Usage], begin: UnixMs, now: UnixMs) -> bool {
    let mut before = begin;
    for sample in samples {
        if sample.at.since(before) > GAP_MAX {
            return false;
        }
        before = sample.at;
    }
    !samples.is_empty() && now.since(before) <= GAP_MAX
}

fn measured(metric: &Metric, samples: &[&Usage]) -> Option<Measured> {
    let count = u64::try_from(samples.len()).ok().filter(|count| *count > 0)?;
    match metric {
        Metric::Cpu { .. } => {
            let sum: u64 = samples.iter().map(|sample| sample.milli_cores).sum();
            Some(Measured::MilliCores(sum.div_ceil(count)))
        }
        Metric::Memory { .. } => samples.iter().map(|sample| sample.memory_bytes).max().map(Measured::Bytes),
        Metric::ErrorShare { .. }
        | Metric::Latency { .. }
        | Metric::RequestRate { .. }
        | Metric::Restarts { .. }
        | Metric::Differing { .. } => None,
    }
}

/// To find the worst: all of them are in one unit.
fn size(measured: Measured) -> u64 {
    match measured {
        Measured::Share(share) => share.0.into(),
        Measured::Micros(size)
        | Measured::MilliRate(size)
        | Measured::Count(size)
        | Measured::MilliCores(size)
        | Measured::Bytes(size) => size,
    }
}

fn seconds(length: Millis) -> Millis {
    Millis::secs(length.0 / 1000)
}
