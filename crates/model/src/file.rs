//! The service file: TOML as a person writes it, read into a [`ServiceSpec`].
//!
//! Reading has two halves. The *reader* turns text into values and refuses what cannot be a value of its field:
//! a wrong type, an unknown field, a missing unit. The *check* then asks whether the values make sense, alone and
//! together; it works on a [`ServiceSpec`], so the coordinator asks the same questions of what arrives by wire.
//! Both collect every problem before they answer, so that one run of `baton validate` shows them all. A value
//! that could not be read is replaced by its default and takes part in no further check.
//!
//! Nothing here touches a file: whether the artifact exists is the CLI's part.

mod analysis;
mod check;
mod configuration;
mod confinement;
mod defaults;
mod fleet;
mod lifecycle;
mod ports;
mod problem;
mod reader;
mod source;
mod strategy;
mod suggest;
mod template;
mod traffic;
mod value;
mod workload;

#[cfg(test)]
mod tests;

pub use problem::{PROBLEMS_MAX, Problem};
pub use source::{ArtifactSource, TemplateSource};
pub use template::{TemplateError, expand};

use crate::render;
use crate::spec::ServiceSpec;
use reader::{Reader, Section};
use std::ops::Range;
use toml::de::DeTable;

/// Largest service file that is read; a real one is a few KiB, so a larger one is some other file.
pub const SOURCE_MAX: usize = 1024 * 1024;
/// A service file that was read and found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// The service, with every default filled in.
    pub spec: ServiceSpec,
    /// What is to be packed and sent as its artifact.
    pub artifact: ArtifactSource,
    /// Templates that lie in files of their own; the spec has an empty text for each until [`Self::fill`] is called.
    pub templates: Vec<TemplateSource>,
}

impl ServiceFile {
    /// Takes in the text of a template that lies in a file of its own.
    ///
    /// # Errors
    /// What is wrong with the template, with its place in `text`.
    pub fn fill(&mut self, source: &TemplateSource, text: String) -> Result<(), Problem> {
        if text.len() > render::TEMPLATE_BYTES_MAX {
            let message = format!("the template of `{}` has {} bytes", source.file, text.len());
            let help = format!("write at most {}", render::TEMPLATE_BYTES_MAX);
            return Err(Problem { span: 0..0, message, help });
        }
        if let Err(error) = render::rehearse(&text, &self.spec) {
            let span = error.span.unwrap_or_else(|| line_span(&text, error.line));
            return Err(Problem { span, message: error.what, help: error.help });
        }
        if let Some(file) = self.spec.configuration.files.get_mut(&source.file) {
            file.template = text;
        }
        Ok(())
    }
}

/// The bytes of a line, counted from 1.
fn line_span(text: &str, line: usize) -> Range<usize> {
    let start = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
    start..end
}

/// The sections and fields at the top of the file.
const TOP: &[&str] = &[
    "name",
    "type",
    "artifact",
    "exec",
    "env",
    "ports",
    "checks",
    "stop",
    "restart",
    "after",
    "notify",
    "reload",
    "hooks",
    "placement",
    "rollout",
    "logs",
    "files",
    "secrets",
    "limits",
    "sandbox",
    "route",
];

/// Which fields live in which section, to say where a misplaced one belongs.
const HOMES: &[(&str, &[&str])] = &[
    ("", TOP),
    ("ports.NAME", ports::PORT),
    ("stop", workload::STOP),
    ("restart", workload::RESTART),
    // Not `ready`, which people also write for a readiness check.
    ("notify", &["watchdog"]),
    ("reload", lifecycle::RELOAD),
    ("hooks", lifecycle::HOOKS),
    ("placement", fleet::PLACEMENT),
    ("rollout", fleet::ROLLOUT),
    ("logs", workload::LOGS),
    ("files.NAME", configuration::FILE),
    ("secrets.NAME", configuration::SECRET),
    ("limits", confinement::LIMITS),
    ("sandbox", confinement::SANDBOX),
    ("route", traffic::ROUTE),
    ("rollout.canary", strategy::CANARY),
    ("rollout.blue_green", strategy::BLUE_GREEN),
    ("rollout.ab", strategy::AB),
    ("rollout.dark", strategy::DARK),
    ("checks", workload::CHECKS),
    ("checks.readiness", workload::CHECK),
];

