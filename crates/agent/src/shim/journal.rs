//! The workload's lines to the journal of the system, by journald's own protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram for each line, its fields as `NAME=value` and a newline.
//! One that is too large for a datagram goes as a sealed file in memory.
//!
//! The shim sends, not the agent: what is written while no agent is there is in the journal too. The workload is never
//! waited for: what the journal does not take at once waits in a [`Backlog`] and follows as fast as it takes it, through a
//! restart of journald too. What does not fit there is counted, and the journal says in that place how much is missing.
//! What an instance may send is bounded besides, for all of a node share the journal.

use super::backlog::Backlog;
use super::clock::boot_ms;
use super::descriptor::move_up;
use super::entry::{Entry, Priority};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// What may wait in the socket, as sd-journal(3) asks for; without the right to more it is what the system allows.
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// Lines that may come at once: journald's own bound for a service (`RateLimitBurst=` of journald.conf(5)).
const BURST_LINES: u64 = 10_000;
/// Lines per second that may come all the time.
const LINES_A_SECOND: u64 = 1_000;
/// Lines of the backlog sent at a time; then the workload's output and the agent have their turn.
const FORWARDED_AT_ONCE: usize = 256;
/// Between two looks at what may be sent, where that was spent.
const PACE_MS: u64 = 50;
/// A shim that ends gives the journal this long for what still waits.
const LAST_WITHIN_MS: u64 = 500;
/// Between two attempts to reach a journal that is gone.
const REACH_AGAIN_MS: u64 = 1_000;
/// The fields of a line that differ from line to line.
const HEAD_BYTES: usize = 128;
/// Facility `daemon` of syslog(3), as journald gives what it reads from a service's output.
const FACILITY: u32 = 3;

/// The journal, and what is on its way there.
pub(super) struct Journal {
    way: Way,
    backlog: Backlog,
    allowance: Allowance,
    dropped: u64,
    untold: u64,
}

/// What the backlog waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It is empty.
    Nothing,
    /// The socket to be writable.
    Room(RawFd),
    /// This time.
    At(u64),
}

/// What came of sending one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Done,
    /// The journal takes no more at present.
    Full,
    /// There is no journal at present.
    Gone,
    /// It cannot be sent at all.
    Never,
}

impl Journal {
    /// Makes the socket; whether the journal is there shows with each line.
    ///
    /// # Errors
    /// No descriptor or memory is left, or `path` is too long for a socket.
    pub(super) fn open(path: &[u8], fields: &'static [u8]) -> io::Result<Self> {
        let allowance = Allowance { lines: BURST_LINES, at_ms: boot_ms() };
        let (way, backlog) = (Way::open(path, fields)?, Backlog::new()?);
        Ok(Self { way, backlog, allowance, dropped: 0, untold: 0 })
    }

    /// Lines that will not reach the journal, since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes one line: for now, for later, or for the count.
    pub(super) fn line(&mut self, entry: &Entry<'_>) {
        if self.untold > 0 {
            self.tell_dropped();
        }
        if !self.put(entry) {
            self.count(entry.partial);
        }
    }

    /// What [`Journal::forward`] has to wait for.
    pub(super) fn waits_for(&self) -> Wait {
        if self.backlog.is_empty() {
            Wait::Nothing
        } else if self.allowance.lines == 0 {
            Wait::At(self.allowance.at_ms + PACE_MS)
        } else if self.way.connected {
            Wait::Room(self.way.socket.as_raw_fd())
        } else {
            Wait::At(self.way.reach_again_ms)
        }
    }

    /// Sends of the backlog what the journal takes and the instance may send.
    pub(super) fn forward(&mut self) {
        self.allowance.grow(boot_ms());
        for _ in 0..FORWARDED_AT_ONCE {
            if self.allowance.lines == 0 || !self.forward_one() {
                break;
            }
            self.allowance.take_line();
        }
    }

    /// The shim ends: what waits is sent as fast as the journal takes it, for a short while; the rest is counted.
    pub(super) fn finish(&mut self) {
        let deadline = boot_ms() + LAST_WITHIN_MS;
        while !self.backlog.is_empty() && boot_ms() < deadline {
            if !self.forward_one() && !self.way.has_room_by(deadline) {
                break;
            }
        }
        while let Some(partial) = self.backlog.front().map(|entry| entry.partial) {
            self.count(partial);
            self.backlog.pop();
        }
        if self.untold > 0 {
            self.tell_dropped();
        }
    }

    /// Whether the front of the backlog is off it.
    fn forward_one(&mut self) -> bool {
        let Some(entry) = self.backlog.front() else { return false };
        let partial = entry.partial;
        match self.way.send(&entry) {
            Sent::Done => {}
            Sent::Full | Sent::Gone => return false,
            Sent::Never => self.count(partial),
        }
        self.backlog.pop();
        true
    }

    /// What waits goes first.
    fn put(&mut self, entry: &Entry<'_>) -> bool {
        if self.backlog.is_empty() {
            self.allowance.grow(boot_ms());
            if self.allowance.take_line() {
                match self.way.send(entry) {
                    Sent::Done => return true,
                    Sent::Never => return false,
                    Sent::Full | Sent::Gone => {}
                }
            }
        }
        self.backlog.push(entry)
    }

