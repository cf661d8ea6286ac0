//! Which run gets new connections, where an old and a new run listen on the same address.
//!
//! Listening sockets with SO_REUSEPORT on one address are a *group* in the kernel, and a classic BPF program on the
//! group picks the socket of each new connection by its index. The kernel's rules for the index
//! (`net/core/sock_reuseport.c`): listen(2) appends the socket to the group's array; when a socket stops listening, the
//! last of the array moves into its place; an index outside of the array falls back to a hash over all of them, so
//! no connection is ever refused for it. A program belongs to the group and replaces the one before.
//!
//! So a swap is: attach "always the old" *before* the candidate listens; for each of our own checks attach "this
//! source to the candidate, all others to the old"; when the candidate is ready attach "always the new"; when the
//! old run is gone, take its socket out of the group.
//!
//! A candidate joins only a group of one. So the older socket always has index 0 and the newer 1, also for an agent
//! that has just started, and one that is left alone has index 0.

use super::filter::{self, Filter, Insn};
use super::sockets::{self, Listener, SocketError};
use super::tcp;
use rustix::io::Errno;
use std::net::{IpAddr, SocketAddr};

/// Checks under way at one time on one address.
const CHECKS_MAX: usize = 4;
const OLD: u32 = 0;
const NEW: u32 = 1;

/// The steering of one address during a swap. Its effect lives in the kernel and needs no agent to go on.
#[derive(Debug)]
pub struct Steering {
    old: Listener,
    new: Listener,
    checks: Vec<SocketAddr>,
    flipped: bool,
}

impl Steering {
    /// Makes the candidate's socket beside `old`, on the same address: new connections keep going to `old`.
    ///
    /// # Errors
    /// [`SocketError`]; `old` serves as before.
    pub fn begin(old: &Listener) -> Result<(Self, Listener), SocketError> {
        let others: Vec<u64> = tcp::listening(old.address)
            .map_err(|source| SocketError::Io { address: old.address, source })?
            .into_iter()
            .filter(|inode| *inode != old.inode)
            .collect();
        if !others.is_empty() {
            return Err(SocketError::Crowded(others.len() + 1, old.address));
        }
        // Bound, and not in the group before it listens: no connection finds it until the program is in force.
        let new = sockets::bind(old.name.clone(), old.address)?;
        attach(old, &program(OLD, OLD, &[]))?;
        new.start()?;
        Ok((Self { old: old.clone(), new: new.clone(), checks: Vec::new(), flipped: false }, new))
    }

    /// Finds the steering again after a restart of the agent, from the sockets fetched from both shims, and puts it
    /// in force again (a check of the agent that died may still be in it). `flipped`: new connections go to `new`.
    ///
    /// # Errors
    /// [`SocketError`], also when one of the two does not listen any more.
    pub fn recover(old: &Listener, new: &Listener, flipped: bool) -> Result<Self, SocketError> {
        let mut found =
            tcp::listening(old.address).map_err(|source| SocketError::Io { address: old.address, source })?;
        let mut wanted = [old.inode, new.inode];
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            let source = std::io::Error::other("the sockets that listen there are not the two of the swap");
            return Err(SocketError::Io { address: old.address, source });
        }
        let steering = Self { old: old.clone(), new: new.clone(), checks: Vec::new(), flipped };
        steering.attach()?;
        Ok(steering)
    }

    /// Connections from this exact source go to the candidate, until [`Steering::dismiss`]. Bind the check's socket
    /// first, call this, then connect.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn admit(&mut self, source: SocketAddr) -> Result<(), SocketError> {
        if self.checks.len() >= CHECKS_MAX {
            return Err(SocketError::TooManyChecks(self.checks.len() + 1, CHECKS_MAX));
        }
        self.checks.push(source);
        let attached = self.attach();
        if attached.is_err() {
            self.checks.pop();
        }
        attached
    }

    /// Ends [`Steering::admit`]. An unknown source is ignored.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn dismiss(&mut self, source: SocketAddr) -> Result<(), SocketError> {
        self.checks.retain(|check| *check != source);
        self.attach()
    }

    /// New connections go to the new run from now on. Idempotent.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn flip(&mut self) -> Result<(), SocketError> {
        self.flipped = true;
        let attached = self.attach();
        self.flipped = attached.is_ok();
        attached
    }

    /// Whether [`Steering::flip`] was called.
    #[must_use]
    pub fn flipped(&self) -> bool {
        self.flipped
    }

    /// The old run's socket.
    #[must_use]
    pub fn old(&self) -> &Listener {
        &self.old
    }

    /// The new run's socket.
    #[must_use]
    pub fn new_listener(&self) -> &Listener {
        &self.new
    }

    /// Ends the swap: the socket that lost (old after a flip, the candidate before one) stops listening, whoever
    /// still has it open. Its accept queue must be empty ([`super::straggle`]), or what is in it is reset.
    /// What has closed already is as good.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn end(self) -> Result<(), SocketError> {
        let (winner, loser) = if self.flipped { (&self.new, &self.old) } else { (&self.old, &self.new) };
        stop_listening(loser)?;
        // Alone now. The program in force pointed outside of the array, or at the one that is left, all the while.
        attach(winner, &program(OLD, OLD, &[]))
    }

    fn attach(&self) -> Result<(), SocketError> {
        if self.flipped {
            attach(&self.new, &program(NEW, NEW, &[]))
        } else {
            attach(&self.old, &program(OLD, NEW, &self.checks))
        }
    }
}

fn attach(listener: &Listener, program: &[Insn]) -> Result<(), SocketError> {
    filter::attach(&listener.socket, program)
        .map_err(|source| SocketError::Io { address: listener.address, source })
}

/// Takes a socket out of its group although others have it open. Idempotent.
pub(super) fn stop_listening(listener: &Listener) -> Result<(), SocketError> {
    match rustix::net::shutdown(&*listener.socket, rustix::net::Shutdown::Both) {
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(error) => Err(SocketError::new(listener.address, error)),
    }
}

/// "To `special` if the connection comes from one of `sources`, else to `usual`."
///
/// The kernel runs it on the packet with the TCP header taken off; `SKF_NET_OFF` reaches back to the IP header.
fn program(usual: u32, special: u32, sources: &[SocketAddr]) -> Vec<Insn> {
    let mut filter = Filter::new();
    for source in sources {
        let port = u32::from(source.port());
        match source.ip().to_canonical() {
            IpAddr::V4(ip) => {
                filter.load_network_byte(0).and(0xF0).unless_equal_skip_source(0x40);
                filter.load_network_word(12).unless_equal_skip_source(u32::from(ip));
                filter.load_ipv4_source_port().unless_equal_skip_source(port);
            }
            IpAddr::V6(ip) => {
                filter.load_network_byte(0).and(0xF0).unless_equal_skip_source(0x60);
                // A SYN with extension headers is nobody's check.
                filter.load_network_byte(6).unless_equal_skip_source(libc::IPPROTO_TCP as u32);
                for (place, word) in ip.octets().chunks_exact(4).enumerate() {
                    let word = word.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
                    filter.load_network_word(8 + 4 * place as u32).unless_equal_skip_source(word);
                }
                filter.load_network_half(40).unless_equal_skip_source(port);
            }
        }
        filter.give(special).end_source();
    }
    filter.give(usual);
    filter.finish()
}
