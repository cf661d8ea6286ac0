//! Listening sockets, made by the agent and held by the shim.
//!
//! Every one has SO_REUSEPORT, so that a swap can put a second beside it ([`super::steer`]); that another service
//! might slip into the same address with it is ruled out by binding once without it first.

use baton_model::id::PortName;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Connections that wait to be accepted, at most. The kernel cuts it to `net.core.somaxconn` (4096 since Linux 5.4,
/// 128 before); what comes while the queue is full is not refused, the client's kernel tries again.
const BACKLOG: i32 = 4096;

/// A listening TCP socket (or one bound and about to listen, see [`super::steer`]).
#[derive(Clone, Debug)]
pub struct Listener {
    /// The port's name in the service, and in `LISTEN_FDNAMES`.
    pub name: PortName,
    /// Where it is bound, with the real port.
    pub address: SocketAddr,
    /// The socket. Blocking: its mode is shared with the workload, so never set it to non-blocking.
    pub socket: Arc<OwnedFd>,
    /// The socket's inode: its identity across processes.
    pub inode: u64,
}

/// A socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else listens there.
    #[error("address {0} is in use; find who has it with `ss -ltnp 'sport = :{port}'`, or choose another port", port = .0.port())]
    InUse(SocketAddr),
    /// The address is not one of this machine.
    #[error("{0} is not an address of this machine; check the agent's --address")]
    NotLocal(SocketAddr),
    /// A port below 1024 without the right to it.
    #[error("port {port} needs the right to bind low ports: give the agent CAP_NET_BIND_SERVICE, or choose a port from 1024", port = .0.port())]
    NotAllowed(SocketAddr),
    /// Too many runs listen on one address: earlier swaps have not ended yet.
    #[error("{0} runs listen on {1} already; wait until the earlier swap has ended")]
    Crowded(usize, SocketAddr),
    /// More checks at one time than can be told apart.
    #[error("{0} checks at one time on one address; at most {1} are possible")]
    TooManyChecks(usize, usize),
    /// Anything else.
    #[error("listening on {address}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SocketError {
    pub(super) fn new(address: SocketAddr, error: Errno) -> Self {
        match error {
            Errno::ADDRINUSE => Self::InUse(address),
            Errno::ADDRNOTAVAIL => Self::NotLocal(address),
            Errno::ACCESS => Self::NotAllowed(address),
            other => Self::Io { address, source: other.into() },
        }
    }
}

impl Listener {
    /// A socket that came from a shim.
    pub(super) fn from_fd(name: PortName, address: SocketAddr, fd: OwnedFd) -> io::Result<Self> {
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Self { name, address, socket: Arc::new(fd), inode })
    }

    /// Whether it still takes connections into its queue.
    #[must_use]
    pub fn listens(&self) -> bool {
        super::tcp::accept_queue(&self.socket).is_some()
    }

    /// Starts to accept into the queue.
    pub(super) fn start(&self) -> Result<(), SocketError> {
        rustix::net::listen(&*self.socket, BACKLOG).map_err(|error| SocketError::new(self.address, error))
    }
}

/// Binds and listens, alone on its address (any other listener there is an error, also one with SO_REUSEPORT).
///
/// # Errors
/// [`SocketError`]
pub fn listen(name: PortName, address: SocketAddr) -> Result<Listener, SocketError> {
    if address.port() != 0 {
        // Without SO_REUSEPORT this fails where anybody listens.
        drop(bound(address, false)?);
    }
    let listener = bind(name, address)?;
    listener.start()?;
    Ok(listener)
}

/// Binds with SO_REUSEPORT and does not listen yet.
pub(super) fn bind(name: PortName, address: SocketAddr) -> Result<Listener, SocketError> {
    let socket = bound(address, true)?;
    let error = |error| SocketError::new(address, error);
    let local = rustix::net::getsockname(&socket).map_err(error)?;
    let local = SocketAddr::try_from(local).map_err(error)?;
    Listener::from_fd(name, local, socket).map_err(|source| SocketError::Io { address, source })
}

/// A free TCP port on this address, for a port of kind `dynamic`. It is free now; the workload must bind it soon.
///
/// # Errors
/// [`SocketError`]
pub fn free_port(address: IpAddr) -> Result<u16, SocketError> {
    let any = SocketAddr::new(address, 0);
    let socket = bound(any, false)?;
    let error = |error| SocketError::new(any, error);
    let local = rustix::net::getsockname(&socket).map_err(error)?;
    Ok(SocketAddr::try_from(local).map_err(error)?.port())
}

fn bound(address: SocketAddr, reuse_port: bool) -> Result<OwnedFd, SocketError> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let make = || {
        let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Connections of an earlier listener in TIME_WAIT do not count.
        set_socket_reuseaddr(&socket, true)?;
        set_socket_reuseport(&socket, reuse_port)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok(socket)
    };
    make().map_err(|error| SocketError::new(address, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PortName {
        PortName::new("http").unwrap()
    }

    #[test]
    fn an_address_belongs_to_one_service() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = listen(name(), any).unwrap();
        assert!(matches!(listen(name(), first.address), Err(SocketError::InUse(a)) if a == first.address));
        let taken = std::net::TcpListener::bind(any).unwrap();
        assert!(matches!(listen(name(), taken.local_addr().unwrap()), Err(SocketError::InUse(_))));
    }

    #[test]
    fn errors_say_what_to_check() {
        let text = |address: &str| listen(name(), address.parse().unwrap()).unwrap_err().to_string();
        assert!(text("192.0.2.1:8080").contains("--address"), "not an address of this machine");
        let listener = listen(name(), "[::1]:0".parse().unwrap()).unwrap();
        assert!(text(&listener.address.to_string()).contains("ss -ltnp"));
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port("127.0.0.1".parse().unwrap()).unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
