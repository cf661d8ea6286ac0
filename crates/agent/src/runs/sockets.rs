//! Sockets, made by the agent and held by the shim.
//!
//! Every TCP and UDP socket has SO_REUSEPORT, so that a swap can put a second beside it ([`super::steer`]); that another
//! service might slip into the same address with it is ruled out by binding once without it first. A Unix socket is
//! bound beside its public path ([`super::unix`]).

use super::place::{Place, UnixPlace};
use super::unix::{self, Holder};
use super::{tcp, udp};
use baton_model::id::PortName;
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections that wait to be accepted, at most. The kernel cuts it to `net.core.somaxconn` (4096 since Linux 5.4,
/// 128 before); what comes while the queue is full is not refused, the client's kernel tries again.
const BACKLOG: i32 = 4096;

/// A socket for a workload: one that listens, or a bound UDP socket.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The port's name in the service, and in `LISTEN_FDNAMES`.
    pub name: PortName,
    /// Where it is bound, with the real port.
    pub place: Place,
    /// The socket. Blocking: its mode is shared with the workload, so never set it to non-blocking.
    pub socket: Arc<OwnedFd>,
    /// The socket's inode: its identity across processes.
    pub inode: u64,
}

/// A socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody else has the place.
    #[error("{0} is in use; {hint}", hint = in_use(.0))]
    InUse(Place),
    /// There is a file at the path that is not a socket.
    #[error("{} is there and is not a socket; move it away, or choose another path", .0.display())]
    NotSocket(PathBuf),
    /// The address is not one of this machine.
    #[error("{0} is not an address of this machine; check the agent's --address")]
    NotLocal(Place),
    /// A port below 1024, or a folder, without the right to it.
    #[error("{0} is not allowed; {hint}", hint = not_allowed(.0))]
    NotAllowed(Place),
    /// Too many runs listen at one place: earlier swaps have not ended yet.
    #[error("{0} runs listen on {1} already; wait until the earlier swap has ended")]
    Crowded(usize, Place),
    /// More checks at one time than can be told apart.
    #[error("{0} checks at one time on one address; at most {1} are possible")]
    TooManyChecks(usize, usize),
    /// Anything else.
    #[error("cannot listen on {place}; choose another, or mend this")]
    Io {
        /// The place.
        place: Place,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn in_use(place: &Place) -> String {
    match place {
        Place::Tcp(address) => {
            format!("find who has it with `ss -ltnp 'sport = :{}'`, or choose another port", address.port())
        }
        Place::Udp { udp } => {
            format!("find who has it with `ss -lunp 'sport = :{}'`, or choose another port", udp.port())
        }
        Place::Unix(_) => "find who has it with `ss -lxp`, or choose another path".to_owned(),
    }
}

fn not_allowed(place: &Place) -> &'static str {
    match place {
        Place::Tcp(_) | Place::Udp { .. } => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE: give it to the agent, or choose a port from 1024"
        }
        Place::Unix(_) => "let the agent write into the folder of the socket, or choose another path",
    }
}

impl SocketError {
    pub(super) fn new(place: &Place, error: impl Into<io::Error>) -> Self {
        let (place, source) = (place.clone(), error.into());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ADDRINUSE) => Self::InUse(place),
            Some(Errno::ADDRNOTAVAIL) => Self::NotLocal(place),
            Some(Errno::ACCESS | Errno::PERM) => Self::NotAllowed(place),
            Some(_) | None => Self::Io { place, source },
        }
    }
}

impl Listener {
    /// A socket that came from a shim.
    pub(super) fn from_fd(name: PortName, place: Place, fd: OwnedFd) -> io::Result<Self> {
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok(Self { name, place, socket: Arc::new(fd), inode })
    }