/// Reads a service file.
///
/// # Errors
/// Every problem of the file, in the order of its lines, at most [`PROBLEMS_MAX`]. While the text is not TOML,
/// only that is told: fields guessed from broken text would be false leads.
pub fn parse(source: &str) -> Result<ServiceFile, Vec<Problem>> {
    if source.len() > SOURCE_MAX {
        return Err(vec![Problem {
            span: 0..0,
            message: format!(
                "the file has {} bytes, more than a service file may have ({SOURCE_MAX})",
                source.len()
            ),
            help: "name a service file: a short TOML text, as docs/service-file.md shows it".to_owned(),
        }]);
    }
    let (document, syntax_errors) = DeTable::parse_recoverable(source);
    if !syntax_errors.is_empty() {
        return Err(reader::syntax_problems(source, &syntax_errors));
    }
    if document.get_ref().is_empty() {
        return Err(vec![Problem {
            span: 0..0,
            message: "the file is empty".to_owned(),
            help: "write at least `name = \"web\"`, `artifact = \"./web\"` and `exec = [\"web\"]`".to_owned(),
        }]);
    }
    let mut reader = Reader::new(HOMES);
    let top = reader.top(document.get_ref(), source, TOP);
    let (spec, artifact, templates) = read_service(&mut reader, &top);
    for finding in check::findings(&spec) {
        reader.report_finding(finding);
    }
    let problems = reader.into_problems();
    match artifact {
        Some(artifact) if problems.is_empty() => Ok(ServiceFile { spec, artifact, templates }),
        _ => Err(problems),
    }
}

fn read_service(
    reader: &mut Reader,
    top: &Section<'_, '_>,
) -> (ServiceSpec, Option<ArtifactSource>, Vec<TemplateSource>) {
    let name = workload::name(reader, top);
    let artifact = workload::artifact(reader, top);
    let exec = workload::exec(reader, top);
    let env = workload::env(reader, top);
    let ports = ports::ports(reader, top);
    let checks = workload::checks(reader, top);
    let stop = workload::stop(reader, top);
    let kind = lifecycle::kind(reader, top);
    let restart = workload::restart(reader, top, kind);
    let (placement, min_available) = fleet::placement(reader, top);
    let served = traffic::Served { ports: &ports, readiness: checks.readiness.as_ref() };
    let route = traffic::route(reader, top, &served);
    let split_by = route.as_ref().map(|route| &route.split_by);
    let rollout = fleet::rollout(reader, top, placement.count, split_by);
    let min_available =
        min_available.unwrap_or_else(|| defaults::min_available(placement.count, rollout.max_unavailable));
    let logs = workload::logs(reader, top);
    let (configuration, templates) = configuration::configuration(reader, top);
    let spec = ServiceSpec {
        name,
        exec,
        env,
        ports,
        checks,
        stop,
        restart,
        placement,
        min_available,
        rollout,
        logs,
        lifecycle: lifecycle::lifecycle(reader, top, kind),
        limits: confinement::limits(reader, top),
        sandbox: confinement::sandbox(reader, top),
        configuration,
        route,
    };
    (spec, artifact, templates)
}

/// Asks of a spec what [`parse`] asks of a file: ranges and contradictions. Each answer is one sentence of what
/// is wrong and one of what to write instead; no answer means that the spec is right.
#[must_use]
pub fn check_spec(spec: &ServiceSpec) -> Vec<String> {
    check::findings(spec)
        .into_iter()
        .map(|finding| format!("{}; {}", finding.message, finding.help))
        .collect()
}
