//! A line of a view: words with a style each, cut to a width, with colours or without.

use std::fmt::Write as _;

/// What a word means; colours follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Worth less attention.
    Dim,
    /// A name that leads a line.
    Bold,
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Waits, or wants to be looked at.
    Warn,
    /// Wrong.
    Bad,
}

impl Style {
    /// The SGR sequence (ECMA-48, 8.3.117) that turns it on. The colours are of the 256, which themes leave alone, and
    /// have a contrast of about 4 to 1 to white and to black alike: the usual yellow and cyan are lost on white.
    const fn on(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Good => "\x1b[38;5;28m",
            Self::Busy => "\x1b[38;5;32m",
            Self::Warn => "\x1b[38;5;130m",
            Self::Bad => "\x1b[38;5;160m",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    words: Vec<(Style, String)>,
    /// Shown whole where the rest is cut.
    ending: Vec<(Style, String)>,
}

impl Line {
    /// An empty line.
    pub(crate) const fn new() -> Self {
        Self { words: Vec::new(), ending: Vec::new() }
    }

    /// A line of one style.
    pub(crate) fn of(style: Style, text: impl Into<String>) -> Self {
        Self::new().then(style, text)
    }

    /// The same with `text` appended.
    #[must_use]
    pub(crate) fn then(mut self, style: Style, text: impl Into<String>) -> Self {
        self.words.push((style, harmless(text.into())));
        self
    }

    /// The same with `text` at its end, which stays when the line is cut.
    #[must_use]
    pub(crate) fn ending(mut self, style: Style, text: impl Into<String>) -> Self {
        self.ending.push((style, harmless(text.into())));
        self
    }

    /// The same with another line's words appended.
    #[must_use]
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.words.extend(other.words);
        self.ending.extend(other.ending);
        self
    }

    /// The same, padded with spaces to `width` columns.
    #[must_use]
    pub(crate) fn pad_to(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        if missing == 0 { self } else { self.then(Style::Plain, " ".repeat(missing)) }
    }

    /// Columns it takes; what is shown here is one column per character.
    pub(crate) fn width(&self) -> usize {
        columns(&self.words) + columns(&self.ending)
    }

    /// The text, cut to `width` columns with an ellipsis, with colours where asked.
    pub(crate) fn render(&self, width: usize, color: bool) -> String {
        let cut = self.width() > width;
        let ending = columns(&self.ending);
        // Where not even the ending fits, it is cut with the rest.
        let keeps_ending = ending < width;
        let mut left = match (cut, keeps_ending) {
            (false, _) => width,
            (true, true) => width - 1 - ending,
            (true, false) => width.saturating_sub(1),
        };
        let mut out = String::new();
        push(&mut out, &self.words, &mut left, color);
        if cut && keeps_ending && width > 0 {
            out.push('…');
            left = ending;
        }
        push(&mut out, &self.ending, &mut left, color);
        if cut && !keeps_ending && width > 0 {
            out.push('…');
        }
        if color { out } else { out.trim_end().to_owned() }
    }
}

/// Control characters, as in a reason that quotes a workload, must not steer the terminal.
fn harmless(text: String) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn columns(words: &[(Style, String)]) -> usize {
    words.iter().map(|(_, text)| text.chars().count()).sum()
}

/// Appends words, as many columns of them as are left.
fn push(out: &mut String, words: &[(Style, String)], left: &mut usize, color: bool) {
    for (style, text) in words {
        let shown: String = text.chars().take(*left).collect();
        *left -= shown.chars().count();
        let on = if color { style.on() } else { "" };
        if on.is_empty() {
            out.push_str(&shown);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "{on}{shown}\x1b[0m");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_never_wider_than_asked() {
        let line = Line::of(Style::Bold, "web").then(Style::Plain, "  1.0 → 2.0");
        assert_eq!(line.width(), 14);
        assert_eq!(line.render(80, false), "web  1.0 → 2.0");
        assert_eq!(line.render(14, false), "web  1.0 → 2.0");
        assert_eq!(line.render(8, false), "web  1.…");
        assert_eq!(line.render(8, true), "\x1b[1mweb\x1b[0m  1.…");
        assert_eq!(line.render(0, false), "");
    }

    #[test]
    fn an_ending_stays_when_the_rest_is_cut() {
        let line = Line::of(Style::Plain, "ready for 0.4s of 1s").ending(Style::Dim, " (0.6s left)");
        assert_eq!(line.width(), 32);
        assert_eq!(line.render(32, false), "ready for 0.4s of 1s (0.6s left)");
        assert_eq!(line.render(20, false), "ready f… (0.6s left)");
        assert_eq!(line.render(13, false), "… (0.6s left)");
        assert_eq!(line.render(8, false), "ready f…");
        assert_eq!(line.render(0, false), "");
    }

    #[test]
    fn nothing_in_a_text_steers_the_terminal() {
        assert_eq!(Line::of(Style::Plain, "a\x1b[2Jb\nc").render(80, true), "a [2Jb c");
    }
}
