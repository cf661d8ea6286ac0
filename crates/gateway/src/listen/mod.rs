//! Listening: sockets that share a port, one for each worker, and their way to the gateway's next program.
//!
//! Every worker accepts from sockets of its own (`SO_REUSEPORT`, socket(7)), so no worker waits for another. The sockets
//! outlive the program: [`handover`] gives them to the next one, which goes on accepting what the kernel has queued, and
//! [`keep`](mod@keep) has them kept for the one that follows a crash.

mod certificates;
mod first;
mod handover;
mod keep;
mod tls;

pub use certificates::CertificateError;
pub(crate) use certificates::{Certificates, watch};
pub(crate) use first::{First, Spoken, listen_to};
pub(crate) use handover::{Inherited, Old, offer, take_over};
pub(crate) use keep::{forget, forget_all, keep, kept};
pub(crate) use tls::acceptor;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel keeps for a worker that is busy; `net.core.somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// HTTP/1.1, and HTTP/2 with prior knowledge.
    Http,
    /// The same over TLS.
    Https,
    /// A TCP route: bytes.
    Tcp,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Tcp];

    /// Its word in a handover.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }
}

/// Where something is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What is spoken there.
    pub purpose: Purpose,
    /// Address and port; the port is known, also where 0 was asked for.
    pub address: SocketAddr,
}

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) place: Place,
    pub(crate) socket: TcpListener,
}

impl Listener {
    /// The same socket under another descriptor.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self { place: self.place, socket: self.socket.try_clone()? })
    }
}

/// Opens `count` sockets that share one address, or takes those that were handed over, and opens what is missing.
///
/// # Errors
/// The address is not ours, or another program listens there.
pub(crate) fn open(place: Place, count: usize, inherited: Vec<Listener>) -> io::Result<Vec<Listener>> {
    let mut sockets = inherited;
    let mut place = sockets.first().map_or(place, |first| first.place);
    while sockets.len() < count {
        let socket = bind(place.address)?;
        place.address = socket.local_addr()?;
        sockets.push(Listener { place, socket });
    }
    Ok(sockets)
}

/// A listening socket; the next program of this gateway may listen at the same place beside it.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_share_a_port_that_the_first_one_got() {
        let place = Place { purpose: Purpose::Http, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let sockets = open(place, 3, Vec::new()).expect("a port");
        let ports: Vec<u16> = sockets.iter().map(|it| it.place.address.port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let place = sockets[0].place;
        let more = open(place, 5, sockets).expect("the same port");
        assert_eq!(more.len(), 5);
        assert!(more.iter().all(|it| it.place == place));
    }
}
