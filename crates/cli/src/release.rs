//! A release in the making: a service file that was read and found right, and its artifact.

use crate::diagnostics;
use crate::fault::Fault;
use crate::global::Global;
use crate::pack::{self, Helper, Packed};
use anyhow::Result;
use baton_model::file::{self, Problem, SOURCE_MAX, ServiceFile};
use baton_model::id::Version;
use baton_model::lifecycle::{Lifecycle, Reload};
use baton_model::render::TEMPLATE_BYTES_MAX;
use baton_model::spec::{Probe, ServiceSpec};
use baton_proto::v1;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A service file on this machine.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    text: String,
    /// What it says.
    pub(crate) file: ServiceFile,
}

impl Source {
    /// Reads and checks the service file at `path`; every problem is told before this returns.
    ///
    /// # Errors
    /// When it cannot be read or has problems; nothing was changed then.
    pub(crate) fn load(global: &Global, path: &Path) -> Result<Self> {
        let text = read(path)?;
        match file::parse(&text) {
            Ok(file) => Self { path: path.to_owned(), text, file }.with_templates(global),
            Err(problems) => Err(invalid(global, path, &text, &problems)),
        }
    }

    /// Reads the templates that lie in files of their own; a problem of one is told with its own line.
    fn with_templates(mut self, global: &Global) -> Result<Self> {
        let folder = self.path.parent().unwrap_or(Path::new("")).to_owned();
        for source in std::mem::take(&mut self.file.templates) {
            let path = folder.join(&source.path);
            let text = read_template(&path).map_err(|what| {
                let help =
                    "write the path of a text file beside the service file: \"./app.conf.tmpl\"".to_owned();
                let problem = Problem { span: source.span.clone(), message: what, help };
                invalid(global, &self.path, &self.text, &[problem])
            })?;
            if let Err(problem) = self.file.fill(&source, text.clone()) {
                return Err(invalid(global, &path, &text, &[problem]));
            }
        }
        let problems = file::check_spec(&self.file.spec);
        if let Some(problem) = problems.first() {
            let problem =
                Problem { span: 0..0, message: problem.clone(), help: "see docs/service-file.md".to_owned() };
            return Err(invalid(global, &self.path, &self.text, &[problem]));
        }
        Ok(self)
    }

    /// Packs the artifact that the file names; problems of it are told with the line that names it.
    ///
    /// # Errors
    /// When the artifact cannot be sent.
    pub(crate) fn pack(&self, global: &Global) -> Result<Packed> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let artifact = folder.join(&self.file.artifact.path);
        let program = self.file.spec.exec.first().map_or("", String::as_str);
        pack::pack(&artifact, program, &helpers(&self.file.spec)).map_err(|error| {
            let problem =
                Problem { span: self.file.artifact.span.clone(), message: error.what, help: error.help };
            invalid(global, &self.path, &self.text, &[problem])
        })
    }

    /// The file's path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What the release runs beside its own program.
fn helpers(spec: &ServiceSpec) -> Vec<Helper> {
    let Lifecycle { reload, hooks, .. } = &spec.lifecycle;
    let reload = match reload {
        Some(Reload::Command { command, .. }) => Some(("reload.command".to_owned(), command)),
        Some(Reload::Signal { .. }) | None => None,
    };
    let hooks = hooks.named().into_iter();
    let hooks = hooks.filter_map(|(point, hook)| Some((format!("hooks.{point}.command"), &hook?.command)));
    let checks = &spec.checks;
    let checks =
        [("startup", &checks.startup), ("readiness", &checks.readiness), ("liveness", &checks.liveness)];
    let checks = checks.into_iter().filter_map(|(name, check)| match &check.as_ref()?.probe {
        Probe::Exec { command } => Some((format!("checks.{name}.command"), command)),
        Probe::Http { .. } | Probe::Tcp { .. } | Probe::Grpc { .. } => None,
    });
    let commands = reload.into_iter().chain(hooks).chain(checks);
    commands.filter_map(|(field, words)| Some(Helper { field, program: words.first()?.clone() })).collect()
}

/// What is asked of the coordinator for this release.
pub(crate) fn request(source: &Source, packed: &Packed, version: &Version) -> v1::DeployRequest {
    v1::DeployRequest {
        spec: Some(source.file.spec.clone().into()),
        version: version.to_string(),
        artifact: Some(packed.artifact.clone().into()),
    }
}

