//! Two releases compared, as people read it: what was counted of each, the differences with their intervals, and what may
//! be concluded.

use super::line::{Line, Style};
use baton_model::evidence::trial::CopyCounts;
use baton_model::id::ReleaseNumber;
use baton_model::report::RolloutReport;
use baton_model::rollout::{Answer, ArmReport, Comparison, Estimate, Percent, SampleRatio};
use baton_model::route::Between;

/// The latest comparison of a rollout; nothing where it has none.
pub(crate) fn of_rollout(rollout: &RolloutReport) -> Vec<Line> {
    let latest = rollout.stages.iter().rev().find_map(|stage| stage.comparison.as_ref());
    latest.map(|comparison| lines(rollout, comparison)).unwrap_or_default()
}

/// One comparison.
pub(crate) fn lines(rollout: &RolloutReport, it: &Comparison) -> Vec<Line> {
    let name = |release: ReleaseNumber| match &rollout.from_version {
        _ if release == rollout.to => rollout.to_version.to_string(),
        Some(version) if Some(release) == rollout.from => version.to_string(),
        Some(_) | None => format!("release {release}"),
    };
    let (old, new) = (name(it.control.release), name(it.treatment.release));
    let mut lines = vec![
        Line::of(Style::Bold, format!("  {}", title(it, &new))),
        Line::of(
            Style::Dim,
            format!(
                "  {:<14} {:>9} {:>9} {:>8} {:>18} {:>9} {:>9} {:>9}",
                "RELEASE", "CLIENTS", "REQUESTS", "ERRORS", "95% SURE", "P50", "P90", "P99"
            ),
        ),
        arm(&old, &it.control, &it.between),
        arm(&new, &it.treatment, &it.between),
    ];
    lines.extend(effects(it));
    lines.extend(it.sample_ratio.map(sample_ratio));
    lines.extend(it.copies.iter().flat_map(copies));
    let fails = it.sample_ratio.is_some_and(|ratio| ratio.answer == Answer::Fail);
    let style = if fails { Style::Bad } else { Style::Plain };
    lines.push(Line::of(style, format!("  ⇒ {}", it.conclusion)));
    lines
}

fn title(it: &Comparison, new: &str) -> String {
    let length = crate::show::length(it.until.since(it.since).duration());
    match &it.between {
        Between::Clients { key, share, .. } => format!("compared for {length}: {share} by {key} to {new}"),
        Between::Copies => format!("compared for {length}: answers to the same requests"),
    }
}

fn arm(name: &str, arm: &ArmReport, between: &Between) -> Line {
    let clients = match between {
        Between::Clients { .. } => arm.clients.to_string(),
        Between::Copies => "-".to_owned(),
    };
    let share = arm.error_share.map_or_else(|| "-".to_owned(), |share| Percent(share.value).to_string());
    let sure = arm
        .error_share
        .map_or_else(|| "-".to_owned(), |it| format!("{} to {}", Percent(it.low), Percent(it.high)));
    // Errors have times too; where no instance answered at all there is none.
    let time = |us| if us > 0 { milliseconds(us) + " ms" } else { "-".to_owned() };
    let style = if arm.errors > 0 { Style::Bad } else { Style::Plain };
    Line::of(Style::Plain, format!("  {name:<14} {clients:>9} {:>9}", arm.requests))
        .then(style, format!(" {share:>8}"))
        .then(
            Style::Plain,
            format!(
                " {sure:>18} {:>9} {:>9} {:>9}",
                time(i64::try_from(arm.p50_us).unwrap_or(i64::MAX)),
                time(i64::try_from(arm.p90_us).unwrap_or(i64::MAX)),
                time(i64::try_from(arm.p99_us).unwrap_or(i64::MAX))
            ),
        )
}

