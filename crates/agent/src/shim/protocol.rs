//! What a shim and an agent say to each other: one message per SEQPACKET datagram, each [`FRAME_BYTES`] long.
//!
//! A shim outlives the agent that started it, so an agent must speak with shims of older versions. The rule that
//! keeps that simple: within a [`PROTOCOL_VERSION`] fields are only ever added in the zero bytes at the end of a
//! message, and zero means "as before". Integers are little-endian. Nothing here allocates.
//!
//! ```text
//! 0  4  magic    4  2  version    6  2  kind    8  4  id (a reply carries its request's; an event carries 0)    12 payload
//! ```

use baton_model::observed::Exit;

/// Version spoken here.
pub(crate) const PROTOCOL_VERSION: u16 = 1;
/// Length of every message.
pub(crate) const FRAME_BYTES: usize = 512;
/// Ends of the workload that a shim remembers. With 100 ms to 30 s of backoff that is minutes to half an hour of an
/// agent's absence in a crash loop; numbering shows what fell out.
pub(crate) const HISTORY_MAX: usize = 32;
/// Bytes kept of the workload's last line on stderr.
pub(crate) const NOTE_BYTES: usize = 240;
/// Listening sockets of one run. The kernel passes at most 253 descriptors in one message.
pub(crate) const LISTENERS_MAX: usize = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"BTNs");
const HEADER_BYTES: usize = 12;

/// One message as it travels.
pub(crate) type Frame = [u8; FRAME_BYTES];

/// The secret that proves an agent to a shim: 128 random bits, kept in the run's directory (mode 0600).
pub(crate) type Cookie = [u8; 16];

/// What an agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The first message on the shim's inherited socket. Carries descriptors: configuration, run directory, log
    /// directory, control group (if `group`), listeners.
    Begin { listeners: u8, group: bool },
    /// The first message on a connection; answered with [`Message::State`] and what was not acknowledged.
    Hello { cookie: Cookie },
    /// How are you? Answered with [`Message::State`].
    State,
    /// The ends up to this number are journalled.
    Acknowledge { seq: u64 },
    /// Stop for good.
    Stop { signal: i32, timeout_ms: u64 },
    /// Stop, then start again.
    Restart { signal: i32, timeout_ms: u64 },
    /// Answered with [`Message::Listeners`] and the descriptors.
    Listeners,
    /// End; refused unless stopped.
    Quit,
}

/// What a shim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// How it is.
    State(State),
    /// Event: the workload was executed.
    Started { pid: u32, restarts: u64 },
    /// Event: the workload ended.
    Exited(Ended),
    /// Event: stopped and empty.
    Stopped { killed: bool },
    /// Reply: the order was taken.
    Done,
    /// Reply: that many descriptors came along.
    Listeners { count: u8 },
    /// Reply: no.
    Refused(Refusal),
    /// Another agent has connected; this connection ends now.
    Replaced,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The cookie is wrong.
    Cookie,
    /// Processes are left.
    Busy,
    /// The message was not understood.
    Malformed,
    /// A system call of the start failed, with this errno.
    Setup { step: SetupStep, errno: i32 },
}

/// Steps of a shim's start, for the error that names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupStep {
    /// Taking the first message and its descriptors.
    Receive,
    /// Reading the configuration.
    Configuration,
    /// Session, signals, subreaper.
    Process,
    /// The state file.
    StateFile,
    /// The log files.
    Logs,
    /// The control socket.
    Control,
}

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
    /// Bytes of log that could not be written.
    pub(crate) log_bytes_dropped: u64,
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
    /// The last line on stderr, cut.
    pub(crate) note: Note,
}

/// A bounded line of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    len: u8,
    bytes: [u8; NOTE_BYTES],
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

impl Request {
    /// As it travels.
    #[must_use]
    pub(crate) fn encode(&self, id: u32) -> Frame {
        let mut out = Writer::new();
        let kind = match *self {
            Self::Begin { listeners, group } => {
                out.u8(listeners);
                out.bool(group);
                1
            }
            Self::Hello { cookie } => {
                out.bytes(&cookie);
                2
            }
            Self::State => 3,
            Self::Acknowledge { seq } => {
                out.u64(seq);
                4
            }
            Self::Stop { signal, timeout_ms } => {
                out.i32(signal);
                out.u64(timeout_ms);
                5
            }
            Self::Restart { signal, timeout_ms } => {
                out.i32(signal);
                out.u64(timeout_ms);
                6
            }
            Self::Listeners => 7,
            Self::Quit => 8,
        };
        out.finish(kind, id)
    }

