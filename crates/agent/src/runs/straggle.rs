//! Late connections: those that reached the old socket although new ones go elsewhere.
//!
//! A client whose handshake began before the flip, or that was in the old socket's queue when the old process ended,
//! is accepted here and relayed to the address, where the new run answers. So nobody is refused or reset; the price is
//! that the new run sees this node as the peer of those few.

use super::place::Place;
use super::sockets::Listener;
use baton_model::time::Millis;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The accepting thread does nothing but accept.
const STACK_BYTES: usize = 128 << 10;
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(5);
/// The longest that a queue which does not get empty is waited for, after the linger.
const QUEUE_WITHIN: Duration = Duration::from_secs(5);
/// Out of descriptors: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts on an old socket and relays both ways to its place, until told to stop or dropped.
#[derive(Debug)]
pub struct Stragglers {
    old: Listener,
    counts: Arc<Counts>,
    relays: TaskTracker,
    /// Its other end tells the accepting thread that this was dropped.
    _alive: PipeWriter,
}

#[derive(Debug, Default)]
struct Counts {
    relayed: AtomicU32,
    failed: AtomicU32,
}

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
    pub fn begin(old: &Listener) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let relays = TaskTracker::new();
        let (dropped, alive) = io::pipe()?;
        let acceptor = Acceptor {
            socket: old.socket.clone(),
            dropped,
            to: old.place.clone(),
            counts: counts.clone(),
            relays: relays.clone(),
            runtime: Handle::current(),
        };
        // A thread, since accept(2) may block: the socket's mode is shared with the old workload, which may rely on it.
        std::thread::Builder::new()
            .name("stragglers".into())
            .stack_size(STACK_BYTES)
            .spawn(move || acceptor.run())?;
        Ok(Self { old: old.clone(), counts, relays, _alive: alive })
    }

    /// Call it when the old run is wholly gone: goes on for `linger` and until the queue is empty, then makes the old
    /// socket stop listening, and waits at most `finish` for the relayed connections to end.
    pub async fn end(self, linger: Millis, finish: Millis) -> Straggled {
        tokio::time::sleep(linger.duration()).await;
        let emptied = async {
            while self.old.waiting().is_some_and(|waiting| waiting > 0) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(QUEUE_WITHIN, emptied).await;
        if let Err(error) = self.old.stop() {
            tracing::warn!(%error, "an old socket does not stop listening");
        }
        self.relays.close();
        let _ = tokio::time::timeout(finish.duration(), self.relays.wait()).await;
        Straggled {
            relayed: self.counts.relayed.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }
}

struct Acceptor {
    socket: Arc<OwnedFd>,
    dropped: PipeReader,
    to: Place,
    counts: Arc<Counts>,
    relays: TaskTracker,
    runtime: Handle,
}

impl Acceptor {
    /// Accepts until the socket stops listening, which wakes a blocked accept(2) with EINVAL, or nobody wants it.
    fn run(self) {
        loop {
            let mut polled =
                [PollFd::new(&*self.socket, PollFlags::IN), PollFd::new(&self.dropped, PollFlags::IN)];
            let _ = rustix::event::poll(&mut polled, None);
            if !polled[1].revents().is_empty() {
                return;
            }
            match rustix::net::accept_with(&*self.socket, rustix::net::SocketFlags::CLOEXEC) {
                Ok(client) => self.relay(client),
                // The old workload was faster, or the client has gone again.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    std::thread::sleep(ACCEPT_PAUSE)
                }
                Err(_) => return,
            }
        }
    }

    fn relay(&self, client: OwnedFd) {
        let (to, counts) = (self.to.clone(), self.counts.clone());
        let relay = async move {
            let result = relay(client, &to).await;
            if result.is_ok() { &counts.relayed } else { &counts.failed }.fetch_add(1, Ordering::Relaxed);
        };
        self.runtime.spawn(self.relays.track_future(relay));
    }
}

/// Copies both ways until both sides have ended. Fails only where the new run could not be reached; a client that
/// breaks off is its own affair.
async fn relay(client: OwnedFd, to: &Place) -> io::Result<()> {
    match to {
        Place::Tcp(address) => {
            let client = std::net::TcpStream::from(client);
            client.set_nonblocking(true)?;
            let mut client = TcpStream::from_std(client)?;
            let mut server = TcpStream::connect(address).await?;
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Place::Unix(unix) => {
            let client = std::os::unix::net::UnixStream::from(client);
            client.set_nonblocking(true)?;
            let mut client = UnixStream::from_std(client)?;
            let mut server = UnixStream::connect(&unix.path).await?;
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        // It has no connections: `accept` fails, and nothing gets here.
        Place::Udp { .. } => {}
    }
    Ok(())
}