    /// The address, where it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.place.address()
    }

    /// Whether it listens at its place: for a socket that comes from where it may have become another.
    pub(super) fn is_where_it_says(&self) -> bool {
        use rustix::net::sockopt::socket_type;
        let local = || local_address(&self.socket).ok();
        let bound = match &self.place {
            Place::Tcp(address) => local() == Some(*address),
            Place::Udp { udp } => {
                local() == Some(*udp) && socket_type(&*self.socket) == Ok(SocketType::DGRAM)
            }
            // Its accepted connections have the same name, and do not listen.
            Place::Unix(place) => unix::name(&self.socket).as_ref() == Some(&place.own),
        };
        bound && self.listens()
    }

    /// Whether it has datagrams, and no connections.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        match self.place {
            Place::Udp { .. } => true,
            Place::Tcp(_) | Place::Unix(_) => false,
        }
    }

    /// Takes the datagrams that nobody will read any more, and says how many were lost so. None for other sockets.
    #[must_use]
    pub fn discard(&self) -> u32 {
        if self.is_datagram() { udp::discard(&self.socket) } else { 0 }
    }

    /// Whether it still takes connections into its queue.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.waiting().is_some()
    }

    /// What waits in its queue: connections, or for UDP and Unix sockets one for any number. `None` when it does not
    /// listen any more.
    pub(super) fn waiting(&self) -> Option<u32> {
        match &self.place {
            Place::Tcp(_) => tcp::accept_queue(&self.socket),
            Place::Udp { .. } => Some(udp::waiting(&self.socket)),
            Place::Unix(_) => unix::accept_queue(&self.socket),
        }
    }

    /// Starts to accept into the queue. A UDP socket does so since it was bound.
    pub(super) fn start(&self) -> Result<(), SocketError> {
        match self.place {
            Place::Udp { .. } => Ok(()),
            Place::Tcp(_) | Place::Unix(_) => rustix::net::listen(&*self.socket, BACKLOG)
                .map_err(|error| SocketError::new(&self.place, error)),
        }
    }

    /// Takes it out of use although others have it open. Idempotent. Nothing of the kind is possible for a UDP socket.
    pub(super) fn stop(&self) -> Result<(), SocketError> {
        if matches!(self.place, Place::Udp { .. }) {
            return Ok(());
        }
        match rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(SocketError::new(&self.place, error)),
        }
    }

    /// Removes the names of a Unix socket, the public one if it leads here. Nothing for others.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn remove(&self) -> Result<(), SocketError> {
        match &self.place {
            Place::Unix(path) => unix::remove(path).map_err(|error| SocketError::new(&self.place, error)),
            Place::Tcp(_) | Place::Udp { .. } => Ok(()),
        }
    }
}

/// Binds and listens, alone at its place (any other listener there is an error, also one with SO_REUSEPORT).
///
/// # Errors
/// [`SocketError`]
pub fn listen(name: PortName, place: impl Into<Place>) -> Result<Listener, SocketError> {
    let place = place.into();
    match &place {
        Place::Tcp(address) | Place::Udp { udp: address } if address.port() != 0 => {
            // Without SO_REUSEPORT this fails where anybody listens.
            drop(bound(&place, *address, false)?);
        }
        Place::Unix(path) => must_be_free(&place, path)?,
        Place::Tcp(_) | Place::Udp { .. } => {}
    }
    let listener = bind(name, &place)?;
    listener.start()?;
    if let Place::Unix(path) = &place {
        unix::publish(path).map_err(|error| SocketError::new(&place, error))?;
    }
    Ok(listener)
}

fn must_be_free(place: &Place, unix: &UnixPlace) -> Result<(), SocketError> {
    match unix::holder(&unix.path).map_err(|error| SocketError::new(place, error))? {
        Holder::Nobody => Ok(()),
        Holder::Listener => Err(SocketError::InUse(place.clone())),
        Holder::OtherFile => Err(SocketError::NotSocket(unix.path.clone())),
    }
}

