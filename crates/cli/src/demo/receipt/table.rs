//! The receipt as a table, as wide as the terminal lets it be.

use crate::live::{Line, Style};
use crate::show;
use baton_model::receipt::{Latency, PhaseReceipt, Receipt, ReleaseReceipt};

/// Columns of the table at most: wider, the eye loses the row.
const WIDTH_MAX: usize = 96;
/// Columns of a phase's title, which the other columns make room for.
const TITLE: usize = 36;
/// Before what is said below a phase.
const INDENT: &str = "      ";

/// A column of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Time,
    Requests,
    Failed,
    Errors,
    P50,
    P99,
    Max,
}

impl Column {
    const ALL: [Self; 7] =
        [Self::Time, Self::Requests, Self::Failed, Self::Errors, Self::P50, Self::P99, Self::Max];
    /// What is given up first where the terminal is narrow; what was sent and failed always stays.
    const GIVEN_UP: [Self; 5] = [Self::P50, Self::Max, Self::Time, Self::P99, Self::Errors];

    const fn title(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::Requests => "REQUESTS",
            Self::Failed => "FAILED",
            Self::Errors => "ERRORS",
            Self::P50 => "P50",
            Self::P99 => "P99",
            Self::Max => "MAX",
        }
    }

    /// Its width with the gap before it.
    const fn width(self) -> usize {
        match self {
            Self::Requests => 9,
            Self::Time | Self::P50 | Self::P99 | Self::Max => 8,
            Self::Failed | Self::Errors => 7,
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
pub(in super::super) fn table(receipt: &Receipt, width: usize) -> Vec<Line> {
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
        Column::Failed => show::thousands(receipt.failed),
        Column::Errors => show::thousands(receipt.bad_answers),
        Column::P50 | Column::P99 | Column::Max => String::new(),
    });
    lines.push(Line::of(Style::Bold, total));
    lines.push(rule());
    if receipt.held_up.0 > 0 {
        let held_up = show::length(receipt.held_up.duration());
        let text =
            format!("this machine held the load itself up for {held_up}; what was due then was not sent");
        lines.extend(wrapped(&text, table.width).map(|text| Line::of(Style::Warn, text)));
    }
    let verdict = verdict(receipt);
    let style = if receipt.ok { Style::Good } else { Style::Bad };
    lines.extend(wrapped(&verdict, table.width).map(|text| Line::of(style, text)));
    lines
}

/// The sentence below.
fn verdict(receipt: &Receipt) -> String {
    if !receipt.ok {
        return "a promise was broken: see the phases marked ✗".to_owned();
    }
    let errors = show::thousands(receipt.bad_answers);
    match receipt.bad_answers {
        0 => "every phase ended as it must, and not one request failed".to_owned(),
        1 => "every phase ended as it must, and not one request failed; the one error is a bad version's own answer"
            .to_owned(),
        _ => format!(
            "every phase ended as it must, and not one request failed; the {errors} errors are the bad versions' own answers"
        ),
    }
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
        let (style, mark) = if phase.ok { (Style::Good, '✓') } else { (Style::Bad, '✗') };
        let loaded = phase.requests > 0;
        let figure = |text: String| if loaded { text } else { "-".to_owned() };
        let text = self.row(&format!("  {}", phase.title), |column| match column {
            Column::Time => show::length(phase.duration.duration()),
            Column::Requests => figure(show::thousands(phase.requests)),
            Column::Failed => figure(show::thousands(phase.failed)),
            Column::Errors => figure(show::thousands(phase.bad_answers)),
            Column::P50 | Column::P99 | Column::Max => figure(latency(column, phase.latency_ms)),
        });
        let text: String = text.chars().skip(1).collect();
        let mut lines = vec![Line::of(style, mark.to_string()).then(Style::Plain, text)];
        lines.extend(compared(&phase.releases).map(|release| self.release(release)));
        let measured: Vec<String> =
            phase.measured.iter().map(|(name, value)| measured(name, *value)).collect();
        let below = self.width.saturating_sub(INDENT.len());
        let measured = measured.join(", ");
        let dim = wrapped(&measured, below).map(|text| (Style::Dim, text));
        let note_style = if phase.ok { Style::Dim } else { Style::Bad };
        let note = wrapped(&phase.note, below).map(|text| (note_style, text));
        lines.extend(dim.chain(note).map(|(style, text)| Line::of(style, format!("{INDENT}{text}"))));
        lines
    }

    /// What a release answered: below the columns of its phase.
    fn release(&self, release: &ReleaseReceipt) -> Line {
        let title = format!("{INDENT}{} {}", release.service, release.version);
        let text = self.row(&title, |column| match column {
            Column::Time | Column::Failed => String::new(),
            Column::Requests => show::thousands(release.answers),
            Column::Errors => show::thousands(release.errors),
            Column::P50 | Column::P99 | Column::Max => latency(column, release.latency_ms),
        });
        Line::of(Style::Dim, text)
    }
}

