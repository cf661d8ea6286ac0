//! The receipt: from what was counted to one record, and to a table for people.

use super::load::{Failure, PhaseTally, RequestNumber};
use crate::live::{Line, Style};
use crate::show;
use baton_model::receipt::{Latency, PhaseReceipt, Receipt};
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Columns of the table.
const WIDTH: usize = 96;

/// What a phase did and found, before its requests are counted in.
#[derive(Clone, Debug)]
pub(super) struct PhaseDone {
    /// A stable word.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: String,
    /// What went wrong, if anything did.
    pub(super) trouble: Option<String>,
    /// How long it took.
    pub(super) took: Duration,
    /// The requests that may have failed: those that were in flight on what was killed.
    pub(super) may_fail: BTreeSet<RequestNumber>,
    /// Measured times and counts.
    pub(super) measured: BTreeMap<String, f64>,
    /// Its place among the load's phases; `None` where there was no load yet.
    pub(super) tally: Option<usize>,
}

/// Puts the phases and the counts together.
pub(super) fn receipt(
    title: String,
    done: Vec<PhaseDone>,
    tallies: &[PhaseTally],
    load: Duration,
) -> Receipt {
    let phases: Vec<PhaseReceipt> = done
        .into_iter()
        .map(|phase| {
            let tally = phase.tally.and_then(|index| tallies.get(index)).cloned().unwrap_or_default();
            phase_receipt(phase, &tally)
        })
        .collect();
    Receipt {
        title,
        ok: phases.iter().all(|phase| phase.ok),
        requests: phases.iter().map(|phase| phase.requests).sum(),
        failed: phases.iter().map(|phase| phase.failed).sum(),
        duration: millis(load),
        phases,
    }
}

fn phase_receipt(phase: PhaseDone, tally: &PhaseTally) -> PhaseReceipt {
    // A failed request is allowed only if it is one of those that were in flight; an equal number of others
    // is not the same.
    let broken =
        tally.failed - u64::try_from(tally.failures.intersection(&phase.may_fail).count()).unwrap_or(0);
    let unsettled = tally.sent - tally.ok - tally.failed;
    let mut notes = Vec::new();
    notes.extend(phase.trouble.clone());
    if broken > 0 {
        notes.push(format!("{broken} requests failed that had to be answered"));
    }
    if tally.failed > 0 {
        notes.push(kinds(&tally.kinds));
    }
    if unsettled > 0 {
        notes.push(format!("{unsettled} requests never ended"));
    }
    PhaseReceipt {
        name: phase.name.to_owned(),
        title: phase.title,
        ok: phase.trouble.is_none() && broken == 0 && unsettled == 0,
        note: notes.join("; "),
        duration: millis(phase.took),
        requests: tally.sent,
        failed: tally.failed,
        failed_allowed: phase.may_fail.len() as u64,
        latency_ms: tally.latency.latency(),
        measured: phase.measured,
    }
}

fn kinds(kinds: &BTreeMap<Failure, u64>) -> String {
    let all: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {}", kind.word())).collect();
    all.join(", ")
}

fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

/// The receipt as a table of [`WIDTH`] columns.
pub(super) fn table(receipt: &Receipt) -> Vec<Line> {
    let rule = || Line::of(Style::Dim, "─".repeat(WIDTH));
    let titles =
        row(["PHASE", "TIME", "REQUESTS", "FAILED", "ALLOWED", "P50", "P99", "MAX"].map(ToOwned::to_owned));
    let mut lines = vec![
        Line::new(),
        Line::of(Style::Bold, receipt.title.clone()),
        rule(),
        Line::of(Style::Dim, titles),
        rule(),
    ];
    for phase in &receipt.phases {
        lines.extend(phase_lines(phase));
    }
    lines.push(rule());
    let total = [
        "all phases".to_owned(),
        show::length(receipt.duration.duration()),
        show::thousands(receipt.requests),
        receipt.failed.to_string(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ];
    lines.push(Line::of(Style::Bold, row(total)));
    lines.push(rule());
    lines.push(if receipt.ok {
        Line::of(Style::Good, "every phase ended as it must, and no request failed that had to be answered")
    } else {
        Line::of(Style::Bad, "a promise was broken: see the phases marked ✗")
    });
    lines
}

fn phase_lines(phase: &PhaseReceipt) -> Vec<Line> {
    let (style, mark) = if phase.ok { (Style::Good, '✓') } else { (Style::Bad, '✗') };
    let loaded = phase.requests > 0;
    let figure = |text: String| if loaded { text } else { "-".to_owned() };
    let Latency { p50, p99, max } = phase.latency_ms;
    let cells = [
        format!("  {}", phase.title),
        show::length(phase.duration.duration()),
        figure(show::thousands(phase.requests)),
        figure(phase.failed.to_string()),
        figure(phase.failed_allowed.to_string()),
        figure(ms(p50)),
        figure(ms(p99)),
        figure(ms(max)),
    ];
    let text = row(cells);
    let text: String = text.chars().skip(1).collect();
    let mut lines = vec![Line::of(style, mark.to_string()).then(Style::Plain, text)];
    for (name, value) in &phase.measured {
        lines.push(Line::of(Style::Dim, format!("      {}", measured(name, *value))));
    }
    if !phase.note.is_empty() {
        lines.push(Line::of(if phase.ok { Style::Dim } else { Style::Bad }, format!("      {}", phase.note)));
    }
    lines
}

/// One row: the first column to the left, the rest to the right.
fn row(cells: [String; 8]) -> String {
    let [title, time, requests, failed, allowed, p50, p99, max] = cells;
    format!("{title:<35} {time:>8} {requests:>9} {failed:>7} {allowed:>8} {p50:>7} {p99:>7} {max:>8}")
}

fn ms(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}ms"),
        v if v < 99.95 => format!("{v:.1}ms"),
        v if v < 9_999.5 => format!("{v:.0}ms"),
        v => format!("{:.1}s", v / 1000.0),
    }
}

