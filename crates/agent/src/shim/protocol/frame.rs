//! One message as bytes: its header, and the values in its body.

use super::state::{Ended, Identity, NOTE_BYTES, Note, Phase, State};
use super::{FRAME_BYTES, PROTOCOL_VERSION, Refusal, SetupStep};
use baton_model::observed::{Exit, HookEnd, LogDrops};

const MAGIC: u32 = u32::from_le_bytes(*b"BTNs");
const HEADER_BYTES: usize = 12;
/// Kinds of ends from here on are those of a hook.
const BEFORE_START: u8 = 100;

/// One message as it travels.
pub(crate) type Frame = [u8; FRAME_BYTES];

/// A message that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Wrong length or magic.
    #[error("not a message of a baton shim")]
    Foreign,
    /// A version not known here.
    #[error("version {0} of the shim protocol is not known here; this is version {PROTOCOL_VERSION}")]
    Version(u16),
    /// A kind or value not known here.
    #[error("a message with an unknown kind or value")]
    Malformed,
}

/// Fills a frame from the front; every message fits by construction (see the test).
pub(super) struct Writer {
    frame: Frame,
    at: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { frame: [0; FRAME_BYTES], at: HEADER_BYTES }
    }
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }
    pub(super) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    pub(super) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }
    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    pub(super) fn identity(&mut self, identity: Identity) {
        self.u32(identity.pid);
        self.u64(identity.start);
    }
    pub(super) fn exit(&mut self, exit: Option<Exit>) {
        let (kind, value) = match exit {
            None => (0, 0),
            Some(Exit::Code(code)) => (1, code),
            Some(Exit::Signal(signal)) => (2, signal),
            Some(Exit::Exec(errno)) => (3, errno),
            Some(Exit::CoreDump(signal)) => (4, signal),
            Some(Exit::OutOfMemory) => (5, 0),
            Some(Exit::Watchdog) => (6, 0),
            // An agent that does not know it reads a missed watchdog.
            Some(Exit::WatchdogTriggered) => (6, 1),
            Some(Exit::NotLive) => (7, 0),
            Some(Exit::StartDeadline) => (8, 0),
            Some(Exit::StopDeadline) => (9, 0),
            // No shim tells it: it ended with the host, too.
            Some(Exit::HostDown) => (10, 0),
            Some(Exit::BeforeStart(end)) => {
                let (kind, value) = hook_end(end);
                (BEFORE_START + kind, value)
            }
        };
        self.u8(kind);
        self.i32(value);
    }
    pub(super) fn state(&mut self, state: &State) {
        self.u8(match state.phase {
            Phase::Running => 1,
            Phase::Waiting => 2,
            Phase::Down => 3,
            Phase::Stopping => 4,
            Phase::Stopped => 5,
        });
        self.bytes(&state.boot);
        self.bytes(&state.mark);
        self.identity(state.shim);
        self.identity(state.workload);
        self.u64(state.restarts);
        self.bool(state.crash_loop);
        self.bool(state.killed);
        self.exit(state.last_exit);
        self.u64(state.last_seq);
        self.u64(state.acknowledged_seq);
        self.u64(state.log_drops.bytes);
        self.notified(&state.notified);
        self.u64(state.log_drops.lines);
        self.u64(state.log_drops.journal_lines);
    }
    pub(super) fn ended(&mut self, ended: &Ended) {
        self.u64(ended.seq);
        self.exit(Some(ended.exit));
        self.u64(ended.restarts);
        self.bool(ended.restart_in_ms.is_some());
        self.u64(ended.restart_in_ms.unwrap_or(0));
        self.bool(ended.crash_loop);
        self.bool(ended.stopping);
        self.u8(ended.note.len);
        self.bytes(&ended.note.bytes);
        self.bool(ended.damaged);
    }
    pub(super) fn refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Cookie => self.u8(1),
            Refusal::Busy => self.u8(2),
            Refusal::Malformed => self.u8(3),
            Refusal::Setup { step, errno } => {
                self.u8(4);
                self.u8(match step {
                    SetupStep::Receive => 1,
                    SetupStep::Configuration => 2,
                    SetupStep::Process => 3,
                    SetupStep::StateFile => 4,
                    SetupStep::Logs => 5,
                    SetupStep::Control => 6,
                });
                self.i32(errno);
            }
        }
    }
    pub(super) fn finish(mut self, kind: u16, id: u32) -> Frame {
        self.frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.frame[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        self.frame[6..8].copy_from_slice(&kind.to_le_bytes());
        self.frame[8..12].copy_from_slice(&id.to_le_bytes());
        self.frame
    }
}

