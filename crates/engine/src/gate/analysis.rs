//! Analysis: the evidence of the new release against the thresholds of its policy. Missing data is never a pass, and a
//! verdict keeps the data that it was made from.

use super::bound::holds;
use super::usage;
use crate::progress::StageProgress;
use crate::turn::Turn;
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::ReleaseNumber;
use baton_model::observed::EvidenceSeries;
use baton_model::rollout::{Answer, Measured, Metric, Threshold, Verdict};
use baton_model::route::Weight;
use baton_model::time::{Millis, UnixMs};

/// What a window may lack and count as whole: gateways report by the second, and neither the present second nor the one in
/// which the window begins is in it.
const UNREPORTED_MAX: Millis = Millis::secs(2);

/// The verdicts on a release since a stage moved the requests to it.
pub(crate) fn of(
    turn: &Turn<'_>,
    release: ReleaseNumber,
    stage: &StageProgress,
    thresholds: &[Threshold],
) -> Vec<Verdict> {
    let subject = Subject {
        series: turn.sightings.input.observed.evidence.get(turn.name),
        release,
        since: stage.shifted_at.unwrap_or(turn.now),
        restarts: restarts(turn, release).map(|all| all.saturating_sub(stage.restarts_before)),
        now: turn.now,
    };
    let answered = |threshold: &Threshold| {
        if threshold.metric.is_usage() {
            usage::answer(turn, release, subject.since, threshold)
        } else {
            answer(threshold, &subject)
        }
    };
    thresholds.iter().map(answered).collect()
}

/// The verdict on a release of which no instance is ready: of each request that is its own, nobody of it can answer.
pub(crate) fn nobody(verdict: &mut Verdict, threshold: &Threshold) {
    let Threshold { name, metric, .. } = threshold;
    match metric {
        Metric::ErrorShare { .. } => {
            verdict.answer = Answer::Fail;
            verdict.text = format!("{name} ({metric}) is broken: none of its instances is ready any more");
        }
        Metric::Latency { .. }
        | Metric::RequestRate { .. }
        | Metric::Restarts { .. }
        | Metric::Cpu { .. }
        | Metric::Memory { .. }
        | Metric::Differing { .. } => {}
    }
}

/// Restarts of the instances that run the release; `None` when one of them is on a node that is silent.
pub(crate) fn restarts(turn: &Turn<'_>, release: ReleaseNumber) -> Option<u64> {
    let running = turn.live_seen().filter(|(_, slot, _)| slot.release == release);
    let each = running.map(|(_, _, sight)| {
        let seen = sight.seen.filter(|seen| seen.release == release);
        sight.heard.then(|| seen.map_or(0, |seen| u64::from(seen.restarts)))
    });
    each.sum()
}

/// What the thresholds are asked about.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    /// What gateways counted of the service; `None` where none has reported.
    series: Option<&'a EvidenceSeries>,
    /// The release that is judged.
    release: ReleaseNumber,
    /// When its share of the requests came into force; nothing older counts.
    since: UnixMs,
    /// Restarts of its instances; `None` where not all of them can be asked.
    restarts: Option<u64>,
    /// The time.
    now: UnixMs,
}

/// Whether every threshold is answered well.
pub(crate) fn passed(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| verdict.answer == Answer::Pass)
}

fn answer(threshold: &Threshold, subject: &Subject<'_>) -> Verdict {
    let (since, evidence) = evidence(threshold, subject);
    let requests = count(&threshold.metric, &evidence);
    // What agents count needs no requests.
    let enough = !threshold.metric.is_from_gateways() || requests >= u64::from(threshold.requests_min);
    let measured = match threshold.metric {
        Metric::ErrorShare { .. } => share(evidence.failed(), requests),
        Metric::Differing { .. } => share(evidence.differing, requests),
        Metric::Latency { quantile, .. } => {
            (requests > 0).then(|| Measured::Micros(micros(&evidence, quantile)))
        }
        Metric::RequestRate { .. } => rate(threshold, subject, requests, covered(subject, since)),
        Metric::Restarts { .. } => subject.restarts.map(Measured::Count),
        // See `usage`.
        Metric::Cpu { .. } | Metric::Memory { .. } => None,
    };
    let answer = match (measured, enough) {
        (Some(measured), true) if holds(&threshold.metric, measured) => Answer::Pass,
        (Some(_), true) => Answer::Fail,
        (Some(_) | None, _) => Answer::Inconclusive,
    };
    let length = match threshold.metric {
        Metric::RequestRate { .. } => covered(subject, since),
        Metric::ErrorShare { .. }
        | Metric::Differing { .. }
        | Metric::Latency { .. }
        | Metric::Cpu { .. }
        | Metric::Memory { .. }
        | Metric::Restarts { .. } => subject.now.since(since),
    };
    let text = text(threshold, answer, measured, requests, length);
    Verdict { name: threshold.name.clone(), answer, at: subject.now, since, requests, measured, text }
}

