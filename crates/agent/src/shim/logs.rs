//! The workload's output, from its pipes to bounded files.
//!
//! A line in a file is `<RFC 3339 time> <stdout|stderr> <F|P> <text>`, the format of the Kubernetes CRI: `P` says that
//! the text goes on in the next line of the same stream. The files are `current`, `current.1` (the newest full one)
//! and so on. What cannot be written (disk full) is dropped and counted, and the workload never waits for it; a line
//! from the shim says so as soon as it can. Times are taken once per read. A [`Journal`] takes each line besides.

use super::clock::{self, STAMP_BYTES};
use super::entry::{Entry, Priority};
use super::journal::{Journal, Wait};
use super::memory;
use super::protocol::Note;
use baton_model::observed::LogDrops;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Where lines come from.
#[derive(Clone, Copy)]
struct Origin {
    name: &'static [u8; 6],
    /// Before each line: whose it is, where it is not the workload's.
    mark: &'static str,
    /// In the journal.
    priority: Priority,
    /// The process that writes; 0: not known.
    writer: u32,
}

/// Longest mark before a line, for a buffer's size.
const MARK_BYTES_MAX: usize = 32;
/// Longest text of one line; a longer one is divided (containerd's limit).
const LINE_BYTES_MAX: usize = 16 << 10;
/// Read at once, at most, with a partial line in front: the size of a pipe.
const STREAM_BYTES: usize = 64 << 10;
/// Written at once, at most.
const OUT_BYTES: usize = 128 << 10;
/// Bytes before the text of a line, at most, and the newline.
const FRAMING_BYTES: usize = STAMP_BYTES + " stdout F \n".len();
/// The line that tells of dropped ones.
const TOLD_BYTES_MAX: usize = 160;
/// Files kept, at most.
const KEEP_MAX: u32 = 1000;

const CURRENT: &CStr = c"current";

/// The files.
pub(super) struct Logs {
    directory: OwnedFd,
    file: Option<OwnedFd>,
    file_bytes: u64,
    max_bytes: u64,
    keep: u32,
    out: &'static mut [u8],
    out_len: usize,
    /// Lines in `out`, each counted where it ends.
    out_lines: u64,
    dropped: LogDrops,
    dropped_untold: LogDrops,
    journal: Option<Journal>,
}

impl Logs {
    /// Appends to what is there.
    ///
    /// # Errors
    /// `current` cannot be opened.
    pub(super) fn open(
        directory: OwnedFd,
        max_bytes: u64,
        keep: u32,
        journal: Option<Journal>,
    ) -> io::Result<Self> {
        let out = memory::map(OUT_BYTES)?;
        let bytes_min = LINE_BYTES_MAX + MARK_BYTES_MAX + FRAMING_BYTES + TOLD_BYTES_MAX;
        let max_bytes = max_bytes.max(bytes_min as u64);
        let keep = keep.clamp(1, KEEP_MAX);
        let mut logs = Self {
            directory,
            file: None,
            file_bytes: 0,
            max_bytes,
            keep,
            out,
            out_len: 0,
            out_lines: 0,
            dropped: LogDrops::default(),
            dropped_untold: LogDrops::default(),
            journal,
        };
        logs.open_current()?;
        Ok(logs)
    }

    /// What was dropped since the start.
    pub(super) fn dropped(&self) -> LogDrops {
        LogDrops { journal_lines: self.journal.as_ref().map_or(0, Journal::dropped), ..self.dropped }
    }

    /// What the lines wait for that are on their way to the journal.
    pub(super) fn journal_waits_for(&self) -> Wait {
        self.journal.as_ref().map_or(Wait::Nothing, Journal::waits_for)
    }

    /// Sends on what waited for it.
    pub(super) fn forward_to_journal(&mut self) {
        self.journal.iter_mut().for_each(Journal::forward);
    }

    /// The shim ends.
    pub(super) fn finish(&mut self) {
        self.journal.iter_mut().for_each(Journal::finish);
    }

    fn open_current(&mut self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, CURRENT, flags, Mode::from_raw_mode(0o640))?;
        self.file_bytes = rustix::fs::fstat(&file)?.st_size as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Puts one line into the buffer, and into the journal where it goes there too.
    fn line(&mut self, stamp: &[u8; STAMP_BYTES], from: &Origin, full: bool, text: &[u8]) {
        let mark = from.mark.as_bytes();
        if let Some(journal) = &mut self.journal {
            let (priority, stream, pid) = (from.priority, &from.name[..], from.writer);
            journal.line(&Entry { priority, stream, pid, partial: !full, text: [mark, text] });
        }
        let len = mark.len() + text.len() + FRAMING_BYTES;
        let max_bytes = usize::try_from(self.max_bytes).unwrap_or(OUT_BYTES);
        let limit = OUT_BYTES.min(max_bytes - TOLD_BYTES_MAX);
        if self.out_len + len > limit {
            self.flush();
        }
        let out = &mut self.out[self.out_len..self.out_len + len];
        out[..STAMP_BYTES].copy_from_slice(stamp);
        out[STAMP_BYTES] = b' ';
        out[STAMP_BYTES + 1..STAMP_BYTES + 7].copy_from_slice(from.name);
        out[STAMP_BYTES + 7..STAMP_BYTES + 10].copy_from_slice(if full { b" F " } else { b" P " });
        let start = STAMP_BYTES + 10 + mark.len();
        out[STAMP_BYTES + 10..start].copy_from_slice(mark);
        out[start..len - 1].copy_from_slice(text);
        out[len - 1] = b'\n';
        self.out_len += len;
        self.out_lines += u64::from(full);
    }

