//! Shows what is wrong with a service file: the line, a caret, and what to write instead. Drawn with colours and
//! lines on a terminal, in plain ASCII where stderr is piped, and as data with `--json`.

use crate::global::Global;
use baton_model::file::Problem;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
};
use serde::Serialize;
use std::fmt;
use std::io::Write as _;
use std::path::Path;

/// Lines shown around the one a problem is in.
const CONTEXT_LINES: usize = 1;
/// Where a file has a longer line, in bytes, places in it are told by numbers: drawn, it would fill many screens.
const LINE_DRAWN_MAX: usize = 400;

/// A problem as `--json` gives it.
#[derive(Debug, Serialize)]
struct ProblemData<'p> {
    line: usize,
    column: usize,
    message: &'p str,
    help: &'p str,
}

/// The answer of a validation as `--json` gives it.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict<'p> {
    file: String,
    valid: bool,
    problems: Vec<ProblemData<'p>>,
    /// What is no mistake, but should be known.
    warnings: &'p [String],
}

impl<'p> Verdict<'p> {
    /// What is to be said of `file`.
    pub(crate) fn new(file: &Path, source: &str, problems: &'p [Problem], warnings: &'p [String]) -> Self {
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| {
                let (line, column) = problem.line_and_column(source);
                ProblemData { line, column, message: &problem.message, help: &problem.help }
            })
            .collect();
        Self { file: file.display().to_string(), valid: problems.is_empty(), problems, warnings }
    }
}

/// Tells every problem of `file`: on stdout as data with `--json`, on stderr otherwise.
///
/// # Errors
/// When stdout is gone.
pub(crate) fn tell(global: &Global, file: &Path, source: &str, problems: &[Problem]) -> anyhow::Result<()> {
    if global.json {
        return global.print_json(&Verdict::new(file, source, problems, &[]));
    }
    let drawing = draw(file, source, problems, global.stderr_color, usize::from(global.size().0));
    // Talk: when stderr is gone there is nobody to hear it, and the exit code still tells.
    let _ = std::io::stderr().lock().write_all(drawing.as_bytes());
    Ok(())
}

/// Draws the problems, one after the other.
fn draw(file: &Path, source: &str, problems: &[Problem], color: bool, width: usize) -> String {
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_context_lines(CONTEXT_LINES)
        .with_links(false);
    let code = NamedSource::new(file.display().to_string(), source.to_owned());
    let is_drawn = source.lines().all(|line| line.len() <= LINE_DRAWN_MAX);
    let mut drawing = String::new();
    for problem in problems {
        if !is_drawn {
            let (line, column) = problem.line_and_column(source);
            drawing.push_str(&format!("{}:{line}:{column}: {}\n", file.display(), problem.message));
            drawing.push_str(&format!("  help: {}\n\n", problem.help));
            continue;
        }
        let told = Told { problem, code: &code };
        if handler.render_report(&mut drawing, &told).is_err() {
            drawing.push_str(&format!("{}: {}\n", file.display(), problem.message));
        }
        drawing.push('\n');
    }
    drawing
}

/// A problem together with the text it is in, as miette wants it.
struct Told<'p> {
    problem: &'p Problem,
    code: &'p NamedSource<String>,
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Told<'_> {}

impl Diagnostic for Told<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.problem.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.code)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::underline(self.problem.span.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "name = \"web\"\nartifact = \"./web\"\nexec = \"web --port 80\"\n";

    #[test]
    fn a_problem_shows_file_line_caret_and_remedy() {
        let problems = baton_model::file::parse(SOURCE).unwrap_err();
        let drawing = draw(Path::new("web.toml"), SOURCE, &problems, false, 100);
        insta::assert_snapshot!(drawing, @r#"
         x `exec` must be a list of the program and its arguments, not text
          ,-[web.toml:3:8]
        2 | artifact = "./web"
        3 | exec = "web --port 80"
          :        ^^^^^^^^^^^^^^^
          `----
         help: no shell is involved; write `exec = ["web", "--port", "80"]`
        "#);
    }

    #[test]
    fn the_data_has_line_and_column() {
        let problems = baton_model::file::parse(SOURCE).unwrap_err();
        let data = serde_json::to_value(Verdict::new(Path::new("web.toml"), SOURCE, &problems, &[])).unwrap();
        assert_eq!((&data["valid"], &data["problems"][0]["line"]), (&false.into(), &3.into()));
        assert_eq!(data["problems"][0]["column"], 8);
    }

    #[test]
    fn a_problem_at_the_end_of_an_empty_file_is_drawn() {
        let problems = baton_model::file::parse("").unwrap_err();
        assert!(draw(Path::new("web.toml"), "", &problems, false, 80).contains("the file is empty"));
    }

    #[test]
    fn a_very_long_line_is_not_drawn() {
        let source = format!("name = \"web\"\n#{}\nexec = 1\n", "x".repeat(LINE_DRAWN_MAX));
        let problems = baton_model::file::parse(&source).unwrap_err();
        let drawing = draw(Path::new("web.toml"), &source, &problems, false, 80);
        assert!(drawing.contains("web.toml:3:8: `exec` must be a list"), "{drawing}");
        assert!(!drawing.contains("xxx"), "{drawing}");
    }
}