/// The differences, each with the interval that holds the true one.
fn effects(it: &Comparison) -> Vec<Line> {
    let errors = it.errors.map(|errors| {
        let Estimate { low, value, high } = errors;
        let text =
            format!("errors {}{} ({} to {})", sign(value), Percent(value), Percent(low), Percent(high));
        Line::of(Style::Plain, "  difference: ").then(tone(errors), text)
    });
    let mut latency = Line::of(Style::Plain, " ".repeat(14));
    for (at, effect) in it.latency.iter().enumerate() {
        let Estimate { low, value, high } = effect.slower_us;
        let comma = if at > 0 { ", " } else { "" };
        let text = format!(
            "{comma}p{} {}{} ms ({} to {})",
            effect.percent,
            sign(value),
            milliseconds(value),
            milliseconds(low),
            milliseconds(high)
        );
        latency = latency.then(tone(effect.slower_us), text);
    }
    let latency = (!it.latency.is_empty()).then_some(latency);
    errors.into_iter().chain(latency).collect()
}

/// More errors and more time are worse, where they are more than what may be chance.
const fn tone(estimate: Estimate) -> Style {
    if estimate.is_above_zero() {
        Style::Bad
    } else if estimate.is_below_zero() {
        Style::Good
    } else {
        Style::Plain
    }
}

fn sample_ratio(ratio: SampleRatio) -> Line {
    let text = format!(
        "  sample ratio: {} of the clients got the new release, {} should",
        Percent(ratio.observed),
        Percent(ratio.expected)
    );
    let chance = match ratio.chance {
        0 => "p < 0.000001".to_owned(),
        chance => format!("p = {}.{:06}", chance / 1_000_000, chance % 1_000_000),
    };
    let line = Line::of(Style::Plain, text);
    match ratio.answer {
        Answer::Pass => line.then(Style::Good, format!(": fits, {chance}")),
        Answer::Fail => line.then(Style::Bad, format!(": mismatch, {chance}")),
        Answer::Inconclusive => line.then(Style::Warn, ": too few clients to tell"),
    }
}

fn copies(it: &CopyCounts) -> [Line; 2] {
    let made = format!(
        "  copies: {} drawn, {} sent, {} not sent ({} not safe, {} too large, {} too many, {} with nobody there)",
        it.drawn,
        it.sent,
        it.not_sent(),
        it.not_safe,
        it.not_small,
        it.not_free,
        it.not_there
    );
    let differ = format!(
        "{} differ ({} unanswered, {} in status, {} in body)",
        it.differing(),
        it.differs_unanswered,
        it.differs_status,
        it.differs_body
    );
    let style = if it.differing() > 0 { Style::Warn } else { Style::Good };
    [
        Line::of(Style::Plain, made),
        Line::of(Style::Plain, format!("  answers: {} compared, ", it.compared))
            .then(style, differ)
            .then(Style::Dim, format!(", {} in noise alone", it.noise)),
    ]
}

/// A figure that is not negative is told with its sign.
const fn sign(value: i64) -> &'static str {
    if value < 0 { "" } else { "+" }
}