    /// Writes the buffer out, after rotating where it would not fit.
    fn flush(&mut self) {
        if self.out_len == 0 {
            return;
        }
        let told_bytes = if self.dropped_untold.is_none() { 0 } else { TOLD_BYTES_MAX };
        let bytes = (self.out_len + told_bytes) as u64;
        if self.file_bytes > 0 && self.file_bytes + bytes > self.max_bytes {
            self.rotate();
        }
        let len = std::mem::take(&mut self.out_len);
        let lines = std::mem::take(&mut self.out_lines);
        // A file that could not be put away grows no further: its bound holds.
        let fits = self.file_bytes == 0 || self.file_bytes + bytes <= self.max_bytes;
        if !fits || !self.write(len) {
            for count in [&mut self.dropped, &mut self.dropped_untold] {
                count.lines += lines;
                count.bytes += len as u64;
            }
        }
    }

    /// Writes the first `len` bytes of the buffer whole, or not at all; before them, what was dropped there.
    fn write(&mut self, len: usize) -> bool {
        if self.file.is_none() && self.open_current().is_err() {
            return false;
        }
        let Some(file) = &self.file else { return false };
        let mut told = [0; TOLD_BYTES_MAX];
        let told_len = if self.dropped_untold.is_none() { 0 } else { tell(self.dropped_untold, &mut told) };
        if !write_all(file, &told[..told_len]) || !write_all(file, &self.out[..len]) {
            // Half a line would be taken for a whole one.
            let _ = rustix::fs::ftruncate(file, self.file_bytes);
            return false;
        }
        self.file_bytes += (told_len + len) as u64;
        self.dropped_untold = LogDrops::default();
        true
    }

    /// `current` becomes `current.1`, and so on; the oldest goes. A rename that fails leaves one file less; where
    /// `current` itself stays, it is as full as before.
    fn rotate(&mut self) {
        self.file = None;
        for number in (1..self.keep).rev() {
            let (mut from, mut to) = ([0; 24], [0; 24]);
            let from = if number == 1 { CURRENT } else { numbered(&mut from, number - 1) };
            let to = numbered(&mut to, number);
            let _ = rustix::fs::renameat(&self.directory, from, &self.directory, to);
        }
        if self.keep == 1 {
            let _ = rustix::fs::unlinkat(&self.directory, CURRENT, AtFlags::empty());
        }
        // Where this fails, the next write tries again, and drops until it can.
        let _ = self.open_current();
    }
}

/// The line that says in the log itself how much of it is missing, at the front of `buffer`; its length.
fn tell(dropped: LogDrops, buffer: &mut [u8; TOLD_BYTES_MAX]) -> usize {
    use io::Write;
    let mut rest = &mut buffer[..];
    let LogDrops { lines, bytes, journal_lines: _ } = dropped;
    // 30 bytes of time, 57 of words and twice at most 20 digits fit.
    let _ = rest.write_all(&clock::stamp()).and_then(|()| {
        writeln!(rest, " stderr F [baton] {lines} lines ({bytes} bytes) of log were dropped here")
    });
    TOLD_BYTES_MAX - rest.len()
}

