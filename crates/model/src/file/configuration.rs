//! Reads the files that a release brings beside its artifact: `[files."NAME"]` and `[secrets.NAME]`.

use super::problem::Fault;
use super::reader::{Fields, Reader, Section};
use super::source::TemplateSource;
use super::value;
use crate::configuration::{ConfigFile, Configuration, OnChange, SecretUse};
use crate::id::SecretName;
use crate::spec::StopSignal;
use std::collections::BTreeMap;
use toml::de::DeValue;

pub(super) const FILE: &[&str] = &["template", "content", "on_change"];
pub(super) const SECRET: &[&str] = &["secret", "on_change"];

/// The configuration, and the templates that lie in files of their own: their text is the CLI's to read.
pub(super) fn configuration(
    reader: &mut Reader,
    top: &Section<'_, '_>,
) -> (Configuration, Vec<TemplateSource>) {
    let (files, templates) = files(reader, top);
    (Configuration { files, secrets: secrets(reader, top) }, templates)
}

fn files(reader: &mut Reader, top: &Section<'_, '_>) -> (BTreeMap<String, ConfigFile>, Vec<TemplateSource>) {
    let section = reader.section(top, "files", Fields::Any);
    let (mut files, mut templates) = (BTreeMap::new(), Vec::new());
    for (name, _) in section.names() {
        let entry = reader.section(&section, name, Fields::Only(FILE));
        let on_change = on_change(reader, &entry);
        let template = reader.field(&entry, "template", value::path);
        let content = reader.field(&entry, "content", value::text);
        let at = format!("{}.template", entry.path);
        if entry.has("template") && entry.has("content") {
            let span = reader.span_of(&at);
            let fault = Fault::new("stands beside `content`, and a file has one text", "keep one of the two");
            reader.fault(&at, span, &fault);
        } else if !entry.has("content") {
            let help = "write `template = \"./app.conf.tmpl\"` with the path of a template, or `content = \"\"\"...\"\"\"`";
            reader.missing(&entry, "template", help);
        }
        if let Some(path) = template {
            templates.push(TemplateSource {
                file: name.to_owned(),
                path: path.into(),
                span: reader.span_of(&at),
            });
        }
        files.insert(name.to_owned(), ConfigFile { template: content.unwrap_or_default(), on_change });
    }
    (files, templates)
}

fn secrets(reader: &mut Reader, top: &Section<'_, '_>) -> BTreeMap<String, SecretUse> {
    let section = reader.section(top, "secrets", Fields::Any);
    let mut secrets = BTreeMap::new();
    for (name, span) in section.names() {
        let entry = reader.section(&section, name, Fields::Only(SECRET));
        let on_change = on_change(reader, &entry);
        let written = reader.field(&entry, "secret", secret_name);
        let secret = match (written, SecretName::new(name)) {
            (Some(secret), _) => secret,
            (None, Ok(secret)) => secret,
            (None, Err(_)) if entry.has("secret") => continue,
            (None, Err(_)) => {
                let fault = Fault::new(
                    "is not a valid name of a secret",
                    "use 1 to 63 letters, digits, `.`, `_` and `-`, starting with a letter or digit: `[secrets.db-password]`",
                );
                reader.fault(&entry.path, span, &fault);
                continue;
            }
        };
        secrets.insert(name.to_owned(), SecretUse { secret, revision: 0, on_change });
    }
    secrets
}

fn secret_name(written: &DeValue<'_>) -> Result<SecretName, Fault> {
    let name = value::text(written)?;
    SecretName::new(name.clone()).map_err(|_| {
        Fault::new(
            format!("is `{}`, which is not a valid name of a secret", value::shorten(&name)),
            "use 1 to 63 letters, digits, `.`, `_` and `-`, starting with a letter or digit: \"db-password\"",
        )
    })
}

/// What follows a change; a restart where nothing is said, since every program understands one.
fn on_change(reader: &mut Reader, entry: &Section<'_, '_>) -> OnChange {
    let words: Vec<(&'static str, OnChange)> = [OnChange::Restart, OnChange::Nothing]
        .into_iter()
        .chain(StopSignal::ALL.into_iter().filter(may_tell).map(OnChange::Signal))
        .map(|on_change| (on_change.word(), on_change))
        .collect();
    reader.field(entry, "on_change", |v| value::word(v, &words)).unwrap_or(super::defaults::ON_CHANGE)
}

/// Whether a signal can tell a workload of a change; SIGKILL cannot tell it anything.
fn may_tell(signal: &StopSignal) -> bool {
    *signal != StopSignal::Sigkill
}
