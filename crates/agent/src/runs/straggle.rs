//! Late connections: those that reached the old socket although new ones go elsewhere.

use super::sockets::Listener;
use baton_model::time::Millis;
use std::io;
use std::net::SocketAddr;

/// Accepts on an old socket and relays both ways to `to`, until told to stop.
#[derive(Debug)]
pub struct Stragglers {}

/// What came late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Straggled {
    /// Connections relayed.
    pub relayed: u32,
    /// Connections that could not be.
    pub failed: u32,
}

impl Stragglers {
    /// Begins. Call it after the flip, before the old run is signalled. Within a tokio runtime.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn begin(_old: &Listener, _to: SocketAddr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Call it when the old run is wholly gone: goes on for `linger` and until the queue is empty, then makes the old
    /// socket stop listening, and waits at most `finish` for the relayed connections to end.
    pub async fn end(self, _linger: Millis, _finish: Millis) -> Straggled {
        Straggled::default()
    }
}
