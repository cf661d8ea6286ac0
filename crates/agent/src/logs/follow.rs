//! Reads the log of one instance from somewhere on: through rotations, and through new runs.

use super::files::{self, FileId};
use super::line::{Joiner, Line};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Read at a time.
const READ_BUFFER: usize = 16 * 1024;

/// A reader of all runs of one instance.
#[derive(Debug)]
pub(super) struct Follower {
    folder: PathBuf,
    runs: BTreeMap<u64, RunLog>,
}

/// The log of one run: the files still to be read, the one being read first.
#[derive(Debug)]
struct RunLog {
    folder: PathBuf,
    queue: VecDeque<Open>,
    /// The newest file that was queued.
    newest: Option<FileId>,
    joiner: Joiner,
    lost: bool,
}

#[derive(Debug)]
struct Open {
    reader: BufReader<File>,
    /// A line whose end is not in the file yet.
    begun: Vec<u8>,
}

impl Follower {
    /// Begins so that the last `lines` lines come first.
    pub(super) fn tail(folder: &Path, lines: u32) -> io::Result<Self> {
        let mut wanted = u64::from(lines);
        let mut runs = BTreeMap::new();
        for run in files::runs(folder)?.into_iter().rev() {
            let of_run = folder.join(run.to_string());
            let mut log = RunLog::new(of_run.clone());
            for path in files::of_run(&of_run)?.into_iter().rev() {
                let Some(mut file) = open(&path)? else { continue };
                let id = files::id_of(&file)?;
                log.newest = log.newest.or(Some(id));
                let (from, found) = files::last_lines(&mut file, wanted)?;
                wanted -= found;
                file.seek(SeekFrom::Start(from))?;
                // The newest file is kept even with nothing wanted of it: what is written next comes from it.
                if found > 0 || log.queue.is_empty() {
                    log.queue.push_front(Open::new(file));
                }
                if wanted == 0 {
                    break;
                }
            }
            runs.insert(run, log);
        }
        Ok(Self { folder: folder.to_owned(), runs })
    }

    /// Looks for files and runs that came since.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let present = files::runs(&self.folder)?;
        // A run whose folder is gone and whose files are read has nothing more to say.
        self.runs.retain(|run, log| present.contains(run) || log.queue.len() > 1);
        for run in present {
            let folder = self.folder.join(run.to_string());
            self.runs.entry(run).or_insert_with(|| RunLog::new(folder)).look()?;
        }
        Ok(())
    }

    /// The next line, in the order of runs; `None` when there is none for now.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        for log in self.runs.values_mut() {
            if let Some(line) = log.next()? {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

impl RunLog {
    fn new(folder: PathBuf) -> Self {
        Self { folder, queue: VecDeque::new(), newest: None, joiner: Joiner::default(), lost: false }
    }

    /// Queues the files that are newer than the newest one known, under whatever names they have by now.
    fn look(&mut self) -> io::Result<()> {
        let mut newer = Vec::new();
        let mut met = self.newest.is_none();
        for path in files::of_run(&self.folder)?.into_iter().rev() {
            let Some(file) = open(&path)? else { continue };
            let id = files::id_of(&file)?;
            if Some(id) == self.newest {
                met = true;
                break;
            }
            newer.push((id, file));
        }
        if !met && !newer.is_empty() {
            // The file that was read last has been removed: between it and the oldest one left, lines may be missing.
            self.lost = true;
        }
        if let Some((id, _)) = newer.first() {
            self.newest = Some(*id);
        }
        self.queue.extend(newer.into_iter().rev().map(|(_, file)| Open::new(file)));
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(open) = self.queue.front_mut() else { return Ok(None) };
            if open.reader.read_until(b'\n', &mut open.begun)? > 0 && open.begun.last() == Some(&b'\n') {
                open.begun.pop();
                let raw = std::mem::take(&mut open.begun);
                if let Some(line) = self.joiner.take(&raw) {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.queue.len() == 1 {
                return Ok(None);
            }
            // A newer file exists, so this one is complete.
            self.queue.pop_front();
            if std::mem::take(&mut self.lost) {
                return Ok(Some(Line {
                    at_ms: crate::clock::wall_now_ms(),
                    stderr: true,
                    text: b"[baton: some lines were rotated away before they could be read]".to_vec(),
                }));
            }
        }
    }
}

impl Open {
    fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(READ_BUFFER, file), begun: Vec::new() }
    }
}

/// A file that was rotated away between listing and opening is no error.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
