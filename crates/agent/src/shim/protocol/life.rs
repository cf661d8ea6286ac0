//! What is told of a workload's life beyond its starts and ends: its own words, its hooks, its reloads.

use super::frame::{FrameError, Reader, Writer, hook_end, hook_end_of};
use super::state::{NOTE_BYTES, Note, Notified};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::{HookEnd, LogDrops};

/// A hook that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HookFailed {
    /// Which.
    pub(crate) point: HookPoint,
    /// How.
    pub(crate) end: HookEnd,
    /// The last line it wrote, cut.
    pub(crate) note: Note,
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadEnd {
    /// The workload has taken in its configuration, as far as it tells.
    Done,
    /// The command failed.
    Failed(HookEnd),
    /// `READY=1` did not come in time.
    Deaf,
    /// The workload ended, or did not run.
    Ended,
}

/// Output of the workload that could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct LogDropped {
    /// Since the run began.
    pub(crate) drops: LogDrops,
    /// Of its files: that has just begun.
    pub(crate) file_began: bool,
    /// Of the journal: that has just begun.
    pub(crate) journal_began: bool,
}

impl Writer {
    pub(super) fn log_dropped(&mut self, dropped: LogDropped) {
        self.u64(dropped.drops.lines);
        self.u64(dropped.drops.bytes);
        self.u64(dropped.drops.journal_lines);
        self.bool(dropped.file_began);
        self.bool(dropped.journal_began);
    }
    pub(super) fn note(&mut self, note: &Note) {
        self.u8(note.len);
        self.bytes(&note.bytes);
    }
    pub(super) fn notified(&mut self, notified: &Notified) {
        self.bool(notified.ready);
        self.bool(notified.reloading);
        self.bool(notified.stopping);
        self.note(&notified.status);
    }
    pub(super) fn hook_failed(&mut self, failed: &HookFailed) {
        self.u8(match failed.point {
            HookPoint::BeforeStart => 1,
            HookPoint::AfterReady => 2,
            HookPoint::BeforeStop => 3,
            HookPoint::AfterStop => 4,
        });
        self.end(failed.end);
        self.note(&failed.note);
    }
    pub(super) fn reload_end(&mut self, end: ReloadEnd) {
        match end {
            ReloadEnd::Done => self.u8(1),
            ReloadEnd::Deaf => self.u8(2),
            ReloadEnd::Ended => self.u8(3),
            ReloadEnd::Failed(end) => {
                self.u8(4);
                self.end(end);
            }
        }
    }
    fn end(&mut self, end: HookEnd) {
        let (kind, value) = hook_end(end);
        self.u8(kind);
        self.i32(value);
    }
}

impl Reader<'_> {
    pub(super) fn log_dropped(&mut self) -> LogDropped {
        LogDropped {
            drops: LogDrops { lines: self.u64(), bytes: self.u64(), journal_lines: self.u64() },
            file_began: self.bool(),
            journal_began: self.bool(),
        }
    }
    pub(super) fn note(&mut self) -> Result<Note, FrameError> {
        let len = self.u8();
        if usize::from(len) > NOTE_BYTES {
            return Err(FrameError::Malformed);
        }
        Ok(Note { len, bytes: self.array() })
    }
    pub(super) fn notified(&mut self) -> Result<Notified, FrameError> {
        let (ready, reloading, stopping) = (self.bool(), self.bool(), self.bool());
        Ok(Notified { ready, reloading, stopping, status: self.note()? })
    }
    pub(super) fn hook_failed(&mut self) -> Result<HookFailed, FrameError> {
        let point = match self.u8() {
            1 => HookPoint::BeforeStart,
            2 => HookPoint::AfterReady,
            3 => HookPoint::BeforeStop,
            4 => HookPoint::AfterStop,
            _ => return Err(FrameError::Malformed),
        };
        Ok(HookFailed { point, end: self.end()?, note: self.note()? })
    }
    pub(super) fn reload_end(&mut self) -> Result<ReloadEnd, FrameError> {
        match self.u8() {
            1 => Ok(ReloadEnd::Done),
            2 => Ok(ReloadEnd::Deaf),
            3 => Ok(ReloadEnd::Ended),
            4 => self.end().map(ReloadEnd::Failed),
            _ => Err(FrameError::Malformed),
        }
    }
    fn end(&mut self) -> Result<HookEnd, FrameError> {
        let (kind, value) = (self.u8(), self.i32());
        hook_end_of(kind, value)
    }
}
