//! Where a socket is: a TCP or UDP address, or a path.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a socket is. Its stored form of a TCP address is the address alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A UDP address.
    Udp {
        /// The address.
        udp: SocketAddr,
    },
    /// A path, and who may connect to it.
    Unix(UnixPlace),
}

/// The path of a Unix stream socket.
///
/// Each run's socket is bound to a name of its own beside the public path, and the public path is a hard link to
/// the name of the run that serves. So it is replaced in one step and can be turned back, a check can name the run
/// that it is about, and the kernel's tables tell whose a connection is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnixPlace {
    /// The public path, absolute.
    pub path: PathBuf,
    /// The name that belongs to the run, in the same folder.
    pub own: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// User and group that it belongs to; the agent's where it is `None`.
    pub owner: Option<(u32, u32)>,
}

impl Place {
    /// Whether clients cannot tell the two apart: the same address, or the same public path.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(this), Self::Unix(that)) => this.path == that.path,
            (Self::Tcp(_) | Self::Udp { .. } | Self::Unix(_), _) => self == other,
        }
    }

    /// The address and port, where it has one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Udp { udp: address } => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Udp { udp } => write!(f, "{udp} (UDP)"),
            Self::Unix(unix) => write!(f, "{}", unix.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let unix = UnixPlace {
            path: "/run/web.sock".into(),
            own: "/run/web.sock.web.1-7".into(),
            mode: 0o660,
            owner: Some((1000, 1000)),
        };
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        for place in [Place::Tcp(address), Place::Udp { udp: address }, Place::Unix(unix)] {
            let text = serde_json::to_string(&place).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place, "{text}");
        }
        assert_eq!(serde_json::to_string(&Place::Tcp(address)).unwrap(), r#""127.0.0.1:80""#);
    }
}
