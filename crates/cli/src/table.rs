//! Lists for people: columns as wide as they need to be, a header that steps back, no frames.

use crate::global::Global;
use crate::live::{Line, Style};
use anyhow::Result;
use std::io::Write as _;

/// Spaces between two columns.
const GAP: usize = 2;

/// A list under construction.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Line>>,
}

/// A cell without a style.
pub(crate) fn plain(text: impl ToString) -> Line {
    Line::of(Style::Plain, text.to_string())
}

/// A cell with a style.
pub(crate) fn styled(style: Style, text: impl ToString) -> Line {
    Line::of(style, text.to_string())
}

impl Table {
    /// With these column titles.
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| styled(Style::Dim, title)).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Line>) {
        self.rows.push(cells);
    }

    /// The lines of the list.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(Line::width).max().unwrap_or(0)
            })
            .collect();
        let line = |row: &Vec<Line>| {
            let mut line = Line::new();
            for (cell, width) in row.iter().zip(&widths) {
                line = line.join(cell.clone().pad_to(width + GAP));
            }
            line
        };
        self.rows.iter().map(line).collect()
    }

    /// Prints it on stdout: cut to the terminal's width, whole where there is no terminal.
    ///
    /// # Errors
    /// When stdout is gone.
    pub(crate) fn print(&self, global: &Global) -> Result<()> {
        print(&self.lines(), global)
    }
}

/// Prints lines on stdout: cut to the terminal's width, whole where there is no terminal.
///
/// # Errors
/// When stdout is gone.
pub(crate) fn print(lines: &[Line], global: &Global) -> Result<()> {
    let width = if global.terminal { usize::from(global.size().0) } else { usize::MAX };
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{}", line.render(width, global.color).trim_end())?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(vec![plain("a-long-name"), plain(1)]);
        table.row(vec![plain("b"), plain(22)]);
        let text: Vec<String> = table.lines().iter().map(|line| line.render(80, false)).collect();
        assert_eq!(text, ["NAME         N", "a-long-name  1", "b            22"]);
    }
}