    /// The request and its id.
    ///
    /// # Errors
    /// [`FrameError`]
    pub(crate) fn decode(frame: &[u8]) -> Result<(Self, u32), FrameError> {
        let (kind, id, mut body) = Reader::open(frame)?;
        let request = match kind {
            1 => Self::Begin { listeners: body.u8(), group: body.bool() },
            2 => Self::Hello { cookie: body.array() },
            3 => Self::State,
            4 => Self::Acknowledge { seq: body.u64() },
            5 => Self::Stop { signal: body.i32(), timeout_ms: body.u64() },
            6 => Self::Restart { signal: body.i32(), timeout_ms: body.u64() },
            7 => Self::Listeners,
            8 => Self::Quit,
            _ => return Err(FrameError::Malformed),
        };
        Ok((request, id))
    }
}

impl Message {
    /// As it travels.
    #[must_use]
    pub(crate) fn encode(&self, id: u32) -> Frame {
        let mut out = Writer::new();
        let kind = match self {
            Self::State(state) => {
                out.state(state);
                101
            }
            Self::Started { pid, restarts } => {
                out.u32(*pid);
                out.u64(*restarts);
                102
            }
            Self::Exited(ended) => {
                out.ended(ended);
                103
            }
            Self::Stopped { killed } => {
                out.bool(*killed);
                104
            }
            Self::Done => 105,
            Self::Listeners { count } => {
                out.u8(*count);
                106
            }
            Self::Refused(refusal) => {
                out.refusal(*refusal);
                107
            }
            Self::Replaced => 108,
        };
        out.finish(kind, id)
    }

    /// The message and the id of the request it answers (0: an event).
    ///
    /// # Errors
    /// [`FrameError`]
    pub(crate) fn decode(frame: &[u8]) -> Result<(Self, u32), FrameError> {
        let (kind, id, mut body) = Reader::open(frame)?;
        let message = match kind {
            101 => Self::State(body.state()?),
            102 => Self::Started { pid: body.u32(), restarts: body.u64() },
            103 => Self::Exited(body.ended()?),
            104 => Self::Stopped { killed: body.bool() },
            105 => Self::Done,
            106 => Self::Listeners { count: body.u8() },
            107 => Self::Refused(body.refusal()?),
            108 => Self::Replaced,
            _ => return Err(FrameError::Malformed),
        };
        Ok((message, id))
    }
}

/// Fills a frame from the front; every message fits by construction (see the test).
struct Writer {
    frame: Frame,
    at: usize,
}

