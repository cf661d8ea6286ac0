//! What a shim and an agent say to each other: one message per SEQPACKET datagram, each [`FRAME_BYTES`] long.
//!
//! A shim outlives the agent that started it, so an agent must speak with shims of older versions. The rule that
//! keeps that simple: within a [`PROTOCOL_VERSION`] fields are only ever added in the zero bytes at the end of a
//! message, and zero means "as before". Integers are little-endian. Nothing here allocates.
//!
//! ```text
//! 0  4  magic    4  2  version    6  2  kind    8  4  id (a reply carries its request's; an event carries 0)    12 payload
//! ```

mod frame;
mod life;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use frame::{Frame, FrameError};
pub(crate) use life::{HookFailed, LogDropped, ReloadEnd};
pub(crate) use state::{Ended, Identity, NOTE_BYTES, Note, Notified, Phase, State};

use frame::{Reader, Writer};

/// Version spoken here.
pub(crate) const PROTOCOL_VERSION: u16 = 1;
/// Length of every message.
pub(crate) const FRAME_BYTES: usize = 512;
/// Ends of the workload that a shim remembers. With 100 ms to 30 s of backoff that is minutes to half an hour of an
/// agent's absence in a crash loop; numbering shows what fell out.
pub(crate) const HISTORY_MAX: usize = 32;
/// Listening sockets of one run. The kernel passes at most 253 descriptors in one message.
pub(crate) const LISTENERS_MAX: usize = 32;

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
    /// Send this signal to the workload's main process, where it runs.
    Signal { signal: i32 },
    /// The workload with this process id is ready: its `after_ready` hook is due, once.
    Ready { pid: u32 },
    /// Make the workload reload; answered by [`Message::Reloaded`]. One that was carried out is only answered again.
    Reload { number: u64 },
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
    /// Event: what the workload says of itself has changed.
    Notified(Notified),
    /// Event: a hook that does not keep the workload from running has failed.
    HookFailed(HookFailed),
    /// Event: a reload has ended.
    Reloaded { number: u64, end: ReloadEnd },
    /// Event: output could not be kept; told when that begins, and now and then while it goes on.
    LogDropped(LogDropped),
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
            Self::Signal { signal } => {
                out.i32(signal);
                11
            }
            Self::Ready { pid } => {
                out.u32(pid);
                9
            }
            Self::Reload { number } => {
                out.u64(number);
                10
            }
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
            11 => Self::Signal { signal: body.i32() },
            9 => Self::Ready { pid: body.u32() },
            10 => Self::Reload { number: body.u64() },
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
            Self::Notified(notified) => {
                out.notified(notified);
                109
            }
            Self::HookFailed(failed) => {
                out.hook_failed(failed);
                110
            }
            Self::Reloaded { number, end } => {
                out.u64(*number);
                out.reload_end(*end);
                111
            }
            Self::LogDropped(dropped) => {
                out.log_dropped(*dropped);
                112
            }
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
            109 => Self::Notified(body.notified()?),
            110 => Self::HookFailed(body.hook_failed()?),
            111 => Self::Reloaded { number: body.u64(), end: body.reload_end()? },
            112 => Self::LogDropped(body.log_dropped()),
            _ => return Err(FrameError::Malformed),
        };
        Ok((message, id))
    }
}
