//! Listening sockets, made by the agent and held by the shim.

use baton_model::id::PortName;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

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

/// Binds and listens, alone on its address (any other listener there is an error, also one with SO_REUSEPORT).
///
/// # Errors
/// [`SocketError`]
pub fn listen(_name: PortName, address: SocketAddr) -> Result<Listener, SocketError> {
    Err(SocketError::Io { address, source: io::ErrorKind::Unsupported.into() })
}

/// A free TCP port on this address, for a port of kind `dynamic`. It is free now; the workload must bind it soon.
///
/// # Errors
/// [`SocketError`]
pub fn free_port(address: std::net::IpAddr) -> Result<u16, SocketError> {
    Err(SocketError::Io { address: SocketAddr::new(address, 0), source: io::ErrorKind::Unsupported.into() })
}
