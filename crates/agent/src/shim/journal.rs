//! The workload's lines to the journal of the system, by journald's own protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a datagram for each line, its fields as `NAME=value` and a newline.
//! One that is too large for a datagram goes as a sealed file in memory.
//!
//! The shim sends, not the agent: what is written while no agent is there is in the journal too. A journal that takes
//! nothing, or not fast enough, holds nobody up: what does not fit is counted, and told in the journal as soon as
//! there is room. What an instance may send is bounded besides, for all of a node share the journal.

use super::clock::boot_ms;
use super::descriptor::move_up;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What may wait in the socket, as sd-journal(3) asks for; without the right to more it is what the system allows.
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// Lines that may come at once: journald's own bound for a service (`RateLimitBurst=` of journald.conf(5)).
const BURST_LINES: u64 = 10_000;
/// Lines per second that may come all the time.
const LINES_A_SECOND: u64 = 1_000;
/// Waited for room in the journal, in all, within [`WAIT_MS_MAX`] x [`WAIT_SHARE`]: journald takes a burst as fast as
/// it can, but not as fast as a pipe is read. Never more than one part in twenty of the time.
const WAIT_MS_MAX: u64 = 100;
const WAIT_SHARE: u64 = 20;
/// Between two attempts to reach a journal that is gone.
const REACH_AGAIN_MS: u64 = 1_000;
/// The fields of a line that differ from line to line.
const HEAD_BYTES: usize = 128;
/// Facility `daemon` of syslog(3), as journald gives what it reads from a service's output.
const FACILITY: u32 = 3;

/// Importance of an entry, as in syslog(3).
#[derive(Clone, Copy)]
pub(super) enum Priority {
    Warning = 4,
    /// Standard error. Not `err`: most programs write their whole log there.
    Notice = 5,
    /// Standard output.
    Info = 6,
}

/// One line.
pub(super) struct Entry<'a> {
    pub(super) priority: Priority,
    /// `stdout` or `stderr`.
    pub(super) stream: &'a [u8],
    /// The process that wrote it; 0: not known.
    pub(super) pid: u32,
    /// The text goes on in the next entry of the stream.
    pub(super) partial: bool,
    /// Whose it is, where it is not the workload's; and the text, without a newline.
    pub(super) text: [&'a [u8]; 2],
}

/// The way to the journal.
pub(super) struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
    /// The fields that are the same for every line, as they travel.
    fields: &'static [u8],
    connected: bool,
    reach_again_ms: u64,
    allowance: Allowance,
    /// Nothing more of this batch: the journal is full.
    is_full: bool,
    dropped: u64,
    untold: u64,
}

impl Journal {
    /// Makes the socket; whether the journal is there shows with each line.
    ///
    /// # Errors
    /// No descriptor is left, or `path` is too long for a socket.
    pub(super) fn open(path: &[u8], fields: &'static [u8]) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let socket = move_up(socket)?;
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER_BYTES).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES);
        }
        let allowance = Allowance { lines: BURST_LINES, wait_ms: WAIT_MS_MAX, at_ms: boot_ms() };
        let (connected, reach_again_ms) = (false, 0);
        let (is_full, dropped, untold) = (false, 0, 0);
        Ok(Self { socket, address, fields, connected, reach_again_ms, allowance, is_full, dropped, untold })
    }

    /// Lines that the journal did not take since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lines follow that were read at once.
    pub(super) fn begin_batch(&mut self) {
        self.allowance.grow(boot_ms());
        self.is_full = false;
        if self.untold > 0 && self.tell_dropped() {
            self.untold = 0;
        }
    }

    /// Sends one line, or counts it.
    pub(super) fn line(&mut self, entry: &Entry<'_>) {
        if self.is_full || !self.allowance.take_line() || !self.send(entry) {
            // A line that was cut counts once.
            self.dropped += u64::from(!entry.partial);
            self.untold += u64::from(!entry.partial);
        }
    }

    /// Says in the journal itself how much of it is missing.
    fn tell_dropped(&mut self) -> bool {
        let mut text = [0; 96];
        let room = text.len();
        let mut rest = &mut text[..];
        if writeln!(rest, "[baton] {} lines did not reach the journal here", self.untold).is_err() {
            return false;
        }
        let len = room - rest.len() - 1;
        let text = [&[][..], &text[..len]];
        self.send(&Entry { priority: Priority::Warning, stream: b"stderr", pid: 0, partial: false, text })
    }

    fn send(&mut self, entry: &Entry<'_>) -> bool {
        let mut head = [0; HEAD_BYTES];
        let Ok(head) = write_head(&mut head, entry) else { return false };
        let parts = [
            IoSlice::new(self.fields),
            IoSlice::new(head),
            IoSlice::new(entry.text[0]),
            IoSlice::new(entry.text[1]),
            IoSlice::new(b"\n"),
        ];
        // Twice at most: once more where there is room now, or where the journal has come anew.
        for is_last in [false, true] {
            if !self.reach() {
                return false;
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(_) => return true,
                Err(Errno::MSGSIZE) => return self.send_as_file(&parts).is_ok(),
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    if is_last || !self.wait_for_room() {
                        self.is_full = true;
                        return false;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => self.connected = false,
            }
        }
        false
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

    fn wait_for_room(&mut self) -> bool {
        let wait_ms = self.allowance.wait_ms;
        if wait_ms == 0 {
            return false;
        }
        let began = boot_ms();
        let mut polled = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: the pointer is to one structure that lives through the call.
        let ready = unsafe { libc::poll(&raw mut polled, 1, wait_ms as libc::c_int) };
        // A wait that found none costs something however short it was.
        self.allowance.wait_ms -= (boot_ms() - began).clamp(u64::from(ready <= 0), wait_ms);
        ready > 0
    }

    fn send_as_file(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
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

/// What may still be sent, and waited for.
struct Allowance {
    lines: u64,
    wait_ms: u64,
    /// Until when the time that passed has been turned into lines and waiting.
    at_ms: u64,
}

impl Allowance {
    fn grow(&mut self, now: u64) {
        // In whole steps: what is left of one counts later.
        let steps = now.saturating_sub(self.at_ms) / WAIT_SHARE;
        self.at_ms += steps * WAIT_SHARE;
        self.lines = BURST_LINES
            .min(self.lines.saturating_add(steps.saturating_mul(LINES_A_SECOND * WAIT_SHARE / 1000)));
        self.wait_ms = WAIT_MS_MAX.min(self.wait_ms.saturating_add(steps));
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
