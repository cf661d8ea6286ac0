//! The connection of a check: to the run it is about, even while another run has the port's new connections.

use crate::runs::steer::Steering;
use baton_model::id::PortName;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// The steering of one port, shared between the driver (which flips and ends it) and the checks of the candidate.
/// `None` once it has ended: then only one run listens on the port.
pub(crate) type SharedSteering = Arc<Mutex<Option<Steering>>>;

/// A connection to a run, of whatever kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How the ports of one run are reached.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) address: IpAddr,
    pub(crate) ports: BTreeMap<String, u16>,
    /// The run's own names of its Unix sockets.
    pub(crate) paths: BTreeMap<String, PathBuf>,
    /// Ports of a candidate that share their address with the run that serves.
    pub(crate) steering: BTreeMap<String, SharedSteering>,
}

/// Where a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    /// What stands for it in a URL and in `Host`.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("address", &self.address)
            .field("ports", &self.ports)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Dial {
    /// Where the port is.
    pub(crate) fn target(&self, port: &PortName) -> Result<Target, String> {
        if let Some(path) = self.paths.get(port.as_str()) {
            return Ok(Target::Unix(path.clone()));
        }
        let number = self.ports.get(port.as_str()).ok_or_else(|| format!("this run has no port `{port}`"))?;
        Ok(Target::Tcp(SocketAddr::new(self.address, *number)))
    }

    /// Connects to the run's port. In a swap the socket is bound first and its source admitted, so that exactly this
    /// connection goes to the candidate.
    pub(crate) async fn connect(&self, port: &PortName) -> Result<Box<dyn Stream>, String> {
        let target = self.target(port)?;
        let shown = |error: std::io::Error| format!("connect to {target}: {}", plain(&error));
        match &target {
            Target::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(shown)?)),
            Target::Tcp(address) => match self.steering.get(port.as_str()) {
                Some(steering) => Ok(Box::new(self.steered(*address, steering, shown).await?)),
                None => Ok(Box::new(TcpStream::connect(address).await.map_err(shown)?)),
            },
        }
    }

    async fn steered(
        &self,
        target: SocketAddr,
        steering: &SharedSteering,
        shown: impl Fn(std::io::Error) -> String,
    ) -> Result<TcpStream, String> {
        let socket =
            if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(&shown)?;
        socket.bind(SocketAddr::new(self.address, 0)).map_err(&shown)?;
        let source = socket.local_addr().map_err(&shown)?;
        let _admitted = Admitted::new(steering, source)?;
        // The kernel picks the listening socket when the handshake ends; after that the admission has done its work.
        socket.connect(target).await.map_err(shown)
    }
}

/// An admission that ends however the check ends.
struct Admitted<'a> {
    steering: &'a SharedSteering,
    source: SocketAddr,
}

impl<'a> Admitted<'a> {
    fn new(steering: &'a SharedSteering, source: SocketAddr) -> Result<Self, String> {
        if let Some(steering) = lock(steering).as_mut() {
            steering.admit(source).map_err(|error| format!("the check cannot be steered: {error}"))?;
        }
        Ok(Self { steering, source })
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(steering) = lock(self.steering).as_mut()
            && let Err(error) = steering.dismiss(self.source)
        {
            tracing::warn!(%error, source = %self.source, "a check's source could not be dismissed");
        }
    }
}

/// The steering itself; a panic of another holder does not change what the kernel does.
pub(crate) fn lock(steering: &SharedSteering) -> std::sync::MutexGuard<'_, Option<Steering>> {
    steering.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error in few words: "connection refused", not "Connection refused (os error 111)".
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
