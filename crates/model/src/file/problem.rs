//! What can be wrong with a service file, and how it is told: to the person, between the rooms that read and the one that
//! asks whether it makes sense.

use std::ops::Range;
use toml::de::DeValue;

/// Most problems told about one file; a file of another kind would have one on every line.
pub const PROBLEMS_MAX: usize = 100;

/// One mistake in a service file: where, what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The bytes of the source it is about; may be empty.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Problem {
    /// Line and column where it begins, both counted from 1, the column in characters.
    #[must_use]
    pub fn line_and_column(&self, source: &str) -> (usize, usize) {
        let mut start = self.span.start.min(source.len());
        while !source.is_char_boundary(start) {
            start -= 1;
        }
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A value that cannot be read: what follows the field's name in the message, and what to write instead.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// One thing that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The fields it is about; the first is the one to change, as far as one can say. Never empty.
    pub(super) fields: Vec<String>,
    /// What is wrong.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: String,
}

/// The path of the name itself of an entry whose name the person chose, as against its value.
pub(super) fn name_of(path: &str) -> String {
    format!("{path}#name")
}

/// What kind of value this is, in words.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