/// For how long since then gateways have reported.
fn covered(subject: &Subject<'_>, since: UnixMs) -> Millis {
    subject.series.map(|series| series.covered(since)).unwrap_or_default()
}

/// Requests a second of the time in which they were counted. Over a part of its window a rate would be a guess, and seconds in
/// which nobody reported, as after a start of the coordinator, are not seconds without requests.
fn rate(threshold: &Threshold, subject: &Subject<'_>, requests: u64, covered: Millis) -> Option<Measured> {
    let window = UnixMs(subject.now.0.saturating_sub(threshold.window.0));
    let reported = Millis(self::covered(subject, window).0 + UNREPORTED_MAX.0);
    let whole = window >= subject.since && reported >= threshold.window && covered > Millis::ZERO;
    whole.then(|| Measured::MilliRate(requests.saturating_mul(1_000_000) / covered.0))
}

/// The evidence of the threshold's window; of all the time since the release was given its share, where the window has
/// too little.
fn evidence(threshold: &Threshold, subject: &Subject<'_>) -> (UnixMs, ReleaseEvidence) {
    let Some(series) = subject.series else { return (subject.since, ReleaseEvidence::default()) };
    let window = UnixMs(subject.now.0.saturating_sub(threshold.window.0)).max(subject.since);
    let recent = series.since(subject.release, window);
    let enough = count(&threshold.metric, &recent) >= u64::from(threshold.requests_min);
    if enough || window == subject.since {
        return (window, recent);
    }
    (subject.since, series.since(subject.release, subject.since))
}

/// What counts as evidence for a metric.
fn count(metric: &Metric, evidence: &ReleaseEvidence) -> u64 {
    match metric {
        Metric::ErrorShare { .. } => evidence.asked(),
        Metric::RequestRate { .. } => evidence.ended(),
        Metric::Latency { .. } => evidence.latency.total(),
        Metric::Differing { .. } => evidence.compared,
        Metric::Restarts { .. } | Metric::Cpu { .. } | Metric::Memory { .. } => 0,
    }
}