/// Reads a frame from the front; a message shorter than its frame ends in zeros.
pub(super) struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn open(frame: &'a [u8]) -> Result<(u16, u32, Self), FrameError> {
        if frame.len() != FRAME_BYTES {
            return Err(FrameError::Foreign);
        }
        let mut head = Self { frame, at: 0 };
        if head.u32() != MAGIC {
            return Err(FrameError::Foreign);
        }
        let version = u16::from_le_bytes(head.array());
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = u16::from_le_bytes(head.array());
        let id = head.u32();
        Ok((kind, id, head))
    }
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.frame[self.at..self.at + N]);
        self.at += N;
        out
    }
    pub(super) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }
    pub(super) fn bool(&mut self) -> bool {
        self.u8() != 0
    }
    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
    pub(super) fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.array())
    }
    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
    pub(super) fn identity(&mut self) -> Identity {
        Identity { pid: self.u32(), start: self.u64() }
    }
    pub(super) fn exit(&mut self) -> Result<Option<Exit>, FrameError> {
        let (kind, value) = (self.u8(), self.i32());
        match kind {
            0 => Ok(None),
            1 => Ok(Some(Exit::Code(value))),
            2 => Ok(Some(Exit::Signal(value))),
            3 => Ok(Some(Exit::Exec(value))),
            4 => Ok(Some(Exit::CoreDump(value))),
            10 => Ok(Some(Exit::HostDown)),
            5 => Ok(Some(Exit::OutOfMemory)),
            6 => Ok(Some(if value == 1 { Exit::WatchdogTriggered } else { Exit::Watchdog })),
            7 => Ok(Some(Exit::NotLive)),
            8 => Ok(Some(Exit::StartDeadline)),
            9 => Ok(Some(Exit::StopDeadline)),
            kind => {
                let kind = kind.checked_sub(BEFORE_START).ok_or(FrameError::Malformed)?;
                Ok(Some(Exit::BeforeStart(hook_end_of(kind, value)?)))
            }
        }
    }
    pub(super) fn state(&mut self) -> Result<State, FrameError> {
        let phase = match self.u8() {
            1 => Phase::Running,
            2 => Phase::Waiting,
            3 => Phase::Down,
            4 => Phase::Stopping,
            5 => Phase::Stopped,
            _ => return Err(FrameError::Malformed),
        };
        let mut state = State {
            phase,
            boot: self.array(),
            mark: self.array(),
            shim: self.identity(),
            workload: self.identity(),
            restarts: self.u64(),
            crash_loop: self.bool(),
            killed: self.bool(),
            last_exit: self.exit()?,
            last_seq: self.u64(),
            acknowledged_seq: self.u64(),
            log_drops: LogDrops { bytes: self.u64(), ..LogDrops::default() },
            notified: self.notified()?,
        };
        // These came later than what is before them.
        state.log_drops.lines = self.u64();
        state.log_drops.journal_lines = self.u64();
        Ok(state)
    }
    pub(super) fn ended(&mut self) -> Result<Ended, FrameError> {
        let (seq, exit, restarts) = (self.u64(), self.exit()?.ok_or(FrameError::Malformed)?, self.u64());
        let (again, delay_ms) = (self.bool(), self.u64());
        let (crash_loop, stopping, len) = (self.bool(), self.bool(), self.u8());
        if usize::from(len) > NOTE_BYTES {
            return Err(FrameError::Malformed);
        }
        let note = Note { len, bytes: self.array() };
        let damaged = self.bool();
        Ok(Ended {
            seq,
            exit,
            restarts,
            restart_in_ms: again.then_some(delay_ms),
            crash_loop,
            stopping,
            note,
            damaged,
        })
    }
    pub(super) fn refusal(&mut self) -> Result<Refusal, FrameError> {
        Ok(match self.u8() {
            1 => Refusal::Cookie,
            2 => Refusal::Busy,
            3 => Refusal::Malformed,
            4 => {
                let step = match self.u8() {
                    1 => SetupStep::Receive,
                    2 => SetupStep::Configuration,
                    3 => SetupStep::Process,
                    4 => SetupStep::StateFile,
                    5 => SetupStep::Logs,
                    6 => SetupStep::Control,
                    _ => return Err(FrameError::Malformed),
                };
                Refusal::Setup { step, errno: self.i32() }
            }
            _ => return Err(FrameError::Malformed),
        })
    }
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
