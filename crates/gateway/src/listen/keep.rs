//! Listening sockets that outlive a crash. The service manager keeps a descriptor of each (`FDSTORE=1`, sd_notify(3)) and gives
//! them to the process that it starts in the place of one that died. Connections that come in between wait in the kernel's
//! queue; without this they would be refused.
//!
//! Who ends on purpose, or cannot begin, takes them back first: where nobody will answer, nobody should wait. Without a service
//! manager that keeps descriptors (`FileDescriptorStoreMax=`) nothing of this happens.

use super::{Listener, Place, Purpose};
use listenfd::ListenFd;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;

/// Has the service manager keep sockets. Those that it has already it knows.
pub(crate) fn keep(sockets: &[Listener]) {
    for socket in sockets {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [socket.socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        tell(&format!("FDSTORE=1\nFDNAME={}", name(socket.place)), &mut control);
    }
}

/// Has it keep the sockets of a place no longer.
pub(crate) fn forget(place: Place) {
    take_back(&name(place));
}

/// Has it keep nothing of what it gave to this process.
pub(crate) fn forget_all() {
    let mut names = names();
    names.sort_unstable();
    names.dedup();
    names.iter().for_each(|name| take_back(name));
}

/// The sockets that the service manager kept for this process, of one that died.
pub(crate) fn kept() -> Vec<Listener> {
    let mut given = ListenFd::from_env();
    let names = names();
    let mut listeners = Vec::new();
    for (index, name) in names.iter().enumerate().take(given.len()) {
        let purpose = name.split_once('-').and_then(|(word, _)| Purpose::of(word));
        // Also what is not ours is taken, and closed: nobody would ever accept from it.
        let socket = given.take_tcp_listener(index).ok().flatten();
        let (Some(purpose), Some(socket)) = (purpose, socket) else { continue };
        if let Ok(address) = socket.local_addr() {
            listeners.push(Listener { place: Place { purpose, address }, socket });
        }
    }
    listeners
}

/// What the sockets of a place are kept as: `tcp-9000`. A name may not have a colon, which addresses have.
fn name(place: Place) -> String {
    format!("{}-{}", place.purpose.word(), place.address.port())
}

fn names() -> Vec<String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    names.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn take_back(name: &str) {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &mut SendAncillaryBuffer::default());
}

fn tell(text: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = (|| {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        rustix::net::sendmsg(&socket, &[IoSlice::new(text.as_bytes())], control, SendFlags::NOSIGNAL)?;
        io::Result::Ok(())
    })();
    if let Err(error) = told {
        tracing::debug!(%error, "the service manager could not be told of a socket");
    }
}
