//! The kernel's view of UDP sockets: what waits in them, and who is bound where.

use super::tcp;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Datagrams that are counted as lost at most; a receive buffer holds fewer by default.
const LOST_MAX: u32 = 100_000;

/// One if any datagram waits to be read, else none: the kernel does not tell how many.
pub(super) fn waiting(socket: &OwnedFd) -> u32 {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    let looked = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    u32::from(looked.is_ok() && polled[0].revents().contains(PollFlags::IN))
}

/// Takes what is left in a socket that nobody reads any more, and says how many datagrams that were.
pub(super) fn discard(socket: &OwnedFd) -> u32 {
    let mut byte = [0_u8; 1];
    let mut lost = 0;
    while lost < LOST_MAX {
        match rustix::net::recv(socket, &mut byte, RecvFlags::DONTWAIT) {
            Ok(_) => lost += 1,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    lost
}

/// Inodes of the sockets that are bound to exactly this address.
pub(super) fn bound(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    let table = if address.is_ipv6() { "/proc/self/net/udp6" } else { "/proc/self/net/udp" };
    tcp::each_row(table, |row| {
        if row.local == address {
            inodes.push(row.inode);
        }
        true
    })?;
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_waits_is_seen_and_counted_once() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(any).unwrap();
            let address = server.local_addr().unwrap();
            let socket = OwnedFd::from(server);
            assert_eq!(bound(address).unwrap(), [rustix::fs::fstat(&socket).unwrap().st_ino]);
            assert_eq!(waiting(&socket), 0);
            let client = UdpSocket::bind(any).unwrap();
            for text in ["one", "", "three"] {
                client.send_to(text.as_bytes(), address).unwrap();
            }
            assert_eq!(waiting(&socket), 1);
            assert_eq!(discard(&socket), 3);
            assert_eq!((waiting(&socket), discard(&socket)), (0, 0));
        }
    }
}
