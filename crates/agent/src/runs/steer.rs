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

//!
//! UDP sockets have the same groups, which a socket joins when it is bound, and leaves only when its last holder
//! closes it. Unix sockets have no groups: there the public path is turned ([`super::unix`]), and a check goes to the
//! candidate's own name.

use super::filter::{self, Filter, Insn};
use super::place::Place;
use super::sockets::{self, Listener, SocketError};
use super::{tcp, udp, unix};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Checks under way at one time on one address.
const CHECKS_MAX: usize = 4;
const OLD: u32 = 0;
const NEW: u32 = 1;

/// The steering of one place during a swap. Its effect lives in the kernel and needs no agent to go on.
#[derive(Debug)]
pub struct Steering {
    old: Listener,
    new: Listener,
    checks: Vec<SocketAddr>,
    flipped: bool,
}

impl Steering {
    /// Makes the candidate's socket beside `old`: new connections keep going to `old`. `at` is the same place as that
    /// of `old`; for a Unix socket it says the candidate's own name.
    ///
    /// # Errors
    /// [`SocketError`]; `old` serves as before.
    pub fn begin(old: &Listener, at: &Place) -> Result<(Self, Listener), SocketError> {
        let others = sharers(at)?.into_iter().filter(|inode| *inode != old.inode).count();
        if others > 0 {
            return Err(SocketError::Crowded(others + 1, at.clone()));
        }
        // A candidate's socket is in the group as soon as it listens (TCP) or is bound (UDP): the program comes first.
        apply(old, &program(OLD, OLD, &[]))?;
        let new = sockets::bind(old.name.clone(), at)?;
        new.start()?;
        Ok((Self { old: old.clone(), new: new.clone(), checks: Vec::new(), flipped: false }, new))
    }

    /// Finds the steering again after a restart of the agent, from the sockets fetched from both shims, and puts it
    /// in force again (a check of the agent that died may still be in it). `flipped`: new connections go to `new`.
    ///
    /// # Errors
    /// [`SocketError`], also when one of the two does not listen any more.
    pub fn recover(old: &Listener, new: &Listener, flipped: bool) -> Result<Self, SocketError> {
        let mut found = sharers(&old.place)?;
        let mut wanted = [old.inode, new.inode];
        found.sort_unstable();
        wanted.sort_unstable();
        let right = match old.place {
            Place::Tcp(_) | Place::Udp { .. } => found == wanted,
            Place::Unix(_) => old.listens() && new.listens(),
        };
        if !right {
            let source = io::Error::other("the sockets that listen there are not the two of the swap");
            return Err(SocketError::Io { place: old.place.clone(), source });
        }
        let steering = Self { old: old.clone(), new: new.clone(), checks: Vec::new(), flipped };
        steering.put_in_force()?;
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
        let attached = self.put_in_force();
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
        self.put_in_force()
    }

    /// New connections go to the new run from now on. Idempotent.
    ///
    /// # Errors
    /// [`SocketError`]; they go where they went before.
    pub fn flip(&mut self) -> Result<(), SocketError> {
        self.turn(true)
    }

    /// New connections go to the old run again. Idempotent.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn turn_back(&mut self) -> Result<(), SocketError> {
        self.turn(false)
    }

    fn turn(&mut self, flipped: bool) -> Result<(), SocketError> {
        let before = std::mem::replace(&mut self.flipped, flipped);
        let turned = self.put_in_force();
        if turned.is_err() {
            self.flipped = before;
        }
        turned
    }

    /// Whether new connections go to the new run.
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
    /// What has closed already is as good. A UDP socket that lost stays until its last holder closes it, and gets
    /// nothing more: the program in force points away from it, and at none after it is gone.
    ///
    /// # Errors
    /// [`SocketError`]
    pub fn end(self) -> Result<(), SocketError> {
        let (winner, loser) = if self.flipped { (&self.new, &self.old) } else { (&self.old, &self.new) };
        loser.stop()?;
        match winner.place {
            // Alone now. The program in force pointed outside of the array, or at the one that is left, all the while.
            Place::Tcp(_) => apply(winner, &program(OLD, OLD, &[])),
            Place::Udp { .. } | Place::Unix(_) => Ok(()),
        }
    }

    fn put_in_force(&self) -> Result<(), SocketError> {
        if self.flipped {
            apply(&self.new, &program(NEW, NEW, &[]))
        } else {
            apply(&self.old, &program(OLD, NEW, &self.checks))
        }
    }
}

/// Inodes of the sockets that listen at this place, where the kernel lets several share it.
fn sharers(place: &Place) -> Result<Vec<u64>, SocketError> {
    let found = match place {
        Place::Tcp(address) => tcp::listening(*address),
        Place::Udp { udp } => udp::bound(*udp),
        Place::Unix(_) => Ok(Vec::new()),
    };
    found.map_err(|source| SocketError::Io { place: place.clone(), source })
}

/// Puts a program in force for the group of this socket; the path of a Unix socket is turned to this one.
fn apply(to: &Listener, program: &[Insn]) -> Result<(), SocketError> {
    let applied = match &to.place {
        Place::Tcp(_) | Place::Udp { .. } => filter::attach(&to.socket, program),
        Place::Unix(path) => unix::publish(path),
    };
    applied.map_err(|error| SocketError::new(&to.place, error))
}

/// "To `special` if the connection comes from one of `sources`, else to `usual`."
///
/// The kernel runs it on the packet with the TCP or UDP header taken off; `SKF_NET_OFF` reaches back to the IP header.
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
                // A SYN with extension headers is nobody's check, and no check speaks UDP.
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