    /// One that will not reach it. A line that was cut counts once.
    fn count(&mut self, partial: bool) {
        self.dropped += u64::from(!partial);
        self.untold += u64::from(!partial);
    }

    /// Says in the journal itself how much of it is missing, as soon as there is room for that.
    fn tell_dropped(&mut self) {
        let mut text = [0; 96];
        let room = text.len();
        let mut rest = &mut text[..];
        if write!(rest, "[baton] {} lines did not reach the journal here", self.untold).is_err() {
            return;
        }
        let len = room - rest.len();
        let text = [&[][..], &text[..len]];
        if self.put(&Entry { priority: Priority::Warning, stream: b"stderr", pid: 0, partial: false, text }) {
            self.untold = 0;
        }
    }
}

/// The way to the journal.
struct Way {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// The fields that are the same for every line, as they travel.
    fields: &'static [u8],
    connected: bool,
    reach_again_ms: u64,
}

impl Way {
    fn open(path: &[u8], fields: &'static [u8]) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let socket = move_up(socket)?;
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES);
        }
        Ok(Self { socket, address, fields, connected: false, reach_again_ms: 0 })
    }

    fn send(&mut self, entry: &Entry<'_>) -> Sent {
        let mut head = [0; HEAD_BYTES];
        let Ok(head) = write_head(&mut head, entry) else { return Sent::Never };
        let parts = [
            IoSlice::new(self.fields),
            IoSlice::new(head),
            IoSlice::new(entry.text[0]),
            IoSlice::new(entry.text[1]),
            IoSlice::new(b"\n"),
        ];
        // Twice at most: once more where the journal has come anew.
        for _ in 0..2 {
            if !self.reach() {
                return Sent::Gone;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(_) => return Sent::Done,
                Err(Errno::MSGSIZE) => return self.send_as_file(&parts),
                Err(Errno::AGAIN) => return Sent::Full,
                Err(Errno::NOBUFS) => {
                    // The kernel has no memory for it, and tells nobody when it has.
                    self.connected = false;
                    self.reach_again_ms = boot_ms() + PACE_MS;
                    return Sent::Gone;
                }
                Err(Errno::INTR) => {}
                Err(_) => self.connected = false,
            }
        }
        Sent::Gone
    }

    /// Connects where that is to be done: only a connected socket tells when there is room.
    fn reach(&mut self) -> bool {
        if self.connected {
            return true;
        }
        let now = boot_ms();
        if now < self.reach_again_ms {
            return false;
        }
        self.connected = rustix::net::connect(&self.socket, &self.address).is_ok();
        if !self.connected {
            self.reach_again_ms = now + REACH_AGAIN_MS;
        }
        self.connected
    }

    /// Waits for room.
    fn has_room_by(&self, deadline_ms: u64) -> bool {
        let left_ms = deadline_ms.saturating_sub(boot_ms());
        if !self.connected || left_ms == 0 {
            return false;
        }
        let mut polled = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: the pointer is to one structure that lives through the call.
        (unsafe { libc::poll(&raw mut polled, 1, left_ms as libc::c_int) }) > 0
    }

    fn send_as_file(&self, parts: &[IoSlice<'_>]) -> Sent {
        match self.hand_over_file(parts) {
            Ok(()) => Sent::Done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            Err(_) => Sent::Never,
        }
    }

    fn hand_over_file(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let file = rustix::fs::memfd_create(c"baton-line", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        for part in parts {
            // Memory takes a write whole, or there is none left.
            if rustix::io::write(&file, part)? != part.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        // journald reads only what nobody can change any more.
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(&self.socket, &[], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// The fields of this line up to where its text begins.
fn write_head<'a>(buffer: &'a mut [u8; HEAD_BYTES], entry: &Entry<'_>) -> io::Result<&'a [u8]> {
    let mut rest = &mut buffer[..];
    let stream = std::str::from_utf8(entry.stream).unwrap_or("stdout");
    let priority = entry.priority as u32;
    write!(rest, "PRIORITY={priority}\nSYSLOG_FACILITY={FACILITY}\nBATON_STREAM={stream}\n")?;
    if entry.pid > 0 {
        writeln!(rest, "SYSLOG_PID={}", entry.pid)?;
    }
    if entry.partial {
        rest.write_all(b"BATON_PARTIAL=1\n")?;
    }
    rest.write_all(b"MESSAGE=")?;
    let len = HEAD_BYTES - rest.len();
    Ok(&buffer[..len])
}

/// What may still be sent.
struct Allowance {
    lines: u64,
    /// Until when the time that passed has been turned into lines.
    at_ms: u64,
}

impl Allowance {
    fn grow(&mut self, now: u64) {
        let passed_ms = now.saturating_sub(self.at_ms);
        let lines = passed_ms.saturating_mul(LINES_A_SECOND) / 1000;
        self.lines = BURST_LINES.min(self.lines.saturating_add(lines));
        self.at_ms = now.max(self.at_ms);
    }

    fn take_line(&mut self) -> bool {
        let is_there = self.lines > 0;
        self.lines -= u64::from(is_there);
        is_there
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