/// `served again after 4.13ms`; the unit is in the name.
fn measured(name: &str, value: f64) -> String {
    match name.strip_suffix("_ms") {
        Some(what) => format!("{} {}", what.replace('_', " "), ms(value)),
        None => format!("{} {value}", name.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Page;
    use super::*;

    fn tally(failures: &[RequestNumber], sent: u64) -> PhaseTally {
        let mut tally = PhaseTally { sent, ..PhaseTally::default() };
        tally.failed = failures.len() as u64;
        tally.ok = sent - tally.failed;
        tally.failures = failures.iter().copied().collect();
        if !failures.is_empty() {
            tally.kinds.insert(Failure::Reset, failures.len() as u64);
        }
        for us in 0..sent {
            tally.latency.record(Duration::from_micros(300 + us));
        }
        tally
    }

    fn phase(name: &'static str, title: &str, may_fail: &[RequestNumber], tally: Option<usize>) -> PhaseDone {
        PhaseDone {
            name,
            title: title.to_owned(),
            trouble: None,
            took: Duration::from_millis(3_210),
            may_fail: may_fail.iter().copied().collect(),
            measured: BTreeMap::new(),
            tally,
        }
    }

    #[test]
    fn only_the_very_requests_in_flight_may_fail() {
        let allowed = receipt(
            "t".into(),
            vec![phase("kill", "kill", &[4, 5], Some(0))],
            &[tally(&[4], 100)],
            Duration::ZERO,
        );
        assert!(allowed.ok);
        assert_eq!((allowed.failed, allowed.phases[0].failed_allowed), (1, 2));
        let other = receipt(
            "t".into(),
            vec![phase("kill", "kill", &[4, 5], Some(0))],
            &[tally(&[6], 100)],
            Duration::ZERO,
        );
        assert!(!other.ok, "the same number of other requests is a broken promise");
        let none = receipt(
            "t".into(),
            vec![phase("roll", "roll", &[], Some(0))],
            &[tally(&[6], 100)],
            Duration::ZERO,
        );
        assert!(!none.ok);
    }

    #[test]
    fn a_request_that_never_ended_breaks_the_promise() {
        let mut lost = tally(&[], 100);
        lost.ok -= 1;
        assert!(!receipt("t".into(), vec![phase("roll", "roll", &[], Some(0))], &[lost], Duration::ZERO).ok);
    }

    #[test]
    fn the_table_reads_well() {
        assert!(Page::parse("2.0 web.1 9").is_some());
        let mut kill = phase("kill-instance", "an instance is killed", &[4, 5], Some(1));
        kill.measured.insert("served_again_after_ms".into(), 4.126);
        let mut bad = phase("bad-release", "3.0 fails its check", &[], Some(2));
        bad.trouble = Some("it was not rolled back".into());
        let done = vec![
            phase("deploy", "deploy 1.0", &[], None),
            phase("roll", "roll to 2.0 in batches", &[], Some(0)),
            kill,
            bad,
        ];
        let receipt = receipt(
            "baton demo: 3 nodes, 1,000 requests a second".into(),
            done,
            &[tally(&[], 12_345), tally(&[4], 2_000), tally(&[], 100)],
            Duration::from_millis(31_234),
        );
        let text: Vec<String> = table(&receipt).iter().map(|line| line.render(200, false)).collect();
        assert!(text.iter().all(|line| line.chars().count() <= WIDTH), "{text:#?}");
        insta::assert_snapshot!(text.join("\n"));
    }
}
