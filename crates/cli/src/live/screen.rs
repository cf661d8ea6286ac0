//! Drawing lines over themselves at the bottom of a terminal, leaving the scrollback as it was.

use super::line::Line;
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{cursor, queue};
use std::io::{self, Write};

/// A place on the terminal that is redrawn. The cursor is hidden while it lives.
#[derive(Debug)]
pub(crate) struct Screen<W: Write> {
    out: W,
    color: bool,
    /// The width of each line drawn last, in columns.
    drawn: Vec<usize>,
    hidden: bool,
}

impl<W: Write> Screen<W> {
    /// Nothing drawn yet.
    pub(crate) const fn new(out: W, color: bool) -> Self {
        Self { out, color, drawn: Vec::new(), hidden: false }
    }

    /// Replaces what was drawn last by `lines`, cut to a terminal of `width` columns and `height` rows.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn draw(&mut self, lines: &[Line], width: u16, height: u16) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        if !self.hidden {
            queue!(self.out, cursor::Hide)?;
            self.hidden = true;
        }
        self.erase(width)?;
        // The last row stays free: writing to its end would scroll.
        for line in lines.iter().take(usize::from(height.max(2) - 1)) {
            self.write(line, width)?;
            self.drawn.push(line.width().min(usize::from(width)));
        }
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    /// Removes what was drawn and prints `lines` for good.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn print(&mut self, lines: &[Line], width: u16) -> io::Result<()> {
        self.erase(width)?;
        for line in lines {
            self.write(line, width)?;
        }
        self.out.flush()
    }

    /// Leaves what was drawn last where it is, for good: the next drawing goes below it.
    pub(crate) fn settle(&mut self) {
        self.drawn.clear();
    }

    fn write(&mut self, line: &Line, width: u16) -> io::Result<()> {
        write!(self.out, "{}\r\n", line.render(usize::from(width), self.color))
    }

    /// Goes back to the first row that was drawn and clears from there. Where the terminal has become
    /// narrower since, lines have been wrapped into several rows each.
    fn erase(&mut self, width: u16) -> io::Result<()> {
        let width = usize::from(width.max(1));
        let rows: usize = self.drawn.iter().map(|line| line.div_ceil(width).max(1)).sum();
        self.drawn.clear();
        if rows > 0 {
            let rows = u16::try_from(rows).unwrap_or(u16::MAX);
            queue!(self.out, cursor::MoveToPreviousLine(rows), Clear(ClearType::FromCursorDown))?;
        }
        Ok(())
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        if self.hidden {
            // The terminal may be gone; then there is no cursor to show.
            let _ = queue!(self.out, cursor::Show);
            let _ = self.out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Style;
    use super::*;

    fn drawn(draw: impl FnOnce(&mut Screen<&mut Vec<u8>>)) -> String {
        let mut bytes = Vec::new();
        draw(&mut Screen::new(&mut bytes, false));
        String::from_utf8(bytes).unwrap().replace('\x1b', "^")
    }

    #[test]
    fn a_second_drawing_goes_over_the_first() {
        let text = drawn(|screen| {
            screen.draw(&[Line::of(Style::Plain, "one"), Line::of(Style::Plain, "two")], 80, 24).unwrap();
            screen.draw(&[Line::of(Style::Plain, "three")], 80, 24).unwrap();
        });
        assert_eq!(text.matches("^[2F").count(), 1, "{text}");
        assert!(text.ends_with("^[?25h"), "the cursor is shown again: {text}");
    }

    #[test]
    fn a_terminal_made_narrower_is_cleared_as_far_as_lines_were_wrapped() {
        let text = drawn(|screen| {
            screen
                .draw(&[Line::of(Style::Plain, "x".repeat(70)), Line::of(Style::Plain, "y")], 80, 24)
                .unwrap();
            screen.draw(&[], 40, 24).unwrap();
        });
        assert!(text.contains("^[3F"), "two rows and one: {text}");
    }

    #[test]
    fn never_more_rows_than_the_terminal_has() {
        let lines = vec![Line::of(Style::Plain, "x"); 50];
        let text = drawn(|screen| screen.draw(&lines, 80, 10).unwrap());
        assert_eq!(text.matches('\n').count(), 9);
    }
}
