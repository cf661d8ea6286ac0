//! What the workload says of itself: the socket that `NOTIFY_SOCKET` names, and the messages of sd_notify(3).
//!
//! The socket is an abstract one, so that it is reached from any sandbox and at any length of path. Everybody on the
//! machine can therefore send to it; what counts is told by `SCM_CREDENTIALS`, which the kernel writes: a message
//! from a process that is not below the shim is dropped. Descriptors that come along are closed at once, which is
//! what a `BARRIER=1` waits for: everything sent before it has been taken in by then.

use super::descriptor::move_up;
use super::kernel;
use super::protocol::Note;
use rustix::io::IoSliceMut;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message (`NOTIFY_BUFFER_MAX` of systemd); a longer one is dropped.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Descriptors taken out of one message, to be closed; the kernel closes those beyond.
const FDS_MAX: usize = 16;
/// Digits of the run's mark, in hex.
const MARK_DIGITS: usize = 32;
/// What the socket's name begins with; the run's mark follows.
pub(crate) const NAME_PREFIX: &str = "baton-notify-";

/// The socket.
pub(super) struct Socket {
    socket: OwnedFd,
}

/// What one message says. Unknown lines say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) ready: bool,
    /// It has begun to reload; when, on the monotonic clock in microseconds, where it says so.
    pub(super) reloading: Option<Option<u64>>,
    pub(super) stopping: bool,
    pub(super) status: Option<Note>,
    pub(super) watchdog: Option<Watchdog>,
    /// A new length of its watchdog, in microseconds; 0 for none.
    pub(super) watchdog_usec: Option<u64>,
    /// More time for the start, stop or reload under way, in microseconds from now.
    pub(super) extend_usec: Option<u64>,
}

/// What is said to the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watchdog {
    /// All is well.
    Alive,
    /// It wants to be restarted as if it had missed it.
    Trigger,
}

impl Socket {
    /// Listens under the name that the run's mark gives.
    ///
    /// # Errors
    /// The socket cannot be made, or the name is taken.
    pub(super) fn open(mark: &[u8; 16]) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let socket = move_up(socket)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        let mut name = [0; NAME_PREFIX.len() + MARK_DIGITS];
        write!(&mut name[..], "{NAME_PREFIX}{:032x}", u128::from_be_bytes(*mark))?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(&name)?)?;
        Ok(Self { socket })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the next message: `None` when there is none; nothing heard where it is another's or too long.
    pub(super) fn receive(&self, shim: u32, workload: u32) -> Option<Heard> {
        let mut text = [0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let got = rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags)
            .ok()?;
        let mut sender = 0;
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(who) => sender = who.pid.as_raw_nonzero().get() as u32,
                // Closed here: a barrier has been reached.
                RecvAncillaryMessage::ScmRights(fds) => fds.for_each(drop),
                _ => {}
            }
        }
        if got.bytes > MESSAGE_BYTES_MAX || !(sender == workload || kernel::descends(sender, shim)) {
            return Some(Heard::default());
        }
        Some(parse(&text[..got.bytes]))
    }
}

/// Reads `NAME=value` lines.
fn parse(text: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut monotonic = None;
    for line in text.split(|b| *b == b'\n') {
        let Some(at) = line.iter().position(|b| *b == b'=') else { continue };
        let (name, value) = (&line[..at], &line[at + 1..]);
        match (name, value) {
            (b"READY", b"1") => heard.ready = true,
            (b"RELOADING", b"1") => heard.reloading = Some(None),
            (b"STOPPING", b"1") => heard.stopping = true,
            (b"STATUS", status) => heard.status = Some(Note::new(status)),
            (b"WATCHDOG", b"1") => heard.watchdog = Some(Watchdog::Alive),
            (b"WATCHDOG", b"trigger") => heard.watchdog = Some(Watchdog::Trigger),
            (b"WATCHDOG_USEC", usec) => heard.watchdog_usec = number(usec),
            (b"EXTEND_TIMEOUT_USEC", usec) => heard.extend_usec = number(usec),
            (b"MONOTONIC_USEC", usec) => monotonic = number(usec),
            _ => {}
        }
    }
    if heard.reloading.is_some() {
        heard.reloading = Some(monotonic);
    }
    heard
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_line_by_line() {
        let status = |text: &str| Some(Note::new(text.as_bytes()));
        let nothing = Heard::default();
        for (text, expect) in [
            ("READY=1", Heard { ready: true, ..nothing }),
            ("READY=0\nREADY\n=1\nFOO=1", nothing),
            (
                "STATUS=a=b \nWATCHDOG=1",
                Heard { status: status("a=b "), watchdog: Some(Watchdog::Alive), ..nothing },
            ),
            ("WATCHDOG=trigger", Heard { watchdog: Some(Watchdog::Trigger), ..nothing }),
            ("MONOTONIC_USEC=7\nRELOADING=1", Heard { reloading: Some(Some(7)), ..nothing }),
            ("RELOADING=1\nSTATUS=", Heard { reloading: Some(None), status: status(""), ..nothing }),
            (
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=5000",
                Heard { stopping: true, extend_usec: Some(5000), ..nothing },
            ),
            ("WATCHDOG_USEC=99999999999999999999", nothing),
            ("WATCHDOG_USEC=-1\nMAINPID=1\nERRNO=2\nBARRIER=1\nFDSTORE=1", nothing),
        ] {
            assert_eq!(parse(text.as_bytes()), expect, "{text:?}");
        }
        assert_eq!(parse(b"\xff\xfe=\xff"), nothing);
    }
}
