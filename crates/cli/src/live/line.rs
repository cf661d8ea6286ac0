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
    /// The SGR sequence (ECMA-48, 8.3.117) that turns it on.
    const fn on(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[36m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    words: Vec<(Style, String)>,
}

impl Line {
    /// An empty line.
    pub(crate) const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// A line of one style.
    pub(crate) fn of(style: Style, text: impl Into<String>) -> Self {
        Self::new().then(style, text)
    }

    /// The same with `text` appended.
    #[must_use]
    pub(crate) fn then(mut self, style: Style, text: impl Into<String>) -> Self {
        let text: String = text.into();
        // Control characters, as in a reason that quotes a workload, must not steer the terminal.
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.words.push((style, text));
        self
    }

    /// The same with another line's words appended.
    #[must_use]
    pub(crate) fn join(mut self, other: Self) -> Self {
        self.words.extend(other.words);
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
        self.words.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// The text, cut to `width` columns with an ellipsis, with colours where asked.
    pub(crate) fn render(&self, width: usize, color: bool) -> String {
        let cut = self.width() > width;
        let mut left = if cut { width.saturating_sub(1) } else { width };
        let mut out = String::new();
        for (style, text) in &self.words {
            let shown: String = text.chars().take(left).collect();
            left -= shown.chars().count();
            let on = if color { style.on() } else { "" };
            if on.is_empty() {
                out.push_str(&shown);
            } else {
                // Writing to a string cannot fail.
                let _ = write!(out, "{on}{shown}\x1b[0m");
            }
        }
        if cut && width > 0 {
            out.push('…');
        }
        if color { out } else { out.trim_end().to_owned() }
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
    fn nothing_in_a_text_steers_the_terminal() {
        assert_eq!(Line::of(Style::Plain, "a\x1b[2Jb\nc").render(80, true), "a [2Jb c");
    }
}
