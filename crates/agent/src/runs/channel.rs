//! The connection to a shim: one message per datagram, with descriptors where there are some.

use crate::shim::control::{SOCKET_FILE, address};
use crate::shim::protocol::{FRAME_BYTES, LISTENERS_MAX, Message, Request};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Descriptors in one message: the four fixed ones of a start, and the listeners.
const FDS_MAX: usize = 4 + LISTENERS_MAX;

/// A connection.
#[derive(Debug)]
pub(super) struct Channel {
    socket: AsyncFd<OwnedFd>,
}

/// What came.
pub(super) struct Incoming {
    pub(super) message: Message,
    /// The request it answers; 0: an event.
    pub(super) id: u32,
    pub(super) fds: Vec<OwnedFd>,
}

impl Channel {
    /// A connected pair: ours, and the one the shim gets as standard input (blocking, as it waits for it first).
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Connects to the shim of the run in `directory`. The process that listens there must be `shim_pid`.
    pub(super) fn connect(directory: &Path, shim_pid: u32) -> io::Result<Self> {
        let folder = std::fs::File::open(directory)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &address(folder.as_fd())?)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        if peer.pid.as_raw_nonzero().get() as u32 != shim_pid {
            let text = format!("{SOCKET_FILE} belongs to process {}", peer.pid.as_raw_nonzero());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Self::new(socket)
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: an OwnedFd names the same open descriptor until it is dropped, and the AsyncFd owns it.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket })
    }

    /// Sends a request.
    pub(super) async fn send(&self, request: &Request, id: u32, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let frame = request.encode(id);
        loop {
            let mut guard = self.socket.writable().await?;
            let sent = guard.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(fds));
                }
                Ok(rustix::net::sendmsg(socket, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(result) => return result.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }

    /// The next message; `None` when the shim has closed the connection. Cancel safe.
    pub(super) async fn receive(&self) -> io::Result<Option<Incoming>> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| receive_now(socket.as_fd())) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Option<Incoming>> {
    let mut frame = [0; FRAME_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut frame)], &mut control, flags)
    {
        Ok(received) => received,
        Err(Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let (message, id) = Message::decode(&frame[..received.bytes])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Incoming { message, id, fds }))
}