/// A share rounded up, so that one failure in a million is not none.
fn share(part: u64, whole: u64) -> Option<Measured> {
    let all = u64::from(Weight::ALL.0);
    let hundredths = (whole > 0).then(|| part.saturating_mul(all).div_ceil(whole).min(all))?;
    u16::try_from(hundredths).ok().map(|share| Measured::Share(Weight(share)))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a latency is far below 2^52")]
fn micros(evidence: &ReleaseEvidence, quantile: Weight) -> u64 {
    let quantile = f64::from(quantile.0) / f64::from(Weight::ALL.0);
    (evidence.latency.quantile_ms(quantile) * 1000.0).round() as u64
}

fn text(
    threshold: &Threshold,
    answer: Answer,
    measured: Option<Measured>,
    requests: u64,
    span: Millis,
) -> String {
    let Threshold { name, metric, .. } = threshold;
    match (answer, measured) {
        (Answer::Pass | Answer::Fail, Some(measured)) => {
            let verb = if answer == Answer::Pass { "holds" } else { "is broken" };
            let over = if span < Millis::secs(1) { span } else { Millis::secs(span.0 / 1000) };
            format!("{name} ({metric}) {verb}: {measured} over {over}, {requests} requests")
        }
        (Answer::Inconclusive | Answer::Pass | Answer::Fail, _) => match metric {
            Metric::Restarts { .. } | Metric::Cpu { .. } | Metric::Memory { .. } => {
                format!("{name} ({metric}): not all of its instances can be asked")
            }
            Metric::RequestRate { .. } => {
                format!("{name} ({metric}): not measured for {} yet", threshold.window)
            }
            Metric::ErrorShare { .. } | Metric::Latency { .. } | Metric::Differing { .. } => format!(
                "{name} ({metric}): not enough evidence, {requests} of {} requests",
                threshold.requests_min.max(1)
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::rollout::AnalysisAction;
    use std::collections::BTreeMap;

    /// One span of 10 s for each entry, the last one ending at 100 s: answers, errors, and milliseconds of each.
    fn series(spans: &[(u64, u64, u64)]) -> EvidenceSeries {
        let mut series = EvidenceSeries::default();
        for (index, (good, bad, ms)) in spans.iter().enumerate() {
            let mut evidence = ReleaseEvidence::default();
            evidence.status.successful = *good;
            evidence.status.server_error = *bad;
            (0..good + bad).for_each(|_| evidence.latency.record_us(ms * 1000));
            let to = UnixMs(100_000 - 10_000 * (spans.len() - 1 - index) as u64);
            series.push(UnixMs(to.0 - 10_000), to, BTreeMap::from([(ReleaseNumber(2), evidence)]));
        }
        series
    }

    fn check(
        metric: Metric,
        requests_min: u32,
        spans: &[(u64, u64, u64)],
        since: u64,
        expect: (Answer, &str),
    ) {
        let threshold = Threshold {
            name: "it".to_owned(),
            metric,
            window: Millis::secs(20),
            requests_min,
            action: AnalysisAction::RollBack,
        };
        let series = series(spans);
        let subject = Subject {
            series: (!spans.is_empty()).then_some(&series),
            release: ReleaseNumber(2),
            since: UnixMs(since),
            restarts: Some(2),
            now: UnixMs(100_000),
        };
        let verdict = answer(&threshold, &subject);
        let measured = verdict.measured.map(|measured| measured.to_string()).unwrap_or_default();
        assert_eq!((verdict.answer, measured.as_str()), expect, "{}", verdict.text);
    }

    #[test]
    fn shares_are_judged_by_enough_evidence_alone() {
        let errors = Metric::ErrorShare { at_most: Weight(100) };
        check(errors, 100, &[], 0, (Answer::Inconclusive, ""));
        check(errors, 100, &[(99, 0, 1)], 0, (Answer::Inconclusive, "0%"));
        check(errors, 100, &[(99, 1, 1)], 0, (Answer::Pass, "1%"));
        check(errors, 100, &[(980, 11, 1)], 0, (Answer::Fail, "1.11%"));
        // One in a million is more than none.
        check(Metric::ErrorShare { at_most: Weight(0) }, 1, &[(999_999, 1, 1)], 0, (Answer::Fail, "0.01%"));
    }

    #[test]
    fn the_window_counts_and_what_came_before_only_where_it_has_too_little() {
        let errors = Metric::ErrorShare { at_most: Weight(100) };
        // Bad once, and good since.
        check(errors, 100, &[(0, 500, 1), (100, 0, 1), (100, 0, 1)], 0, (Answer::Pass, "0%"));
        check(errors, 100, &[(0, 500, 1), (10, 0, 1), (10, 0, 1)], 0, (Answer::Fail, "96.16%"));
        // Nothing from before the release had its share.
        check(errors, 100, &[(0, 500, 1), (10, 0, 1), (10, 0, 1)], 80_000, (Answer::Inconclusive, "0%"));
    }

    #[test]
    fn a_rate_is_over_the_whole_seconds_that_were_reported() {
        let metric = Metric::RequestRate { at_least: 20 };
        let (name, window, action) = ("it".to_owned(), Millis::secs(5), AnalysisAction::RollBack);
        let threshold = Threshold { name, metric, window, requests_min: 0, action };
        let mut series = EvidenceSeries::default();
        let mut evidence = ReleaseEvidence::default();
        evidence.status.successful = 22;
        for second in 90..100 {
            let of = BTreeMap::from([(ReleaseNumber(2), evidence.clone())]);
            series.push(UnixMs(second * 1000), UnixMs(second * 1000 + 1000), of);
        }
        let (release, since, restarts) = (ReleaseNumber(2), UnixMs(90_000), None);
        let at = |now| Subject { series: Some(&series), release, since, restarts, now: UnixMs(now) };
        let verdict = answer(&threshold, &at(100_700));
        assert_eq!((verdict.answer, verdict.measured), (Answer::Pass, Some(Measured::MilliRate(22_000))));
        assert!(verdict.text.contains("over 4s"), "{}", verdict.text);
        let silent = answer(&threshold, &at(103_000));
        assert_eq!(silent.answer, Answer::Inconclusive, "{}", silent.text);
    }

    #[test]
    fn latencies_rates_and_restarts() {
        let slow = |ms| Metric::Latency { quantile: Weight(9_900), at_most: Millis(ms) };
        check(slow(250), 100, &[(100, 0, 200)], 0, (Answer::Pass, "200.000 ms"));
        check(slow(250), 100, &[(98, 0, 1), (2, 0, 300)], 0, (Answer::Fail, "300.000 ms"));
        let rate = |at_least| Metric::RequestRate { at_least };
        check(rate(10), 0, &[(100, 0, 1), (100, 0, 1)], 0, (Answer::Pass, "10.000/s"));
        check(rate(11), 0, &[(100, 0, 1), (100, 0, 1)], 0, (Answer::Fail, "10.000/s"));
        check(rate(11), 0, &[(100, 0, 1)], 90_000, (Answer::Inconclusive, ""));
        // Nobody has reported for a part of the window, or at all: that is not known to be a time without requests.
        check(rate(5), 0, &[(100, 0, 1)], 0, (Answer::Inconclusive, ""));
        check(rate(0), 0, &[], 0, (Answer::Inconclusive, ""));
        check(rate(1), 0, &[(0, 0, 1), (0, 0, 1)], 0, (Answer::Fail, "0.000/s"));
        check(Metric::Restarts { at_most: 2 }, 0, &[], 0, (Answer::Pass, "2"));
        check(Metric::Restarts { at_most: 2 }, 50, &[], 0, (Answer::Pass, "2"));
        check(Metric::Restarts { at_most: 1 }, 0, &[], 0, (Answer::Fail, "2"));
    }
}
