//! The shim's socket: SOCK_SEQPACKET in the run's directory, one agent at a time.
//!
//! A connection counts once its peer is the same user (or root) and has said the cookie; it then replaces the one
//! before it. A peer that does not take its messages is cut off: it gets the whole state when it comes again.

use super::descriptor::move_up;
use super::protocol::{Cookie, FRAME_BYTES, Message, Refusal, Request};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Its name in the run's directory.
pub(crate) const SOCKET_FILE: &str = "control";
/// Connections that have not said the cookie yet; a further one pushes out the oldest.
pub(super) const PENDING_MAX: usize = 2;
const BACKLOG: i32 = 8;

/// The socket and its connections.
pub(super) struct Control {
    listener: OwnedFd,
    current: Option<OwnedFd>,
    pending: [Option<OwnedFd>; PENDING_MAX],
    cookie: Cookie,
}

/// The address of a socket in a directory, whatever the length of the directory's path: the 108 bytes of
/// sockaddr_un need only hold `/proc/self/fd/N/control`.
pub(crate) fn address(directory: BorrowedFd<'_>) -> io::Result<SocketAddrUnix> {
    let mut path = [0_u8; 64];
    let mut rest = &mut path[..];
    write!(rest, "/proc/self/fd/{}/{SOCKET_FILE}", directory.as_raw_fd())?;
    let len = 64 - rest.len();
    Ok(SocketAddrUnix::new(&path[..len])?)
}

impl Control {
    /// Listens in `directory`; `first` is the inherited connection of the agent that started this shim.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn open(directory: BorrowedFd<'_>, first: OwnedFd, cookie: Cookie) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let listener = move_up(listener)?;
        rustix::net::bind(&listener, &address(directory)?)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self { listener, current: Some(first), pending: [const { None }; PENDING_MAX], cookie })
    }

    /// What is to be polled for reading: the listener, the agent, and who may become it (-1: none).
    pub(super) fn poll_fds(&self) -> [RawFd; 2 + PENDING_MAX] {
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let mut fds = [-1; 2 + PENDING_MAX];
        fds[0] = self.listener.as_raw_fd();
        fds[1] = raw(&self.current);
        for (slot, fd) in fds[2..].iter_mut().zip(&self.pending) {
            *slot = raw(fd);
        }
        fds
    }

    /// Takes one new connection, where there is one.
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(connection) = rustix::net::accept_with(&self.listener, flags) else { return };
        let Ok(connection) = move_up(connection) else { return };
        let Ok(peer) = rustix::net::sockopt::socket_peercred(&connection) else { return };
        if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
            return;
        }
        self.pending.rotate_right(1);
        self.pending[0] = Some(connection);
    }

    /// Reads from a connection that has not said the cookie. Returns the id of its hello when it becomes the agent.
    pub(super) fn greet(&mut self, slot: usize) -> Option<u32> {
        let connection = self.pending[slot].take()?;
        let refusal = match receive(connection.as_fd()) {
            Received::Nothing => {
                self.pending[slot] = Some(connection);
                return None;
            }
            Received::Closed => return None,
            Received::Request(Request::Hello { cookie }, id) if same(&cookie, &self.cookie) => {
                self.send(&Message::Replaced, 0);
                self.current = Some(connection);
                return Some(id);
            }
            Received::Request(Request::Hello { .. }, id) => (Refusal::Cookie, id),
            Received::Request(_, id) => (Refusal::Cookie, id),
            Received::Malformed => (Refusal::Malformed, 0),
        };
        let _ = send(connection.as_fd(), &Message::Refused(refusal.0), refusal.1, &[]);
        None
    }

    /// Reads one request of the agent.
    pub(super) fn request(&mut self) -> Option<(Request, u32)> {
        match receive(self.current.as_ref()?.as_fd()) {
            Received::Nothing => None,
            Received::Closed => {
                self.current = None;
                None
            }
            Received::Request(request, id) => Some((request, id)),
            Received::Malformed => {
                self.send(&Message::Refused(Refusal::Malformed), 0);
                None
            }
        }
    }

    /// Whether somebody is told.
    pub(super) fn has_agent(&self) -> bool {
        self.current.is_some()
    }

    /// Tells the agent, if there is one.
    pub(super) fn send(&mut self, message: &Message, id: u32) {
        self.send_with(message, id, &[]);
    }

    /// Tells the agent, with descriptors.
    pub(super) fn send_with(&mut self, message: &Message, id: u32, fds: &[BorrowedFd<'_>]) {
        if let Some(current) = &self.current
            && send(current.as_fd(), message, id, fds).is_err()
        {
            self.current = None;
        }
    }
}

enum Received {
    Nothing,
    Closed,
    Request(Request, u32),
    Malformed,
}

fn receive(connection: BorrowedFd<'_>) -> Received {
    let mut frame = [0; FRAME_BYTES];
    match rustix::net::recv(connection, &mut frame, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
        Ok((_, 0)) => Received::Closed,
        Ok((_, len)) => match Request::decode(&frame[..len.min(FRAME_BYTES)]) {
            Ok((request, id)) if len == FRAME_BYTES => Received::Request(request, id),
            Ok(_) | Err(_) => Received::Malformed,
        },
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Received::Nothing,
        Err(_) => Received::Closed,
    }
}

/// Sends one message whole, now or not at all.
pub(super) fn send(
    connection: BorrowedFd<'_>,
    message: &Message,
    id: u32,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = message.encode(id);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(super::protocol::LISTENERS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(connection, &[IoSlice::new(&frame)], &mut control, flags)?;
    Ok(())
}

/// Compares in a time that does not tell where they differ.
fn same(left: &Cookie, right: &Cookie) -> bool {
    left.iter().zip(right).fold(0, |differ, (l, r)| differ | (l ^ r)) == 0
}
