//! The kernel's view of TCP sockets: accept queues, who listens, who is connected.
#![allow(unsafe_code)] // Socket options that no safe wrapper knows; each block says why it holds.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Connections that wait to be accepted on a listening socket (for one, `tcpi_unacked` is that: `tcp_get_info`).
/// `None` when it does not listen any more.
pub(super) fn accept_queue(socket: &OwnedFd) -> Option<u32> {
    // SAFETY: all zero bytes are a valid tcp_info, and the kernel writes at most `len` bytes of it.
    let info = unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let pointer = (&raw mut info).cast();
        if libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut len) != 0
        {
            return None;
        }
        info
    };
    (info.tcpi_state == TCP_LISTEN).then_some(info.tcpi_unacked)
}

// States of include/net/tcp_states.h.
const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_NEW_SYN_RECV: u8 = 12;

/// Whether a process may hold a connection in this state.
fn is_connection(state: u8) -> bool {
    !matches!(state, TCP_SYN_SENT | TCP_SYN_RECV | TCP_TIME_WAIT | TCP_CLOSE | TCP_LISTEN | TCP_NEW_SYN_RECV)
}

/// Inodes of the sockets that listen on exactly this address.
pub(super) fn listening(address: SocketAddr) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    each_row(table(address.is_ipv6()), |row| {
        // The kernel lists those that listen first; behind them may be a great many others.
        let listens = row.state == TCP_LISTEN;
        if listens && row.local == address {
            inodes.push(row.inode);
        }
        listens
    })?;
    Ok(inodes)
}

/// Inodes of accepted connections on this local port; those not accepted yet have none.
pub(super) fn connections(port: u16) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        if sock_diag(family as u8, port, &mut inodes).is_err() {
            // A kernel without INET_DIAG, or a filter against netlink.
            connections_in_proc(family == libc::AF_INET6, port, &mut inodes)?;
        }
    }
    Ok(inodes)
}

fn connections_in_proc(v6: bool, port: u16, inodes: &mut BTreeSet<u64>) -> io::Result<()> {
    each_row(table(v6), |row| {
        if row.local.port() == port && is_connection(row.state) && row.inode != 0 {
            inodes.insert(row.inode);
        }
        true
    })
}

/// Asks sock_diag(7), which does not list the many in TIME_WAIT.
fn sock_diag(family: u8, port: u16, inodes: &mut BTreeSet<u64>) -> io::Result<()> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const REQUEST_BYTES: usize = 72;
    let states = (1..=12).filter(|state| is_connection(*state)).fold(0_u32, |mask, state| mask | 1 << state);
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    request.extend((REQUEST_BYTES as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]); // sequence number, port id
    request.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(port.to_be_bytes());
    request.resize(REQUEST_BYTES, 0);

    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    rustix::net::send(socket.as_fd(), &request, SendFlags::empty())?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (_, len) = rustix::net::recv(socket.as_fd(), &mut buffer, RecvFlags::empty())?;
        let mut rest = &buffer[..len.min(buffer.len())];
        while let Some((kind, body, next)) = netlink_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => inodes.extend(diag_inode(body, port)),
            }
            rest = next;
        }
    }
}

/// The kind and body of the first message, and what follows it.
fn netlink_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..len)?;
    Some((kind, body, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// The inode in an inet_diag_msg on this local port.
fn diag_inode(body: &[u8], port: u16) -> Option<u64> {
    let local = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let inode = u32::from_ne_bytes(body.get(68..72)?.try_into().ok()?);
    (local == port && inode != 0).then_some(u64::from(inode))
}

/// A row of one of the kernel's tables of TCP and UDP sockets, which are alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) local: SocketAddr,
    state: u8,
    pub(super) inode: u64,
}

fn table(v6: bool) -> &'static str {
    if v6 { "/proc/self/net/tcp6" } else { "/proc/self/net/tcp" }
}

/// Calls `each` with the rows of a table, while it wants more.
pub(super) fn each_row(table: &str, mut each: impl FnMut(Row) -> bool) -> io::Result<()> {
    let file = File::open(table)?;
    for line in BufReader::with_capacity(64 << 10, file).lines().skip(1) {
        if let Some(row) = parse_row(&line?)
            && !each(row)
        {
            break;
        }
    }
    Ok(())
}

fn parse_row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (ip, port) = words.next()?.split_once(':')?;
    let state = u8::from_str_radix(words.nth(1)?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    // Addresses are printed as words of the machine's byte order.
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = if ip.len() == 8 {
        IpAddr::from(Ipv4Addr::from(word(0)?))
    } else {
        let mut octets = [0; 16];
        for (at, part) in octets.chunks_exact_mut(4).enumerate() {
            part.copy_from_slice(&word(at)?);
        }
        IpAddr::from(Ipv6Addr::from(octets))
    };
    Some(Row { local: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), state, inode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn listeners_and_connections_are_found_in_both_families() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(listening(address).unwrap(), [inode(&listener)]);
            let client = TcpStream::connect(address).unwrap();
            let queued = OwnedFd::from(listener.try_clone().unwrap());
            // The kernel may see the last step of the handshake a moment after the client has.
            while accept_queue(&queued) == Some(0) {
                std::thread::yield_now();
            }
            assert_eq!(accept_queue(&queued), Some(1));
            let (server, _) = listener.accept().unwrap();
            assert_eq!(accept_queue(&queued), Some(0));
            let found = connections(address.port()).unwrap();
            assert!(found.contains(&inode(&server)) && !found.contains(&inode(&client)));
            let mut by_proc = BTreeSet::new();
            connections_in_proc(address.is_ipv6(), address.port(), &mut by_proc).unwrap();
            assert_eq!(by_proc, found);
            drop((server, client));
            assert!(connections(address.port()).unwrap().is_empty());
        }
    }
}
