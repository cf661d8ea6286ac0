//! What is on disk of the agent's programs, `agent/current.json`, and how it changes. No I/O but in [`Programs`].

use crate::durable;
use baton_model::id::{Digest, Version};
use baton_model::upgrade::UpgradeFailure;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A program that the coordinator gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// SHA-256 of its file.
    pub(crate) digest: Digest,
    /// What the operator calls it.
    pub(crate) version: Version,
}

/// A program that has not shown yet that it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trying {
    pub(crate) program: Program,
    /// The request that asked for it.
    pub(crate) request: u64,
    /// The boot in which it is tried; in another one it is not known how it would have gone.
    pub(crate) boot_id: String,
    /// The process that brings the program before it back.
    pub(crate) guardian: u32,
}

/// The agent's programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The program that the host itself starts, as it was at the latest upgrade.
    pub(crate) packaged: Option<Digest>,
    /// The program that it goes on as; `None`: the packaged one.
    pub(crate) confirmed: Option<Program>,
    /// The one before, kept.
    pub(crate) previous: Option<Program>,
    /// One that is tried now.
    pub(crate) trying: Option<Trying>,
    /// The latest one that was not taken, where none was taken since.
    pub(crate) failure: Option<UpgradeFailure>,
    /// One that was tried and given up, of which no event tells yet: whoever gave it up may have no journal.
    #[serde(default)]
    pub(crate) reverted: Option<Program>,
}

/// What a program that starts is, by what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The host's own.
    Packaged,
    /// The confirmed one.
    Stored(Program),
    /// The one that is tried.
    Trial(Trying),
    /// The host's own, which is to go on as this one.
    Become(Program),
}

impl Record {
    /// What the program `own`, which starts in `boot_id`, is and does. A trial that it finds and is not has failed.
    pub(crate) fn begin(&mut self, own: Digest, boot_id: &str) -> Begin {
        if let Some(trying) = self.trying.clone() {
            if trying.boot_id != boot_id {
                // The host went down meanwhile: the coordinator asks again.
                self.trying = None;
            } else if trying.program.digest == own {
                return Begin::Trial(trying);
            } else {
                self.fail(trying.request, "it ended before it had reached the coordinator".to_owned());
            }
        }
        match &self.confirmed {
            None => Begin::Packaged,
            Some(program) if program.digest == own => Begin::Stored(program.clone()),
            Some(program) if self.packaged == Some(own) => Begin::Become(program.clone()),
            Some(_) => {
                // Somebody installed another package since: that is the newer wish.
                self.confirmed = None;
                self.previous = None;
                self.packaged = Some(own);
                Begin::Packaged
            }
        }
    }

    /// The program `own` is about to go on as another one.
    pub(crate) fn try_program(&mut self, own: Digest, trying: Trying) {
        if self.confirmed.as_ref().is_none_or(|program| program.digest != own) {
            self.packaged = Some(own);
        }
        self.trying = Some(trying);
    }

    /// The trial of this request has worked. `false` where it was given up before.
    pub(crate) fn confirm(&mut self, request: u64) -> bool {
        let Some(trying) = self.trying.take_if(|trying| trying.request == request) else { return false };
        self.previous = self.confirmed.replace(trying.program);
        self.failure = None;
        true
    }

    /// The program of this request is not taken. `false` where it was taken, or another is tried.
    pub(crate) fn fail_trial(&mut self, request: u64, reason: String) -> bool {
        let tried = self.trying.as_ref().is_some_and(|trying| trying.request == request);
        if tried {
            self.fail(request, reason);
        }
        tried
    }

    /// The program of this request is not taken.
    pub(crate) fn fail(&mut self, request: u64, reason: String) {
        if let Some(tried) = self.trying.take() {
            self.reverted = Some(tried.program);
        }
        self.failure = Some(UpgradeFailure { request, reason });
    }

    fn keeps(&self, name: &str) -> bool {
        let programs = [self.confirmed.as_ref(), self.previous.as_ref()].into_iter().flatten();
        programs
            .chain(self.trying.as_ref().map(|trying| &trying.program))
            .any(|program| name.strip_suffix(".part").unwrap_or(name) == program.digest.to_string())
    }
}