/// Binds, beside others at this place, and does not listen yet. A Unix socket is bound to its own name.
pub(super) fn bind(name: PortName, place: &Place) -> Result<Listener, SocketError> {
    let error = |error| SocketError::new(place, error);
    let (socket, place) = match place {
        Place::Tcp(address) => {
            let socket = bound(place, *address, true)?;
            let local = local_address(&socket).map_err(error)?;
            (socket, Place::Tcp(local))
        }
        Place::Udp { udp } => {
            let socket = bound(place, *udp, true)?;
            let local = local_address(&socket).map_err(error)?;
            (socket, Place::Udp { udp: local })
        }
        Place::Unix(unix) => (unix::bind(unix).map_err(error)?, place.clone()),
    };
    Listener::from_fd(name, place.clone(), socket).map_err(|source| SocketError::Io { place, source })
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

/// Removes what dead runs of the instance left beside the public path; `alive` are the sockets of its live ones.
/// That it cannot is no reason not to go on.
pub fn sweep(place: &Place, alive: impl Iterator<Item = Listener>) {
    let Place::Unix(unix) = place else { return };
    let keep: BTreeSet<PathBuf> = alive
        .filter_map(|listener| match listener.place {
            Place::Unix(unix) => Some(unix.own),
            Place::Tcp(_) | Place::Udp { .. } => None,
        })
        .collect();
    if let Err(error) = unix::sweep(unix, &keep) {
        tracing::warn!(%error, %place, "what earlier runs left there could not be removed");
    }
}

/// Ports that were handed out last and are not handed out again: a gateway that is cut off from the coordinator may send to
/// one long after its run is gone, and must find nobody there rather than another service. Fewer than a seventh of those
/// that Linux picks from.
const HANDED_OUT_KEPT: usize = 4096;
/// The kernel picks at random, so this many picks in a row are known ports only where it has few to pick from.
const PICKS_MAX: usize = 64;

static HANDED_OUT: Mutex<VecDeque<SocketAddr>> = Mutex::new(VecDeque::new());

/// A free TCP port on this address, for a port of kind `dynamic`, that this agent has not handed out lately. It is free now;
/// the workload must bind it soon.
///
/// # Errors
/// [`SocketError`]
pub fn free_port(address: IpAddr) -> Result<u16, SocketError> {
    let mut handed_out = HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut picked = pick(address)?;
    for _ in 1..PICKS_MAX {
        if !handed_out.contains(&picked) {
            break;
        }
        picked = pick(address)?;
    }
    if handed_out.len() == HANDED_OUT_KEPT {
        handed_out.pop_front();
    }
    handed_out.push_back(picked);
    Ok(picked.port())
}

fn pick(address: IpAddr) -> Result<SocketAddr, SocketError> {
    let any = SocketAddr::new(address, 0);
    let place = Place::Tcp(any);
    let socket = bound(&place, any, false)?;
    local_address(&socket).map_err(|error| SocketError::new(&place, error))
}

fn bound(place: &Place, address: SocketAddr, reuse_port: bool) -> Result<OwnedFd, SocketError> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let stream = matches!(place, Place::Tcp(_));
    let make = || {
        let kind = if stream { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        // For TCP, connections of an earlier listener in TIME_WAIT do not count. For UDP it would share the port.
        set_socket_reuseaddr(&socket, stream)?;
        set_socket_reuseport(&socket, reuse_port)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
        }
        rustix::net::bind(&socket, &address)?;
        Ok::<_, Errno>(socket)
    };
    make().map_err(|error| SocketError::new(place, error))
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
        for place in [Place::Tcp(any), Place::Udp { udp: any }] {
            let first = listen(name(), place).unwrap();
            assert!(
                matches!(listen(name(), first.place.clone()), Err(SocketError::InUse(at)) if at == first.place)
            );
        }
        let taken = std::net::TcpListener::bind(any).unwrap();
        assert!(matches!(listen(name(), taken.local_addr().unwrap()), Err(SocketError::InUse(_))));
        let taken = std::net::UdpSocket::bind(any).unwrap();
        let place = Place::Udp { udp: taken.local_addr().unwrap() };
        assert!(matches!(listen(name(), place), Err(SocketError::InUse(_))));
    }

    #[test]
    fn a_path_belongs_to_one_service_and_to_none_that_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let at = |run: u32| {
            let own = folder.path().join(format!("web.sock.web.1-{run}"));
            Place::Unix(UnixPlace { path: path.clone(), own, mode: 0o600, owner: None })
        };
        let first = listen(name(), at(1)).unwrap();
        let refused = listen(name(), at(2)).unwrap_err();
        assert!(matches!(&refused, SocketError::InUse(_)), "{refused}");
        assert!(refused.to_string().contains("ss -lxp"), "{refused}");
        drop(first);
        let second = listen(name(), at(3)).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        second.remove().unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(name(), at(4)), Err(SocketError::NotSocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn errors_say_what_to_check() {
        let text = |place: Place| listen(name(), place).unwrap_err().to_string();
        let elsewhere: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert!(text(Place::Tcp(elsewhere)).contains("--address"), "not an address of this machine");
        let local: SocketAddr = "[::1]:0".parse().unwrap();
        let listener = listen(name(), local).unwrap();
        assert!(text(listener.place.clone()).contains("ss -ltnp"));
        let listener = listen(name(), Place::Udp { udp: local }).unwrap();
        assert!(text(listener.place.clone()).contains("ss -lunp"));
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port("127.0.0.1".parse().unwrap()).unwrap();
        assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    /// Left to chance, of 1,000 picks from 28,000 ports two are the same all but always.
    #[test]
    fn a_port_is_not_handed_out_again_soon() {
        let address = "127.0.0.2".parse().unwrap();
        let ports: BTreeSet<u16> = (0..1000).map(|_| free_port(address).unwrap()).collect();
        assert_eq!(ports.len(), 1000);
    }
}
