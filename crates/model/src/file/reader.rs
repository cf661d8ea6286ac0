//! Walks the parsed TOML, remembers where each field stands, and collects problems instead of stopping at one.

use super::problem::{Fault, Finding, PROBLEMS_MAX, Problem, name_of, type_name};
use super::suggest::{closest, one_of};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What a section may contain.
#[derive(Clone, Copy)]
pub(super) enum Fields {
    /// These fields and no others.
    Only(&'static [&'static str]),
    /// Names that the person chooses.
    Any,
}

/// One table of the file; absent ones read as empty, so that every field takes its default.
pub(super) struct Section<'t, 's> {
    table: Option<&'t DeTable<'s>>,
    pub(super) path: String,
}

/// Which fields live in which section, to say where a misplaced one belongs.
pub(super) type Homes = &'static [(&'static str, &'static [&'static str])];

/// What was read so far: where fields stand, which are broken, and the problems.
pub(super) struct Reader {
    homes: Homes,
    problems: Vec<Problem>,
    spans: BTreeMap<String, Range<usize>>,
    broken: BTreeSet<String>,
}

/// The path of `field` within `section`, as messages name it.
fn join(section: &str, field: &str) -> String {
    if section.is_empty() { field.to_owned() } else { format!("{section}.{field}") }
}

impl<'t, 's> Section<'t, 's> {
    /// Whether the person wrote this section.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// What the person wrote there.
    pub(super) fn get(&self, field: &str) -> Option<&'t Spanned<DeValue<'s>>> {
        self.table?.get(field)
    }

    /// Whether the person wrote this field, rightly or not.
    pub(super) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// The names in this section, in alphabetical order.
    pub(super) fn names(&self) -> Vec<(&'t str, Range<usize>)> {
        self.table
            .into_iter()
            .flat_map(|table| table.iter())
            .map(|(key, _)| (&**key.get_ref(), key.span()))
            .collect()
    }
}

impl Reader {
    /// Nothing is read yet.
    pub(super) fn new(homes: Homes) -> Self {
        Self { homes, problems: Vec::new(), spans: BTreeMap::new(), broken: BTreeSet::new() }
    }