impl Writer {
    fn new() -> Self {
        Self { frame: [0; FRAME_BYTES], at: HEADER_BYTES }
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }
    fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }
    fn i32(&mut self, value: i32) {
        self.bytes(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
    fn identity(&mut self, identity: Identity) {
        self.u32(identity.pid);
        self.u64(identity.start);
    }
    fn exit(&mut self, exit: Option<Exit>) {
        let (kind, value) = match exit {
            None => (0, 0),
            Some(Exit::Code(code)) => (1, code),
            Some(Exit::Signal(signal)) => (2, signal),
            Some(Exit::Exec(errno)) => (3, errno),
        };
        self.u8(kind);
        self.i32(value);
    }
    fn state(&mut self, state: &State) {
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
        self.u64(state.log_bytes_dropped);
    }
    fn ended(&mut self, ended: &Ended) {
        self.u64(ended.seq);
        self.exit(Some(ended.exit));
        self.u64(ended.restarts);
        self.bool(ended.restart_in_ms.is_some());
        self.u64(ended.restart_in_ms.unwrap_or(0));
        self.bool(ended.crash_loop);
        self.bool(ended.stopping);
        self.u8(ended.note.len);
        self.bytes(&ended.note.bytes);
    }
    fn refusal(&mut self, refusal: Refusal) {
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
    fn finish(mut self, kind: u16, id: u32) -> Frame {
        self.frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        self.frame[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        self.frame[6..8].copy_from_slice(&kind.to_le_bytes());
        self.frame[8..12].copy_from_slice(&id.to_le_bytes());
        self.frame
    }
}

/// Reads a frame from the front; a message shorter than its frame ends in zeros.
struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn open(frame: &'a [u8]) -> Result<(u16, u32, Self), FrameError> {
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
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.frame[self.at..self.at + N]);
        self.at += N;
        out
    }
    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }
    fn bool(&mut self) -> bool {
        self.u8() != 0
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }
    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.array())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
    fn identity(&mut self) -> Identity {
        Identity { pid: self.u32(), start: self.u64() }
    }
    fn exit(&mut self) -> Result<Option<Exit>, FrameError> {
        let (kind, value) = (self.u8(), self.i32());
        match kind {
            0 => Ok(None),
            1 => Ok(Some(Exit::Code(value))),
            2 => Ok(Some(Exit::Signal(value))),
            3 => Ok(Some(Exit::Exec(value))),
            _ => Err(FrameError::Malformed),
        }
    }
    fn state(&mut self) -> Result<State, FrameError> {
        let phase = match self.u8() {
            1 => Phase::Running,
            2 => Phase::Waiting,
            3 => Phase::Down,
            4 => Phase::Stopping,
            5 => Phase::Stopped,
            _ => return Err(FrameError::Malformed),
        };
        Ok(State {
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
            log_bytes_dropped: self.u64(),
        })
    }
    fn ended(&mut self) -> Result<Ended, FrameError> {
        let (seq, exit, restarts) = (self.u64(), self.exit()?.ok_or(FrameError::Malformed)?, self.u64());
        let (again, delay_ms) = (self.bool(), self.u64());
        let (crash_loop, stopping, len) = (self.bool(), self.bool(), self.u8());
        if usize::from(len) > NOTE_BYTES {
            return Err(FrameError::Malformed);
        }
        let note = Note { len, bytes: self.array() };
        Ok(Ended {
            seq,
            exit,
            restarts,
            restart_in_ms: again.then_some(delay_ms),
            crash_loop,
            stopping,
            note,
        })
    }
    fn refusal(&mut self) -> Result<Refusal, FrameError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pid: u32) -> Identity {
        Identity { pid, start: u64::MAX }
    }

    #[test]
    fn requests_round_trip() {
        let requests = [
            Request::Begin { listeners: 32, group: true },
            Request::Hello { cookie: [7; 16] },
            Request::State,
            Request::Acknowledge { seq: u64::MAX },
            Request::Stop { signal: 15, timeout_ms: 30_000 },
            Request::Restart { signal: -1, timeout_ms: u64::MAX },
            Request::Listeners,
            Request::Quit,
        ];
        for request in requests {
            assert_eq!(Request::decode(&request.encode(9)), Ok((request, 9)));
        }
    }

    #[test]
    fn messages_round_trip() {
        let state = State {
            phase: Phase::Stopping,
            boot: [1; 16],
            mark: [2; 16],
            shim: identity(3),
            workload: identity(4),
            restarts: 5,
            crash_loop: true,
            killed: true,
            last_exit: Some(Exit::Exec(2)),
            last_seq: 6,
            acknowledged_seq: 7,
            log_bytes_dropped: 8,
        };
        let ended = Ended {
            seq: 1,
            exit: Exit::Signal(9),
            restarts: 2,
            restart_in_ms: Some(0),
            crash_loop: false,
            stopping: true,
            note: Note::new(&[b'x'; 999]),
        };
        let messages = [
            Message::State(state),
            Message::Started { pid: 1, restarts: 2 },
            Message::Exited(ended),
            Message::Exited(Ended { restart_in_ms: None, exit: Exit::Code(-1), note: Note::EMPTY, ..ended }),
            Message::Stopped { killed: true },
            Message::Done,
            Message::Listeners { count: 32 },
            Message::Refused(Refusal::Busy),
            Message::Refused(Refusal::Setup { step: SetupStep::Control, errno: 98 }),
            Message::Replaced,
        ];
        for message in messages {
            assert_eq!(Message::decode(&message.encode(3)), Ok((message, 3)));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let good = Request::Quit.encode(1);
        assert_eq!(Request::decode(&good[..100]), Err(FrameError::Foreign));
        assert_eq!(Request::decode(&[0; FRAME_BYTES]), Err(FrameError::Foreign));
        let mut newer = good;
        newer[4] = 2;
        assert_eq!(Request::decode(&newer), Err(FrameError::Version(2)));
        let mut unknown = good;
        unknown[6] = 99;
        assert_eq!(Request::decode(&unknown), Err(FrameError::Malformed));
        assert_eq!(Message::decode(&good), Err(FrameError::Malformed));
    }

    #[test]
    fn every_message_survives_random_bytes() {
        let mut seed = 1_u64;
        for _ in 0..10_000 {
            let mut frame = Message::Replaced.encode(0);
            for byte in &mut frame[6..] {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            frame[6] = 100 + frame[6] % 10;
            frame[7] = 0;
            let _ = Message::decode(&frame);
        }
    }
}
