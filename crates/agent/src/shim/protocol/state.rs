//! What is told of a run: how its shim stands, how its workload ended.

use baton_model::observed::{Exit, LogDrops};

/// Bytes kept of the workload's last line on stderr.
pub(crate) const NOTE_BYTES: usize = 240;

/// Where a shim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// The workload runs, or is started at this moment.
    #[default]
    Running,
    /// It ended and is started again later.
    Waiting,
    /// It ended and stays down.
    Down,
    /// It was told to stop.
    Stopping,
    /// Stopped; nothing is left.
    Stopped,
}

/// How a shim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Where it stands.
    pub(crate) phase: Phase,
    /// The kernel's boot id, without dashes.
    pub(crate) boot: [u8; 16],
    /// The run's mark, as in the workload's `BATON_RUN`.
    pub(crate) mark: [u8; 16],
    /// The shim's process and its start time (clock ticks since boot, proc_pid_stat(5)).
    pub(crate) shim: Identity,
    /// The workload's, or zeros.
    pub(crate) workload: Identity,
    /// Restarts so far.
    pub(crate) restarts: u64,
    /// Crashes in a row have reached the limit.
    pub(crate) crash_loop: bool,
    /// Stopping needed SIGKILL.
    pub(crate) killed: bool,
    /// The last end.
    pub(crate) last_exit: Option<Exit>,
    /// Number of the last end; 0: none yet.
    pub(crate) last_seq: u64,
    /// Ends up to this were acknowledged.
    pub(crate) acknowledged_seq: u64,
    /// What the workload says of itself.
    pub(crate) notified: Notified,
    /// Output that could not be kept.
    pub(crate) log_drops: LogDrops,
}

/// A process and when it started: together they name it for as long as this boot lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    /// Process id; 0: none.
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    pub(crate) start: u64,
}

/// One end of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Counts the ends of this run from 1.
    pub(crate) seq: u64,
    /// How.
    pub(crate) exit: Exit,
    /// Restarts before it.
    pub(crate) restarts: u64,
    /// It is started again after this many milliseconds.
    pub(crate) restart_in_ms: Option<u64>,
    /// Crashes in a row have reached the limit.
    pub(crate) crash_loop: bool,
    /// It had been told to stop: no event for the engine.
    pub(crate) stopping: bool,
    /// The last line on stderr, cut; where it is `damaged`, what is not as it was.
    pub(crate) note: Note,
    /// It was not executed, since its files are not those that were checked.
    pub(crate) damaged: bool,
}

/// A bounded line of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(super) len: u8,
    pub(super) bytes: [u8; NOTE_BYTES],
}

impl Note {
    /// No text.
    pub(crate) const EMPTY: Self = Self { len: 0, bytes: [0; NOTE_BYTES] };

    /// The first [`NOTE_BYTES`] of `text`.
    #[must_use]
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut note = Self::EMPTY;
        let len = text.len().min(NOTE_BYTES);
        note.bytes[..len].copy_from_slice(&text[..len]);
        note.len = len as u8;
        note
    }

    /// The text.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.bytes()))
    }
}

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