    /// Opens the document itself.
    pub(super) fn top<'t, 's>(
        &mut self,
        table: &'t DeTable<'s>,
        source: &str,
        fields: &'static [&'static str],
    ) -> Section<'t, 's> {
        let first_line = source.find('\n').unwrap_or(source.len());
        self.spans.insert(String::new(), 0..first_line);
        let section = Section { table: Some(table), path: String::new() };
        self.refuse_unknown(&section, Fields::Only(fields));
        section
    }

    /// Opens the section `name` of `parent`.
    pub(super) fn section<'t, 's>(
        &mut self,
        parent: &Section<'t, 's>,
        name: &str,
        fields: Fields,
    ) -> Section<'t, 's> {
        let path = join(&parent.path, name);
        let Some(value) = parent.get(name) else { return Section { table: None, path } };
        self.spans.insert(path.clone(), value.span());
        let Some(table) = value.get_ref().as_table() else {
            let what = format!("must be a section, not {}", type_name(value.get_ref()));
            let example = match fields {
                Fields::Only(fields) => format!(
                    "write `[{path}]` on a line of its own, and below it fields such as `{}`",
                    fields[0]
                ),
                Fields::Any => {
                    format!("write `[{path}]` on a line of its own, and below it one `NAME = ...` per line")
                }
            };
            self.fault(&path, value.span(), &Fault::new(what, example));
            return Section { table: None, path };
        };
        let section = Section { table: Some(table), path };
        self.refuse_unknown(&section, fields);
        section
    }

    /// Reads one field; `None` when it is absent or broken, which is then already told.
    pub(super) fn field<T>(
        &mut self,
        section: &Section<'_, '_>,
        field: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = section.get(field)?;
        let path = join(&section.path, field);
        self.spans.insert(path.clone(), value.span());
        match read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(fault) => {
                self.fault(&path, value.span(), &fault);
                None
            }
        }
    }

    /// Reads a list of which every element is read by `read`; each wrong element is told on its own.
    pub(super) fn list<T>(
        &mut self,
        section: &Section<'_, '_>,
        field: &str,
        not_a_list: impl FnOnce(&DeValue<'_>) -> Fault,
        read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let value = section.get(field)?;
        let path = join(&section.path, field);
        self.spans.insert(path.clone(), value.span());
        let Some(array) = value.get_ref().as_array() else {
            self.fault(&path, value.span(), &not_a_list(value.get_ref()));
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for (index, element) in array.iter().enumerate() {
            let element_path = format!("{path}[{index}]");
            self.spans.insert(element_path.clone(), element.span());
            match read(element.get_ref()) {
                Ok(item) => items.push(item),
                Err(fault) => {
                    self.fault(&element_path, element.span(), &fault);
                    self.broken.insert(path.clone());
                }
            }
        }
        Some(items)
    }

    /// Reads a table of names that the person chose, all to values of one kind.
    pub(super) fn map<T>(
        &mut self,
        section: &Section<'_, '_>,
        read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
    ) -> BTreeMap<String, T> {
        let mut entries = BTreeMap::new();
        for (name, span) in section.names() {
            self.spans.insert(name_of(&join(&section.path, name)), span);
            if let Some(value) = self.field(section, name, &read) {
                entries.insert(name.to_owned(), value);
            }
        }
        entries
    }

    /// Tells that a field is missing that has no default.
    pub(super) fn missing(&mut self, section: &Section<'_, '_>, field: &str, help: &str) {
        let path = join(&section.path, field);
        if section.has(field) || self.is_broken(&path) {
            return;
        }
        let span = self.span_of(&section.path);
        let place =
            if section.path.is_empty() { "the file".to_owned() } else { format!("`[{}]`", section.path) };
        self.problem(span, format!("{place} has no `{field}`"), help.to_owned());
        self.broken.insert(path);
    }

    /// Tells a wrong value of the field at `path`, which takes part in no further check.
    pub(super) fn fault(&mut self, path: &str, span: Range<usize>, fault: &Fault) {
        self.problem(span, format!("`{path}` {}", fault.what), fault.help.clone());
        self.broken.insert(path.to_owned());
    }

    /// Keeps the field at `path` out of further checks, since a problem about it is told elsewhere.
    pub(super) fn mark_broken(&mut self, path: &str) {
        self.broken.insert(path.to_owned());
    }

    /// Tells what the check found, unless a field it is about could not be read.
    pub(super) fn report_finding(&mut self, finding: Finding) {
        if finding.fields.iter().any(|field| self.is_broken(field)) {
            return;
        }
        let written = finding.fields.iter().find_map(|field| self.spans.get(field)).cloned();
        let span = written.unwrap_or_else(|| self.span_of(&finding.fields[0]));
        self.problem(span, finding.message, finding.help);
    }

    /// All problems, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.problems.truncate(PROBLEMS_MAX);
        self.problems
    }

    /// Where `path` stands; where it was left out, the section it would stand in.
    pub(super) fn span_of(&self, path: &str) -> Range<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return span.clone();
            }
            path = path.rsplit_once(['.', '[', '#']).map_or("", |(parent, _)| parent);
            if path.is_empty() {
                return self.spans.get("").cloned().unwrap_or(0..0);
            }
        }
    }

    /// Whether a problem of the field at `path`, or of what it is in, was told already.
    pub(super) fn is_broken(&self, path: &str) -> bool {
        self.broken.contains(path)
            || path.match_indices(['.', '[', '#']).any(|(dot, _)| self.broken.contains(&path[..dot]))
    }

    fn problem(&mut self, span: Range<usize>, message: String, help: String) {
        self.problems.push(Problem { span, message, help });
    }

    fn refuse_unknown(&mut self, section: &Section<'_, '_>, fields: Fields) {
        let Fields::Only(known) = fields else { return };
        for (name, span) in section.names() {
            if known.contains(&name) {
                continue;
            }
            let place = if section.path.is_empty() {
                "at the top of the file".to_owned()
            } else {
                format!("in `[{}]`", section.path)
            };
            self.problem(
                span,
                format!("there is no field `{name}` {place}"),
                self.unknown_help(name, &section.path, known),
            );
            self.broken.insert(join(&section.path, name));
            // A misspelt field is the one that was meant: what it would be without it is no second mistake.
            if let Some(meant) = closest(name, known.iter().copied()) {
                self.broken.insert(join(&section.path, meant));
            }
        }
    }

    fn unknown_help(&self, name: &str, section: &str, known: &[&str]) -> String {
        if let Some(meant) = closest(name, known.iter().copied()) {
            return format!("did you mean `{meant}`?");
        }
        let home = self.homes.iter().find(|(home, fields)| *home != section && fields.contains(&name));
        match home {
            Some(("", _)) => format!("`{name}` belongs at the top of the file, before the first `[section]`"),
            Some((home, _)) => format!("`{name}` belongs in `[{home}]`"),
            None => format!("write {}", one_of(known.iter().copied())),
        }
    }
}

/// What the TOML parser found, in the order of the file. It goes on after an error by guessing, so of each line
/// only the first is told.
pub(super) fn syntax_problems(source: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = errors.iter().map(|error| syntax_problem(source, error)).collect();
    problems.sort_by_key(|problem| problem.span.start);
    problems.dedup_by_key(|problem| problem.line_and_column(source).0);
    problems.truncate(PROBLEMS_MAX);
    problems
}

/// A TOML error as a problem, with help for the slips that people make most.
fn syntax_problem(source: &str, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let span = span.start.min(source.len())..span.end.min(source.len());
    let message = error.message();
    let help = if message.starts_with("duplicate key") {
        "keep one of the two"
    } else if message.contains("values must be quoted") && span.is_empty() {
        "write a value after the `=`"
    } else if message.contains("values must be quoted") {
        "put the text between double quotes: `name = \"web\"`"
    } else if message.contains("basic string") || message.contains("literal string") {
        "end the text with the quote that it began with, on the same line"
    } else if message.contains("unclosed") || message.contains("array") {
        "close what was opened: `[` with `]`, `{` with `}`"
    } else {
        "write `field = value` lines below `[section]` lines, as TOML has it (https://toml.io/en/v1.0.0)"
    };
    Problem { span, message: format!("this is not TOML: {message}"), help: help.to_owned() }
}