/// Says the warnings of a packed artifact on stderr.
pub(crate) fn say_warnings(packed: &Packed) {
    for warning in &packed.warnings {
        eprintln!("warning: {warning}");
    }
}

fn read(path: &Path) -> Result<String> {
    let unreadable = |error: std::io::Error| {
        Fault::usage(
            format!("{} cannot be read: {error}", path.display()),
            "name a service file, as in `baton validate web.toml`",
        )
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that the parser sees that there is more, whatever the file's length.
    file.take(SOURCE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        let what = format!("{} is not text in UTF-8: its line {line} has other bytes", path.display());
        Fault::usage(what, "save it as UTF-8, or name a service file").into()
    })
}

/// A template's text; one byte more than is allowed, so that its check sees that there is more.
fn read_template(path: &Path) -> std::result::Result<String, String> {
    let unreadable =
        |error: std::io::Error| format!("the template {} cannot be read: {error}", path.display());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(TEMPLATE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| format!("the template {} is not text in UTF-8", path.display()))
}

fn invalid(global: &Global, path: &Path, text: &str, problems: &[Problem]) -> anyhow::Error {
    if let Err(error) = diagnostics::tell(global, path, text, problems) {
        return error;
    }
    let count = match problems.len() {
        1 => "a problem".to_owned(),
        count => format!("{count} problems"),
    };
    Fault::usage(
        format!("{} has {count}", path.display()),
        "correct what is shown above; nothing was changed",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::global::GlobalOptions;

    fn global() -> Global {
        Global::new(&GlobalOptions { no_color: true, ..GlobalOptions::default() })
    }

    #[test]
    fn every_example_is_right_as_it_is_printed() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut seen = 0;
        for folder in std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()) {
            for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.extension().is_some_and(|ending| ending == "toml") {
                    let source = Source::load(&global(), &path).expect("a right file");
                    let packed = source.pack(&global()).expect("a right artifact");
                    assert_eq!(packed.warnings, Vec::<String>::new(), "{}", path.display());
                    seen += 1;
                }
            }
        }
        assert!(seen >= 3, "only {seen} examples were found");
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_with_its_line() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("web.toml");
        std::fs::write(&path, b"name = \"web\"\nartifact = \"\xff\"\n").unwrap();
        let error = Source::load(&global(), &path).unwrap_err().to_string();
        assert!(error.contains("is not text in UTF-8: its line 2"), "{error}");
        let error = Source::load(&global(), dir.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn templates_are_read_from_beside_the_service_file_and_checked() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("web.toml");
        let text = "name = \"web\"\nartifact = \"web\"\nexec = [\"web\"]\n[files.\"app.conf\"]\ntemplate = \"./app.tmpl\"\n";
        std::fs::write(&path, text).unwrap();
        let error = Source::load(&global(), &path).unwrap_err().to_string();
        assert!(error.contains("web.toml has a problem"), "{error}");
        std::fs::write(dir.path().join("app.tmpl"), "a\n{{ node.nmae }}\n").unwrap();
        let error = Source::load(&global(), &path).unwrap_err().to_string();
        assert!(error.contains("app.tmpl has a problem"), "{error}");
        std::fs::write(dir.path().join("app.tmpl"), "a\n{{ node.name }}\n").unwrap();
        let source = Source::load(&global(), &path).unwrap();
        assert_eq!(source.file.spec.configuration.files["app.conf"].template, "a\n{{ node.name }}\n");
    }

    #[test]
    fn a_file_that_never_ends_is_refused() {
        let error = Source::load(&global(), Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("has a problem"), "{error}");
    }

    #[test]
    fn the_artifact_counts_from_the_service_files_folder() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("web.toml");
        std::fs::write(&path, "name = \"web\"\nartifact = \"web\"\nexec = [\"web\"]\n").unwrap();
        let source = Source::load(&global(), &path).unwrap();
        assert!(source.pack(&global()).unwrap_err().to_string().contains("has a problem"));
        std::fs::write(dir.path().join("web"), "#!/bin/sh\n").unwrap();
        assert_eq!(source.pack(&global()).unwrap().path(), dir.path().join("web"));
    }
}