/// Those of services of which several releases answered.
fn compared(releases: &[ReleaseReceipt]) -> impl Iterator<Item = &ReleaseReceipt> {
    let several = |service: &str| releases.iter().filter(|it| it.service == service).count() > 1;
    releases.iter().filter(move |release| several(&release.service))
}

fn latency(column: Column, latency: Latency) -> String {
    match column {
        Column::P50 => ms(latency.p50),
        Column::P99 => ms(latency.p99),
        Column::Max => ms(latency.max),
        Column::Time | Column::Requests | Column::Failed | Column::Errors => String::new(),
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
    let words = |name: &str| name.replace('_', " ");
    if let Some(what) = name.strip_suffix("_ms") {
        return format!("{} {}", words(what), ms(value));
    }
    // A share that was asked for, and the one that was counted: `at 10%: 9.8%`.
    if let Some(asked) = name.strip_prefix("counted_at_").and_then(|rest| rest.strip_suffix("_percent")) {
        return format!("at {asked}%: {value:.1}%");
    }
    format!("{} {value}", words(name))
}

#[cfg(test)]
mod tests {
    use super::super::super::load::Side;
    use super::super::tests::{counted, phase, tally};
    use super::super::{PhaseDone, receipt};
    use super::*;

    fn sample() -> Receipt {
        let mut kill = phase("kill-instance", "an instance is killed", Some(1));
        kill.measured.insert("served_again_after_ms".into(), 4.126);
        let mut canary = PhaseDone {
            bad: Some(Side::new("shop", "3.0")),
            note: "errors (error share at most 5%) is broken: 33.34% over 2s, 120 requests".into(),
            ..phase("canary-errors", "canary of shop 3.0: errors; goes back", Some(2))
        };
        canary.measured.insert("counted_at_10_percent".into(), 9.84);
        canary.measured.insert("found_after_ms".into(), 2_312.0);
        canary.measured.insert("gone_after_ms".into(), 2_342.5);
        let mut check = phase("failed-check", "web 3.0 fails its check; goes back", Some(3));
        check.trouble = Some("it was not rolled back".into());
        let done = vec![
            phase("deploy", "deploy web 1.0 and shop 1.0", None),
            phase("roll", "roll web to 2.0 in batches", Some(0)),
            kill,
            canary,
            check,
        ];
        let tallies = vec![
            tally(&[("web", "1.0", 2_300, 0), ("web", "2.0", 4_000, 0), ("shop", "1.0", 6_045, 0)], 0),
            tally(&[("web", "2.0", 1_999, 0)], 1),
            tally(&[("web", "2.0", 900, 0), ("shop", "2.0", 810, 0), ("shop", "3.0", 60, 30)], 0),
            tally(&[("web", "2.0", 100, 0)], 0),
        ];
        let title = "baton demo: 3 nodes, 2 gateways, 1,000 requests a second".into();
        receipt(title, done, &counted(tallies))
    }

    #[test]
    fn the_table_reads_well() {
        let receipt = sample();
        for width in [46, 60, 80, 90, 200] {
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

    #[test]
    fn the_sentence_says_what_was_counted() {
        let mut receipt = sample();
        assert_eq!(measured("counted_at_10_percent", 9.84), "at 10%: 9.8%");
        assert_eq!(verdict(&receipt), "a promise was broken: see the phases marked ✗");
        receipt.ok = true;
        receipt.bad_answers = 1_234;
        assert!(verdict(&receipt).contains("the 1,234 errors are the bad versions' own answers"));
        receipt.bad_answers = 0;
        assert!(verdict(&receipt).ends_with("not one request failed"));
    }
}