/// Microseconds in milliseconds, to a hundredth.
fn milliseconds(us: i64) -> String {
    let hundredths = (us.abs() + 5) / 10;
    let sign = if us < 0 && hundredths > 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::rollout::{LatencyEffect, RolloutOutcome};
    use baton_model::route::{Key, Weight};
    use baton_model::time::UnixMs;

    fn rollout() -> RolloutReport {
        RolloutReport {
            id: baton_model::id::RolloutId(2),
            from: Some(ReleaseNumber(1)),
            to: ReleaseNumber(2),
            from_version: Some("1.0".parse().unwrap()),
            to_version: "2.0".parse().unwrap(),
            outcome: RolloutOutcome::Paused,
            reason: String::new(),
            started_at: UnixMs(0),
            ended_at: None,
            stages: Vec::new(),
        }
    }

    fn arm(release: u64, clients: u64, errors: u64, share: i64) -> ArmReport {
        ArmReport {
            release: ReleaseNumber(release),
            clients,
            requests: 12_345,
            errors,
            error_share: Some(Estimate { low: share / 2, value: share, high: share * 2 }),
            p50_us: 1_234,
            p90_us: 20_000,
            p99_us: 1_250_000,
        }
    }

    fn text(it: &Comparison) -> Vec<String> {
        lines(&rollout(), it).iter().map(|line| line.render(100, false)).collect()
    }

    #[test]
    fn an_outcome_is_shown_with_its_evidence() {
        let mut it = Comparison {
            between: Between::Clients {
                key: Key::Cookie("user".to_owned()),
                share: Weight(5_000),
                test: rollout().id,
            },
            since: UnixMs(0),
            until: UnixMs(90_000),
            sources: 2,
            control: arm(1, 4_990, 15, 1_215),
            treatment: arm(2, 5_010, 0, 0),
            errors: Some(Estimate { low: -2_000, value: -1_215, high: -600 }),
            latency: vec![
                LatencyEffect { percent: 50, slower_us: Estimate { low: -9, value: 0, high: 9 } },
                LatencyEffect { percent: 99, slower_us: Estimate { low: 10, value: 250, high: 490 } },
            ],
            sample_ratio: Some(SampleRatio {
                expected: 500_000,
                observed: 501_000,
                chance: 841_481,
                answer: Answer::Pass,
            }),
            copies: None,
            conclusion: "the new release has fewer errors; it is slower at p99".to_owned(),
        };
        let expect = [
            "  compared for 1m30s: 50% by cookie:user to 2.0",
            "  RELEASE          CLIENTS  REQUESTS   ERRORS           95% SURE       P50       P90       P99",
            "  1.0                 4990     12345    0.12%     0.06% to 0.24%   1.23 ms  20.00 ms 1250.00 ms",
            "  2.0                 5010     12345    0.00%     0.00% to 0.00%   1.23 ms  20.00 ms 1250.00 ms",
            "  difference: errors -0.12% (-0.20% to -0.06%)",
            "              p50 +0.00 ms (-0.01 to 0.01), p99 +0.25 ms (0.01 to 0.49)",
            "  sample ratio: 50.10% of the clients got the new release, 50.00% should: fits, p = 0.841481",
            "  ⇒ the new release has fewer errors; it is slower at p99",
        ];
        assert_eq!(text(&it), expect);
        it.sample_ratio =
            it.sample_ratio.map(|ratio| SampleRatio { chance: 0, answer: Answer::Fail, ..ratio });
        assert!(text(&it).iter().any(|line| line.ends_with("mismatch, p < 0.000001")));
    }

    #[test]
    fn errors_have_times_and_where_nobody_answered_there_are_none() {
        let between = Between::Copies;
        let errors_only = ArmReport { errors: 12_345, ..arm(2, 0, 0, 1_000_000) };
        let shown = super::arm("2.0", &errors_only, &between).render(120, false);
        assert!(shown.ends_with("   1.23 ms  20.00 ms 1250.00 ms"), "{shown}");
        let unanswered = ArmReport { p50_us: 0, p90_us: 0, p99_us: 0, ..errors_only };
        let shown = super::arm("2.0", &unanswered, &between).render(120, false);
        assert!(shown.ends_with("         -         -         -"), "{shown}");
    }

    #[test]
    fn copies_are_accounted_for() {
        let it = Comparison {
            between: Between::Copies,
            since: UnixMs(0),
            until: UnixMs(8_000),
            sources: 2,
            control: arm(1, 0, 0, 0),
            treatment: arm(2, 0, 0, 0),
            errors: None,
            latency: Vec::new(),
            sample_ratio: None,
            copies: Some(CopyCounts {
                drawn: 20,
                sent: 14,
                not_safe: 3,
                not_small: 2,
                not_free: 1,
                compared: 13,
                differs_unanswered: 1,
                differs_status: 2,
                noise: 10,
                ..CopyCounts::default()
            }),
            conclusion: "3 of 13 compared answers differ".to_owned(),
        };
        let expect = [
            "  copies: 20 drawn, 14 sent, 6 not sent (3 not safe, 2 too large, 1 too many, 0 with nobody there)",
            "  answers: 13 compared, 3 differ (1 unanswered, 2 in status, 0 in body), 10 in noise alone",
        ];
        assert_eq!(&text(&it)[4..6], expect);
    }
}
