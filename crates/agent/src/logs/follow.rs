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

/// Where the reading of one run's log stands. Files keep their inode when they are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: FileId,
    /// The first byte that was not told.
    pub(super) offset: u64,
    /// Where a divided line begins of which a part was read; `offset` where there is none.
    pub(super) begun: u64,
}

/// A line, and where it leaves the reading of its run.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) line: Line,
    pub(super) run: u64,
    pub(super) place: Option<Place>,
}

impl Told {
    /// What it takes to keep it.
    pub(super) fn cost(&self) -> usize {
        self.line.text.len() + size_of::<Self>()
    }
}

/// The log of one run: the files still to be read, the one being read first.
#[derive(Debug)]
struct RunLog {
    folder: PathBuf,
    queue: VecDeque<Open>,
    /// The newest file that was queued.
    newest: Option<FileId>,
    joiner: Joiner,
    /// Lines are missing between the file that is read and the one after it.
    lost_after: bool,
    /// Lines are missing before what is read next, which is not told yet.
    lost_here: bool,
}

#[derive(Debug)]
struct Open {
    id: FileId,
    reader: BufReader<File>,
    /// Where the line begins that is read next.
    offset: u64,
    /// Where a divided line begins of which parts were read.
    divided_at: Option<u64>,
    /// Lines that end before this were told by an earlier request.
    told_until: u64,
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
                // The newest file is kept even with nothing wanted of it: what is written next comes from it.
                if found > 0 || log.queue.is_empty() {
                    log.queue.push_front(Open::at(id, file, from)?);
                }
                if wanted == 0 {
                    break;
                }
            }
            runs.insert(run, log);
        }
        Ok(Self { folder: folder.to_owned(), runs })
    }

    /// Begins where an earlier reading of these runs stood; runs that it did not know are read from their start.
    pub(super) fn resume(folder: &Path, places: &BTreeMap<u64, Place>) -> io::Result<Self> {
        let mut runs = BTreeMap::new();
        for run in files::runs(folder)? {
            let mut log = RunLog::new(folder.join(run.to_string()));
            match places.get(&run) {
                Some(place) => log.resume(*place)?,
                None => log.look()?,
            }
            runs.insert(run, log);
        }
        Ok(Self { folder: folder.to_owned(), runs })
    }

    /// Where the reading of each run stands.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, Place)> + '_ {
        self.runs.iter().filter_map(|(run, log)| Some((*run, log.place()?)))
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
    pub(super) fn next(&mut self) -> io::Result<Option<Told>> {
        for (run, log) in &mut self.runs {
            if let Some(line) = log.next()? {
                return Ok(Some(Told { line, run: *run, place: log.place() }));
            }
        }
        Ok(None)
    }
}

impl RunLog {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            queue: VecDeque::new(),
            newest: None,
            joiner: Joiner::default(),
            lost_after: false,
            lost_here: false,
        }
    }

    /// Goes on at `place`; where its file is gone, with the oldest that is left.
    fn resume(&mut self, place: Place) -> io::Result<()> {
        for path in files::of_run(&self.folder)? {
            let Some(file) = open(&path)? else { continue };
            let (id, bytes) = (files::id_of(&file)?, file.metadata()?.len());
            self.newest = Some(id);
            if id == place.file && bytes >= place.offset {
                self.queue.clear();
                let mut open = Open::at(id, file, place.begun.min(place.offset))?;
                open.told_until = place.offset;
                self.queue.push_back(open);
            } else {
                self.queue.push_back(Open::at(id, file, 0)?);
            }
        }
        self.lost_here = self.queue.front().is_some_and(|open| open.id != place.file);
        Ok(())
    }

    fn place(&self) -> Option<Place> {
        let open = self.queue.front()?;
        let offset = open.offset.max(open.told_until);
        Some(Place { file: open.id, offset, begun: open.divided_at.unwrap_or(offset) })
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
            self.lost_after = true;
        }
        if let Some((id, _)) = newer.first() {
            self.newest = Some(*id);
        }
        for (id, file) in newer.into_iter().rev() {
            self.queue.push_back(Open::at(id, file, 0)?);
        }
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if std::mem::take(&mut self.lost_here) {
                return Ok(Some(missing()));
            }
            let Some(open) = self.queue.front_mut() else { return Ok(None) };
            if let Some(raw) = open.raw()? {
                let begins = open.offset;
                open.offset += raw.len() as u64 + 1;
                let line = self.joiner.take(&raw);
                open.divided_at = self.joiner.is_dividing().then(|| open.divided_at.unwrap_or(begins));
                match line {
                    Some(line) if open.offset > open.told_until => return Ok(Some(line)),
                    Some(_) | None => continue,
                }
            }
            if self.queue.len() == 1 {
                return Ok(None);
            }
            // A newer file exists, so this one is complete.
            self.queue.pop_front();
            self.lost_here = std::mem::take(&mut self.lost_after);
        }
    }
}

impl Open {
    fn at(id: FileId, mut file: File, offset: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(READ_BUFFER, file);
        Ok(Self { id, reader, offset, divided_at: None, told_until: offset, begun: Vec::new() })
    }

    /// The next line of the file without its newline, once that is there.
    fn raw(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.reader.read_until(b'\n', &mut self.begun)? == 0 || self.begun.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.begun.pop();
        Ok(Some(std::mem::take(&mut self.begun)))
    }
}

/// What is told in place of lines that were removed before they could be read.
fn missing() -> Line {
    Line {
        at_ms: crate::clock::wall_now_ms(),
        stderr: true,
        text: b"[baton: some lines were rotated away before they could be read]".to_vec(),
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
