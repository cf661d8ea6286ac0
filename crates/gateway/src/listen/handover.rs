//! The gateway's own upgrade: the next program takes the listening sockets of this one.
//!
//! ```text
//! next program                      this program
//!   connect ──────────────────────────► accept
//!   ◄── "http 0.0.0.0:80\n" + socket ── one message for each listening socket
//!   ◄── "end\n"
//!   serves on them
//!   ── "serving\n" ───────────────────► accepts no more, drains, ends
//! ```
//!
//! Until `serving` has come, this program accepts too: a next program that fails costs nothing. The sockets themselves
//! live on in both, so that a connection in the kernel's queue is answered by either.

use super::{Listener, Place, Purpose};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// What ends the list of sockets.
const END: &str = "end";
/// What the next program says once it serves.
const SERVING: &[u8] = b"serving\n";
/// A line of the protocol is shorter.
const LINE_MAX: usize = 128;
/// Sockets of one gateway: places times workers.
const SOCKETS_MAX: usize = 4096;
/// The next program's time to begin to serve; and this one's to send what it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a handover gave.
pub(crate) struct Inherited {
    /// The sockets, in the order in which they were opened.
    pub(crate) listeners: Vec<Listener>,
    /// To tell the old program that it is no longer needed; dropped untold, it goes on.
    pub(crate) old: Old,
}

/// The program that gave its sockets.
#[derive(Debug)]
pub(crate) struct Old(UnixStream);

impl Old {
    /// Tells it that all its sockets are served: it accepts no more and drains.
    pub(crate) fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(SERVING)
    }
}

/// Takes the sockets of the program that offers them at `path`; nothing where none does.
///
/// # Errors
/// Something answers there, and not as a gateway does.
pub(crate) fn take_over(path: &Path) -> io::Result<Option<Inherited>> {
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut listeners = Vec::new();
    while let Some(listener) = receive(&stream)? {
        if listeners.len() == SOCKETS_MAX {
            return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets were offered")));
        }
        listeners.push(listener);
    }
    Ok(Some(Inherited { listeners, old: Old(stream) }))
}

/// Receives one socket and what it is for; `None` at the end of the list.
///
/// Each line is acknowledged by one byte, so that a message is never read together with the next.
fn receive(mut stream: &UnixStream) -> io::Result<Option<Listener>> {
    let mut line = [0; LINE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut line)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if received.bytes == 0 {
        return Err(bad("the old program ended the handover"));
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(bad("a descriptor did not arrive: the limit of open files is reached"));
    }
    let text = std::str::from_utf8(&line[..received.bytes]).map_err(|_| bad("a line that is not text"))?;
    stream.write_all(b".")?;
    if text.trim_end() == END {
        return Ok(None);
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (place_of(text), socket) {
        (Some(place), Some(socket)) => Ok(Some(Listener { place, socket: TcpListener::from(socket) })),
        (None, _) | (_, None) => Err(bad("not a gateway's handover")),
    }
}

/// What a line of the handover says a socket is for.
fn place_of(line: &str) -> Option<Place> {
    let (purpose, address) = line.trim_end().split_once(' ')?;
    Some(Place { purpose: Purpose::of(purpose)?, address: address.parse().ok()? })
}

/// Gives `listeners` to the program that asks at `path`, each time one does; returns when one has said that it serves.
///
/// # Errors
/// The path cannot be used.
pub(crate) async fn offer(path: &Path, listeners: impl Fn() -> Vec<Listener>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let door = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    door.set_nonblocking(true)?;
    let door = tokio::net::UnixListener::from_std(door)?;
    loop {
        let (stream, _) = door.accept().await?;
        let (stream, sockets) = (stream.into_std()?, listeners());
        let given = tokio::task::spawn_blocking(move || give(&stream, &sockets)).await;
        match given {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the next program did not take over; this one goes on");
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn give(mut stream: &UnixStream, listeners: &[Listener]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut acknowledged = [0; 1];
    for listener in listeners {
        let line = format!("{} {}\n", listener.place.purpose.word(), listener.place.address);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [listener.socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        stream.read_exact(&mut acknowledged)?;
    }
    stream.write_all(format!("{END}\n").as_bytes())?;
    stream.read_exact(&mut acknowledged)?;
    let mut word = [0; SERVING.len()];
    stream.read_exact(&mut word)?;
    if word == SERVING { Ok(()) } else { Err(io::Error::other("it did not say that it serves")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn sockets() -> Vec<Listener> {
        let place = Place { purpose: Purpose::Https, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        super::super::open(place, 2, Vec::new()).expect("a port")
    }

    #[tokio::test]
    async fn sockets_go_from_one_program_to_the_next_and_one_that_fails_costs_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("handover");
        let held = sockets();
        let place = held[0].place;
        let offered = {
            let path = path.clone();
            tokio::spawn(async move {
                offer(&path, || held.iter().map(|it| it.share().expect("a descriptor")).collect()).await
            })
        };
        let take = |relieve: bool| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || {
                let taken = loop {
                    if let Some(taken) = take_over(&path).expect("a handover") {
                        break taken;
                    }
                    std::thread::yield_now();
                };
                let places: Vec<Place> = taken.listeners.iter().map(|it| it.place).collect();
                if relieve {
                    taken.old.relieve().expect("told");
                }
                places
            })
        };
        assert_eq!(take(false).await.expect("joined"), vec![place; 2], "it goes away untold");
        assert!(!offered.is_finished());
        assert_eq!(take(true).await.expect("joined"), vec![place; 2]);
        offered.await.expect("joined").expect("relieved");
    }

    proptest! {
        /// What is no line of ours is none, and what is says what it said.
        #[test]
        fn a_line_is_read_as_it_was_written_or_not_at_all(line in "(http|https|tcp|end| )?[ -~]{0,60}\n?") {
            if let Some(place) = place_of(&line) {
                let again = format!("{} {}\n", place.purpose.word(), place.address);
                prop_assert_eq!(place_of(&again), Some(place));
                prop_assert!(line.trim_start().starts_with(place.purpose.word()));
            }
        }
    }

    #[test]
    fn what_offers_and_is_no_gateway_is_an_error_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        for (index, words) in
            [&b"http nonsense\n"[..], b"http 127.0.0.1:80\n", b"\xff\xfe\n", b"", &[b'x'; 4096]]
                .into_iter()
                .enumerate()
        {
            let path = folder.path().join(format!("handover-{index}"));
            let door = UnixListener::bind(&path).expect("a door");
            let other = std::thread::spawn(move || {
                let (mut stream, _) = door.accept().expect("somebody");
                // It may be gone by then.
                let _ = stream.write_all(words);
            });
            assert!(take_over(&path).is_err(), "{words:?}");
            other.join().expect("no panic");
        }
    }

    #[test]
    fn where_nobody_offers_nothing_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(take_over(&folder.path().join("handover")).expect("no error").is_none());
    }
}
