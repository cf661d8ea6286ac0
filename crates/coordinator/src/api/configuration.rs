//! How the files and secrets of two releases differ, for `baton plan`. Of a secret only its revisions are told.

use baton_model::configuration::{ConfigFile, Configuration, OnChange, SecretUse};
use baton_model::spec::ServiceSpec;
use baton_model::status::{ConfigurationChange, PlannedChange};
use similar::TextDiff;

/// Lines around a changed one.
const CONTEXT_LINES: usize = 3;
/// Longest difference told of one file; a plan is read by a person.
const DIFF_BYTES_MAX: usize = 16 * 1024;

/// The files and secrets that differ.
pub(super) fn changes(old: &Configuration, new: &Configuration) -> Vec<ConfigurationChange> {
    let mut changes = Vec::new();
    let names = old.files.keys().chain(new.files.keys().filter(|name| !old.files.contains_key(*name)));
    for name in names {
        changes.extend(file_change(name, old.files.get(name), new.files.get(name)));
    }
    let names = old.secrets.keys().chain(new.secrets.keys().filter(|name| !old.secrets.contains_key(*name)));
    for name in names {
        changes.extend(secret_change(name, old.secrets.get(name), new.secrets.get(name)));
    }
    changes
}

/// What an instance goes through. Beside files only the version may differ, which needs a new process by itself.
pub(super) fn planned(old: &ServiceSpec, new: &ServiceSpec, same_artifact: bool) -> PlannedChange {
    if baton_engine::instance::needs_no_process(old, new) && same_artifact {
        return PlannedChange::Refresh;
    }
    PlannedChange::Swap
}

fn file_change(
    name: &str,
    old: Option<&ConfigFile>,
    new: Option<&ConfigFile>,
) -> Option<ConfigurationChange> {
    if old == new {
        return None;
    }
    let text = |file: Option<&ConfigFile>| file.map_or("", |file| file.template.as_str()).to_owned();
    let (before, after) = (text(old), text(new));
    let mut diff =
        TextDiff::from_lines(&before, &after).unified_diff().context_radius(CONTEXT_LINES).to_string();
    if diff.len() > DIFF_BYTES_MAX {
        let end = (0..=DIFF_BYTES_MAX).rev().find(|at| diff.is_char_boundary(*at)).unwrap_or(0);
        diff.truncate(end);
        diff.push_str("\n(and more)\n");
    }
    Some(ConfigurationChange {
        name: name.to_owned(),
        secret: false,
        from_revision: None,
        to_revision: None,
        diff,
        on_change: new.or(old).map_or(OnChange::Nothing, |file| file.on_change),
    })
}

fn secret_change(
    name: &str,
    old: Option<&SecretUse>,
    new: Option<&SecretUse>,
) -> Option<ConfigurationChange> {
    if old == new {
        return None;
    }
    Some(ConfigurationChange {
        name: name.to_owned(),
        secret: true,
        from_revision: old.map(|used| used.revision),
        to_revision: new.map(|used| used.revision),
        diff: String::new(),
        on_change: new.or(old).map_or(OnChange::Nothing, |used| used.on_change),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::spec::StopSignal;

    #[test]
    fn files_are_told_by_their_lines_and_secrets_by_their_revisions() {
        let hup = OnChange::Signal(StopSignal::Sighup);
        let file = |template: &str| ConfigFile { template: template.to_owned(), on_change: hup };
        let used =
            |revision| SecretUse { secret: "db".parse().unwrap(), revision, on_change: OnChange::Restart };
        let old = Configuration {
            files: [("a".to_owned(), file("x\ny\n")), ("same".to_owned(), file("z"))].into(),
            secrets: [("db".to_owned(), used(1))].into(),
        };
        let new = Configuration {
            files: [
                ("a".to_owned(), file("x\nw\n")),
                ("same".to_owned(), file("z")),
                ("b".to_owned(), file("1\n")),
            ]
            .into(),
            secrets: [("db".to_owned(), used(2))].into(),
        };
        let changes = changes(&old, &new);
        let told: Vec<_> = changes.iter().map(|it| (it.name.as_str(), it.secret, it.diff.as_str())).collect();
        assert_eq!(
            told,
            [
                ("a", false, "@@ -1,2 +1,2 @@\n x\n-y\n+w\n"),
                ("b", false, "@@ -0,0 +1 @@\n+1\n"),
                ("db", true, "")
            ]
        );
        assert_eq!((changes[2].from_revision, changes[2].to_revision), (Some(1), Some(2)));
    }
}