fn write_all(file: &OwnedFd, bytes: &[u8]) -> bool {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(file, &bytes[written..]) {
            Ok(n) if n > 0 => written += n,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// `current.<number>` in `buffer`.
fn numbered(buffer: &mut [u8; 24], number: u32) -> &CStr {
    use io::Write;
    let mut rest = &mut buffer[..23];
    // 8 bytes and at most 10 digits fit.
    let _ = write!(rest, "current.{number}");
    CStr::from_bytes_until_nul(buffer).unwrap_or(CURRENT)
}

/// One of the workload's two output pipes. The shim keeps both ends: the pipe lives through restarts.
pub(super) struct Stream {
    read_end: OwnedFd,
    write_end: OwnedFd,
    origin: Origin,
    buffer: &'static mut [u8],
    /// Bytes of a line that has not ended yet, at the front of the buffer.
    len: usize,
    /// So many bytes in the pipe are still from the workload that ended; its last line ends after them.
    until_boundary: Option<usize>,
    last_line: Note,
    /// Who writes from the boundary on.
    next_writer: u32,
}

impl Stream {
    /// Makes the pipe.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub(super) fn open(name: &'static [u8; 6]) -> io::Result<Self> {
        let priority = if name == b"stderr" { Priority::Notice } else { Priority::Info };
        let origin = Origin { name, mark: "", priority, writer: 0 };
        let (read_end, write_end) = super::descriptor::pipe()?;
        rustix::io::ioctl_fionbio(&read_end, true)?;
        let buffer = memory::map(STREAM_BYTES)?;
        let (len, until_boundary, last_line, next_writer) = (0, None, Note::EMPTY, 0);
        Ok(Self { read_end, write_end, origin, buffer, len, until_boundary, last_line, next_writer })
    }

    /// A process writes from now on: from the boundary on, where the one before has left something.
    pub(super) fn written_by(&mut self, pid: u32) {
        self.next_writer = pid;
        if self.until_boundary.is_none() {
            self.origin.writer = pid;
        }
    }

    /// Marks the lines that follow.
    pub(super) fn mark_lines(&mut self, mark: &'static str) {
        debug_assert!(mark.len() <= MARK_BYTES_MAX);
        self.origin.mark = mark;
    }

    /// The end that is polled.
    pub(super) fn read_end(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }

    /// The end that the workload gets.
    pub(super) fn write_end(&self) -> BorrowedFd<'_> {
        self.write_end.as_fd()
    }

    /// The workload has ended: what is in the pipe now is its last, and the next one's first line starts anew.
    pub(super) fn mark_boundary(&mut self) {
        if self.until_boundary == Some(0) {
            // It ended before anything of it was read: what there is is its own.
            self.origin.writer = self.next_writer;
        }
        let pending = rustix::io::ioctl_fionread(&self.read_end).unwrap_or(0);
        self.until_boundary = Some(usize::try_from(pending).unwrap_or(0));
    }

    /// Takes what is before the boundary, then gives the last line seen.
    pub(super) fn drain_to_boundary(&mut self, logs: &mut Logs) -> Note {
        // Bounded by the size of the pipe: the boundary only comes nearer.
        while self.until_boundary.is_some_and(|left| left > 0) && self.pump(logs) {}
        self.pass_boundary(logs);
        logs.flush();
        std::mem::replace(&mut self.last_line, Note::EMPTY)
    }

    /// Takes one batch from the pipe and writes its lines. Returns whether there was something.
    pub(super) fn pump(&mut self, logs: &mut Logs) -> bool {
        if self.until_boundary == Some(0) {
            self.pass_boundary(logs);
        }
        let room = self.buffer.len() - self.len;
        let wanted = self.until_boundary.map_or(room, |left| left.min(room));
        let got = match rustix::io::read(&self.read_end, &mut self.buffer[self.len..self.len + wanted]) {
            Ok(got) if got > 0 => got,
            Ok(_) | Err(_) => return false,
        };
        if let Some(left) = &mut self.until_boundary {
            *left -= got;
        }
        self.take_lines(logs, self.len, self.len + got);
        logs.flush();
        true
    }

    /// What follows is another process's.
    fn pass_boundary(&mut self, logs: &mut Logs) {
        if self.until_boundary.take().is_some() {
            self.end_line(logs);
            self.origin.writer = self.next_writer;
        }
    }

    /// Writes the lines in the buffer up to `end`; nothing before `seen` holds a newline.
    fn take_lines(&mut self, logs: &mut Logs, seen: usize, end: usize) {
        let stamp = clock::stamp();
        let (mut start, mut search) = (0, seen);
        while let Some(at) = newline(&self.buffer[search..end]) {
            let line = &self.buffer[start..search + at];
            write_line(logs, &stamp, &self.origin, line, true);
            if !line.trim_ascii().is_empty() {
                self.last_line = Note::new(line);
            }
            start = search + at + 1;
            search = start;
        }
        while end - start > LINE_BYTES_MAX {
            logs.line(&stamp, &self.origin, false, &self.buffer[start..start + LINE_BYTES_MAX]);
            start += LINE_BYTES_MAX;
        }
        self.buffer.copy_within(start..end, 0);
        self.len = end - start;
    }

    /// Writes the line that has no newline.
    fn end_line(&mut self, logs: &mut Logs) {
        if self.len == 0 {
            return;
        }
        let line = &self.buffer[..self.len];
        write_line(logs, &clock::stamp(), &self.origin, line, true);
        if !line.trim_ascii().is_empty() {
            self.last_line = Note::new(line);
        }
        self.len = 0;
    }
}

/// Writes one line in as many parts as it takes.
fn write_line(logs: &mut Logs, stamp: &[u8; STAMP_BYTES], from: &Origin, mut line: &[u8], full: bool) {
    while line.len() > LINE_BYTES_MAX {
        logs.line(stamp, from, false, &line[..LINE_BYTES_MAX]);
        line = &line[LINE_BYTES_MAX..];
    }
    logs.line(stamp, from, full, line);
}

/// The place of the first newline; libc's memchr takes 32 bytes at once.
fn newline(bytes: &[u8]) -> Option<usize> {
    // SAFETY: the pointer and length are of one slice; the result is null or points into it.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}
