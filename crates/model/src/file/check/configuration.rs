//! What can be wrong with the files and secrets of a release.

use super::Findings;
use crate::configuration::{Configuration, OnChange};
use crate::file::problem::name_of;
use crate::file::value::shorten;
use crate::id::NAME_MAX;
use crate::render::{self, TEMPLATE_BYTES_MAX};
use crate::spec::{ServiceSpec, StopSignal};

/// Most files, and most secrets, of one service.
const ENTRIES_MAX: usize = 32;
/// Most bytes of all templates of a service: a plan carries them to its node in one message.
const TEMPLATES_BYTES_MAX: usize = 256 * 1024;

/// The names of the folders that a workload has.
pub(super) fn folders(configuration: &Configuration) -> Vec<&'static str> {
    let config = (!configuration.files.is_empty()).then_some("CONFIG_DIR");
    let secrets = (!configuration.secrets.is_empty()).then_some("SECRETS_DIR");
    config.into_iter().chain(secrets).collect()
}

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    let configuration = &spec.configuration;
    entries("files", configuration.files.keys(), findings);
    entries("secrets", configuration.secrets.keys(), findings);
    for (name, file) in &configuration.files {
        kill("files", name, file.on_change, findings);
        template(name, &file.template, spec, findings);
    }
    for (name, used) in &configuration.secrets {
        kill("secrets", name, used.on_change, findings);
    }
    let bytes: usize = configuration.files.values().map(|file| file.template.len()).sum();
    if bytes > TEMPLATES_BYTES_MAX {
        findings.add(
            &["files"],
            format!("the templates have {bytes} bytes together"),
            format!("write at most {TEMPLATES_BYTES_MAX}; put what is not configuration into the artifact"),
        );
    }
}

fn entries<'n>(section: &str, names: impl ExactSizeIterator<Item = &'n String>, findings: &mut Findings) {
    if names.len() > ENTRIES_MAX {
        findings.add(
            &[section],
            format!("`[{section}]` has {} entries", names.len()),
            format!("write at most {ENTRIES_MAX}"),
        );
    }
    for name in names.filter(|name| !is_file_name(name)) {
        findings.add(
            &[&name_of(&format!("{section}.{name}")), &format!("{section}.{name}")],
            format!("`{}` in `[{section}]` is not a file name", shorten(name)),
            format!("use 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, starting with a letter or digit"),
        );
    }
}

/// It lies in a folder of Baton's own: a name that stays in there, and is none of Baton's own, which begin with a dot.
fn is_file_name(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The reader offers no such word; a spec that came by wire may have it.
fn kill(section: &str, name: &str, on_change: OnChange, findings: &mut Findings) {
    if on_change == OnChange::Signal(StopSignal::Sigkill) {
        let field = format!("{section}.{name}.on_change");
        findings.add(
            &[&field],
            format!("`{field}` is SIGKILL, which tells a workload nothing"),
            "write \"restart\" or another signal",
        );
    }
}

fn template(name: &str, template: &str, spec: &ServiceSpec, findings: &mut Findings) {
    // The first is where it stands in a file; the second is there also where the text has a file of its own.
    let fields = [format!("files.{name}.content"), format!("files.{name}.template"), format!("files.{name}")];
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    if template.len() > TEMPLATE_BYTES_MAX {
        findings.add(
            &fields,
            format!("the template of `{name}` has {} bytes", template.len()),
            format!("write at most {TEMPLATE_BYTES_MAX}; put what is not configuration into the artifact"),
        );
        return;
    }
    if let Err(error) = render::rehearse(template, spec) {
        findings.add(
            &fields,
            format!("line {} of the template of `{name}`: {}", error.line, error.what),
            error.help,
        );
    }
}
