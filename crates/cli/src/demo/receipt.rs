//! The receipt: from what was counted to one record, and to a table for people.

use super::load::{Failure, PhaseTally, RequestNumber};
use crate::live::{Line, Style};
use crate::show;
use baton_model::receipt::{Latency, PhaseReceipt, Receipt};
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Columns of the table at most: wider, the eye loses the row.
const WIDTH_MAX: usize = 96;
/// Columns of a phase's title, which the other columns make room for.
const TITLE: usize = 33;

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

/// A column of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Time,
    Requests,
    Failed,
    Allowed,
    P50,
    P99,
    Max,
}

impl Column {
    const ALL: [Self; 7] =
        [Self::Time, Self::Requests, Self::Failed, Self::Allowed, Self::P50, Self::P99, Self::Max];
    /// What is given up first where the terminal is narrow; what was sent and failed always stays.
    const GIVEN_UP: [Self; 5] = [Self::P50, Self::Time, Self::Max, Self::Allowed, Self::P99];

    const fn title(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::Requests => "REQUESTS",
            Self::Failed => "FAILED",
            Self::Allowed => "ALLOWED",
            Self::P50 => "P50",
            Self::P99 => "P99",
            Self::Max => "MAX",
        }
    }

    /// Its width with the gap before it.
    const fn width(self) -> usize {
        match self {
            Self::Requests => 9,
            Self::Time | Self::Allowed | Self::Max => 8,
            Self::Failed | Self::P50 | Self::P99 => 7,
        }
    }

    /// Those that fit beside the title into `width` columns.
    fn fitting(width: usize) -> Vec<Self> {
        let mut all = Self::ALL.to_vec();
        for given_up in Self::GIVEN_UP {
            if TITLE + all.iter().map(|column| column.width()).sum::<usize>() <= width {
                break;
            }
            all.retain(|column| *column != given_up);
        }
        all
    }
}

/// The receipt as a table of `width` columns at most.
pub(super) fn table(receipt: &Receipt, width: usize) -> Vec<Line> {
    let table = Table::new(width);
    let rule = || Line::of(Style::Dim, "─".repeat(table.width));
    let mut lines = vec![Line::new()];
    lines.extend(wrapped(&receipt.title, table.width).map(|text| Line::of(Style::Bold, text)));
    lines.push(rule());
    lines.push(Line::of(Style::Dim, table.row("PHASE", |column| column.title().to_owned())));
    lines.push(rule());
    for phase in &receipt.phases {
        lines.extend(table.phase(phase));
    }
    lines.push(rule());
    let total = table.row("all phases", |column| match column {
        Column::Time => show::length(receipt.duration.duration()),
        Column::Requests => show::thousands(receipt.requests),
        Column::Failed => receipt.failed.to_string(),
        Column::Allowed | Column::P50 | Column::P99 | Column::Max => String::new(),
    });
    lines.push(Line::of(Style::Bold, total));
    lines.push(rule());
    let (style, verdict) = if receipt.ok {
        (Style::Good, "every phase ended as it must, and no request failed that had to be answered")
    } else {
        (Style::Bad, "a promise was broken: see the phases marked ✗")
    };
    lines.extend(wrapped(verdict, table.width).map(|text| Line::of(style, text)));
    lines
}

/// How the rows are laid out.
struct Table {
    columns: Vec<Column>,
    title: usize,
    width: usize,
}

impl Table {
    fn new(width: usize) -> Self {
        let width = width.min(WIDTH_MAX);
        let columns = Column::fitting(width);
        let figures: usize = columns.iter().map(|column| column.width()).sum();
        Self { columns, title: width.saturating_sub(figures), width }
    }

    /// One row: the title to the left, the figures to the right.
    fn row(&self, title: &str, figure: impl Fn(Column) -> String) -> String {
        let mut row = Line::of(Style::Plain, title).pad_to(self.title).render(self.title, true);
        for column in &self.columns {
            row.push_str(&format!("{:>width$}", figure(*column), width = column.width()));
        }
        row
    }

    fn phase(&self, phase: &PhaseReceipt) -> Vec<Line> {
        const INDENT: &str = "      ";
        let (style, mark) = if phase.ok { (Style::Good, '✓') } else { (Style::Bad, '✗') };
        let loaded = phase.requests > 0;
        let figure = |text: String| if loaded { text } else { "-".to_owned() };
        let Latency { p50, p99, max } = phase.latency_ms;
        let text = self.row(&format!("  {}", phase.title), |column| match column {
            Column::Time => show::length(phase.duration.duration()),
            Column::Requests => figure(show::thousands(phase.requests)),
            Column::Failed => figure(phase.failed.to_string()),
            Column::Allowed => figure(phase.failed_allowed.to_string()),
            Column::P50 => figure(ms(p50)),
            Column::P99 => figure(ms(p99)),
            Column::Max => figure(ms(max)),
        });
        let text: String = text.chars().skip(1).collect();
        let mut lines = vec![Line::of(style, mark.to_string()).then(Style::Plain, text)];
        for (name, value) in &phase.measured {
            lines.push(Line::of(Style::Dim, format!("{INDENT}{}", measured(name, *value))));
        }
        let note = wrapped(&phase.note, self.width.saturating_sub(INDENT.len()));
        let style = if phase.ok { Style::Dim } else { Style::Bad };
        lines.extend(note.map(|text| Line::of(style, format!("{INDENT}{text}"))));
        lines
    }
}

/// The words of a text in lines of `width` columns; a longer word stays whole.
fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.into_iter()
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
        for width in [40, 60, 80, 90, 200] {
            let lines: Vec<String> =
                table(&receipt, width).iter().map(|line| line.render(200, false)).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            assert!(lines.iter().any(|line| line.contains("FAILED")), "{width}: {lines:#?}");
        }
        let text = |width| {
            let lines = table(&receipt, width);
            lines.iter().map(|line| line.render(200, false)).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!("wide", text(120));
        insta::assert_snapshot!("eighty", text(80));
        insta::assert_snapshot!("sixty", text(60));
    }
}
