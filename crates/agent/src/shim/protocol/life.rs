//! What is told of a workload's life beyond its starts and ends: its own words, its hooks, its reloads.

use super::frame::{FrameError, Reader, Writer};
use super::state::{NOTE_BYTES, Note};
use baton_model::lifecycle::HookPoint;
use baton_model::observed::HookEnd;

/// What a workload says of itself, as in sd_notify(3); nothing of it outlives the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notified {
    /// It has said `READY=1`.
    pub(crate) ready: bool,
    /// It has said `RELOADING=1`, and not `READY=1` since.
    pub(crate) reloading: bool,
    /// It has said `STOPPING=1`.
    pub(crate) stopping: bool,
    /// Its last `STATUS=`, cut.
    pub(crate) status: Note,
}

impl Default for Notified {
    fn default() -> Self {
        Self { ready: false, reloading: false, stopping: false, status: Note::EMPTY }
    }
}

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

/// A hook's end as a kind and a value.
pub(super) fn hook_end(end: HookEnd) -> (u8, i32) {
    match end {
        HookEnd::Code(code) => (1, code),
        HookEnd::Signal(signal) => (2, signal),
        HookEnd::Exec(errno) => (3, errno),
        HookEnd::Timeout => (4, 0),
    }
}

pub(super) fn hook_end_of(kind: u8, value: i32) -> Result<HookEnd, FrameError> {
    match kind {
        1 => Ok(HookEnd::Code(value)),
        2 => Ok(HookEnd::Signal(value)),
        3 => Ok(HookEnd::Exec(value)),
        4 => Ok(HookEnd::Timeout),
        _ => Err(FrameError::Malformed),
    }
}

impl Writer {
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