/// The folder of the agent's programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Those of the state directory `root`. The folder is made with the first change.
    pub(crate) fn below(root: &Path) -> Self {
        Self { dir: root.join("agent") }
    }

    /// Where fetched programs go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file of a program.
    pub(crate) fn file(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string()).join("baton")
    }

    /// What is written; `None` before the first upgrade.
    ///
    /// # Errors
    /// What the file system says, and content that is none of ours.
    pub(crate) fn read(&self) -> io::Result<Option<Record>> {
        durable::read_json(&self.record())
    }

    /// Changes what is written: durable when it returns. The agent and the guardian of a trial take turns.
    ///
    /// # Errors
    /// As [`Programs::read`]; what was written is then still there.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> io::Result<T> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join("lock");
        let lock: File = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Held for one small write at a time.
        lock.lock()?;
        let mut record = self.read()?.unwrap_or_default();
        let before = record.clone();
        let value = change(&mut record);
        if record != before {
            durable::replace_json(&self.record(), &record)?;
        }
        Ok(value)
    }

    /// Removes the programs that are neither kept nor tried. A process that runs one keeps its own file open.
    pub(crate) fn tidy(&self, record: &Record) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_program = name.strip_suffix(".part").unwrap_or(&name).parse::<Digest>().is_ok();
            if !is_program || record.keeps(&name) {
                continue;
            }
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %path.display(), "an old program of the agent could not be removed");
            }
        }
    }

    fn record(&self) -> PathBuf {
        self.dir.join("current.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: Digest = Digest([1; 32]);
    const NEW: Digest = Digest([2; 32]);

    fn program(digest: Digest) -> Program {
        Program { digest, version: "2.0".parse().unwrap() }
    }

    fn trying(request: u64) -> Trying {
        Trying { program: program(NEW), request, boot_id: "boot".to_owned(), guardian: 7 }
    }

    /// The record after the packaged program began to try `NEW`.
    fn tried() -> Record {
        let mut record = Record::default();
        record.try_program(PACKAGED, trying(1));
        record
    }

    #[test]
    fn a_trial_that_works_is_what_the_package_goes_on_as() {
        let mut record = tried();
        assert_eq!(record.begin(NEW, "boot"), Begin::Trial(trying(1)));
        assert!(record.confirm(1));
        assert!(!record.fail_trial(1, "late".to_owned()), "a guardian that is late changes nothing");
        assert_eq!(record.begin(NEW, "boot"), Begin::Stored(program(NEW)));
        assert_eq!(record.begin(PACKAGED, "another boot"), Begin::Become(program(NEW)));
    }

    #[test]
    fn a_trial_that_ended_has_failed_and_the_old_program_stays() {
        let mut record = tried();
        assert_eq!(record.begin(PACKAGED, "boot"), Begin::Packaged);
        assert_eq!(record.failure.as_ref().map(|failure| failure.request), Some(1));
        assert_eq!(record.reverted, Some(program(NEW)), "which is still to be told");
        assert!(!record.confirm(1), "it was given up");
    }

    #[test]
    fn the_program_that_returns_is_the_one_before_not_the_package() {
        let mut record = tried();
        assert!(record.confirm(1));
        let third = Trying { program: program(Digest([3; 32])), ..trying(2) };
        record.try_program(NEW, third);
        assert_eq!(record.packaged, Some(PACKAGED));
        assert_eq!(record.begin(PACKAGED, "boot"), Begin::Become(program(NEW)));
        assert_eq!(record.failure.as_ref().map(|failure| failure.request), Some(2));
    }

    #[test]
    fn a_reboot_in_a_trial_fails_nothing() {
        let mut record = tried();
        assert_eq!(record.begin(PACKAGED, "another boot"), Begin::Packaged);
        assert_eq!((record.trying, record.failure, record.reverted), (None, None, None));
    }

    #[test]
    fn another_package_wins() {
        let mut record = tried();
        assert!(record.confirm(1));
        let newer = Digest([9; 32]);
        assert_eq!(record.begin(newer, "boot"), Begin::Packaged);
        assert_eq!(record.confirmed, None);
        assert_eq!(record.begin(newer, "boot"), Begin::Packaged);
    }

    #[test]
    fn two_programs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs::below(folder.path());
        let record = programs
            .change(|record| {
                for n in 1..=3 {
                    let program = program(Digest([n; 32]));
                    record.try_program(PACKAGED, Trying { program, ..trying(n.into()) });
                    assert!(record.confirm(n.into()));
                }
                record.clone()
            })
            .unwrap();
        for n in 1..=3 {
            fs::create_dir(programs.dir().join(Digest([n; 32]).to_string())).unwrap();
        }
        assert_eq!(programs.read().unwrap().as_ref(), Some(&record));
        programs.tidy(&record);
        let left = |n| programs.dir().join(Digest([n; 32]).to_string()).exists();
        assert_eq!([left(1), left(2), left(3)], [false, true, true]);
        assert!(programs.record().exists());
    }
}
