//! The newest section of CHANGELOG.md as a Debian changelog; see deb-changelog(5).

use crate::run;
use anyhow::{Context as _, Result};
use std::process::Command;

/// Debian's tools warn of longer lines.
const WIDTH: usize = 79;

/// A changelog with one entry, of this package in this version, dated `epoch` (seconds since 1970).
///
/// # Errors
/// When CHANGELOG.md has no section, or `date` fails.
pub(super) fn debian(
    changelog: &str,
    package: &str,
    version: &str,
    maintainer: &str,
    epoch: &str,
) -> Result<String> {
    let date =
        run::output(Command::new("date").env("LC_ALL", "C").args(["-uR", "-d", &format!("@{epoch}")]))?;
    let date = String::from_utf8(date)?;
    let changes = changes(changelog).context("CHANGELOG.md has no section `## ...`")?;
    Ok(format!(
        "{package} ({version}) unstable; urgency=medium\n\n{changes}\n -- {maintainer}  {}\n",
        date.trim()
    ))
}

/// The newest section: its paragraphs and headings as items, its items below them.
fn changes(changelog: &str) -> Option<String> {
    let (_, rest) = changelog.split_once("\n## ")?;
    // After the section's own heading, up to the next one.
    let section = rest.split_once('\n')?.1.split("\n## ").next()?;
    let mut changes = String::new();
    let mut item = Item::default();
    for line in section.lines().map(str::trim) {
        if line.is_empty() {
            item.end(&mut changes);
        } else if let Some(heading) = line.strip_prefix("### ") {
            item.end(&mut changes);
            item.begin("  * ", heading);
        } else if let Some(text) = line.strip_prefix("- ") {
            item.end(&mut changes);
            item.begin("    - ", text);
        } else if item.words.is_empty() {
            item.begin("  * ", line);
        } else {
            item.words.extend(line.split(' ').map(str::to_owned));
        }
    }
    item.end(&mut changes);
    Some(changes)
}

/// One item in the making.
#[derive(Default)]
struct Item {
    mark: &'static str,
    words: Vec<String>,
}

impl Item {
    fn begin(&mut self, mark: &'static str, text: &str) {
        self.mark = mark;
        self.words = text.split(' ').map(str::to_owned).collect();
    }

    /// Writes the item, its lines no longer than they may be, and forgets it.
    fn end(&mut self, to: &mut String) {
        let words = std::mem::take(&mut self.words);
        let Some((first, rest)) = words.split_first() else { return };
        let mut line = format!("{}{first}", self.mark);
        for word in rest {
            if line.chars().count() + 1 + word.chars().count() > WIDTH {
                to.push_str(&line);
                to.push('\n');
                line = format!("{}{word}", " ".repeat(self.mark.len()));
            } else {
                line.push(' ');
                line.push_str(word);
            }
        }
        to.push_str(&line);
        to.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_section_becomes_items_of_lines_that_are_not_too_long() {
        let text = "# Changelog\n\nAbout it.\n\n## Unreleased\n\nThe foundation:\nall of it.\n\n### Hosts\n\n\
                    - One thing that takes so many words to tell of that they do not all fit into the one line that\n  \
                    begins it.\n- Another.\n\n## 0.1.0\n\n- Old.\n";
        let expected = "  * The foundation: all of it.\n  * Hosts\n    - One thing that takes so many words to tell of that they do not all fit\n      \
                        into the one line that begins it.\n    - Another.\n";
        assert_eq!(changes(text).unwrap(), expected);
        assert_eq!(changes("# Changelog\n"), None);
        let whole = debian(text, "baton", "0.1.0", "Who <who@example.org>", "0").unwrap();
        assert!(whole.starts_with("baton (0.1.0) unstable; urgency=medium\n\n  * The foundation"), "{whole}");
        assert!(whole.ends_with("\n -- Who <who@example.org>  Thu, 01 Jan 1970 00:00:00 +0000\n"), "{whole}");
    }
}
