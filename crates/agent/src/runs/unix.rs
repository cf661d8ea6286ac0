//! Unix stream sockets in the file system: bound beside their public path, published, turned, and removed.
//!
//! connect(2) finds a socket by its file, so what rename(2) does in one step moves all new connections in one step:
//! a client that looked the path up before still reaches the old socket, one that looks after it the new one, and
//! none ever finds nothing.

use super::place::UnixPlace;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The folder of a public path, where it has to be made.
const FOLDER_MODE: u32 = 0o755;

/// Who has a public path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody: there is nothing, or a socket on which nobody listens any more.
    Nobody,
    /// Somebody listens.
    Listener,
    /// It is no socket at all.
    OtherFile,
}

/// Who has it now. A stream socket on which somebody listens sees a connection that ends at once.
pub(super) fn holder(path: &Path) -> io::Result<Holder> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => return Ok(Holder::OtherFile),
        Ok(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(Holder::Nobody),
        // A full queue, a datagram socket, or one that we may not use: somebody has it.
        Ok(()) | Err(_) => Ok(Holder::Listener),
    }
}

/// A socket bound to the run's own name, not listening yet.
pub(super) fn bind(place: &UnixPlace) -> io::Result<OwnedFd> {
    if let Some(folder) = place.path.parent() {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    // Left by a start of this same run that its agent did not live to end.
    remove_file(&place.own)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&place.own)?)?;
    fs::set_permissions(&place.own, fs::Permissions::from_mode(place.mode))?;
    if let Some((user, group)) = place.owner {
        std::os::unix::fs::lchown(&place.own, Some(user), Some(group))?;
    }
    Ok(socket)
}

/// Whether the public path leads to this run's socket.
pub(super) fn leads_to(place: &UnixPlace) -> io::Result<bool> {
    let identity = |path: &Path| match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some((found.st_dev, found.st_ino, FileType::from_raw_mode(found.st_mode)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(io::Error::from(error)),
    };
    let own = identity(&place.own)?;
    Ok(own.is_some() && own == identity(&place.path)?)
}

/// Makes the public path lead to this run's socket, in one step. Idempotent.
pub(super) fn publish(place: &UnixPlace) -> io::Result<()> {
    // rename(2) does nothing where both names are the same file, and would leave the first.
    if leads_to(place)? {
        return Ok(());
    }
    let mut staged = place.own.clone().into_os_string();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    remove_file(&staged)?;
    fs::hard_link(&place.own, &staged)?;
    fs::rename(&staged, &place.path)
}

/// Removes the run's own name and, where it leads there, the public path. What is not there any more is as good.
pub(super) fn remove(place: &UnixPlace) -> io::Result<()> {
    if leads_to(place)? {
        remove_file(&place.path)?;
    }
    remove_file(&place.own)
}

/// The name that a socket was bound to.
pub(super) fn name(socket: &OwnedFd) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    address.path().map(|path| PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// Removes names of earlier runs of the instance that nobody removed, since their agent had died: all that begin as
/// `place.own` does, up to the number of the run, less `keep`.
pub(super) fn sweep(place: &UnixPlace, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
    let (Some(folder), Some(own)) = (place.own.parent(), place.own.to_str()) else { return Ok(()) };
    let Some((instance, _)) = own.rsplit_once('-') else { return Ok(()) };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let run = path.to_str().and_then(|path| path.strip_prefix(instance)?.strip_prefix('-'));
        let is_run = run.is_some_and(|run| run.trim_end_matches(".new").parse::<u64>().is_ok());
        if is_run && path != place.own && !keep.contains(&path) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether connections wait to be accepted (one stands for any number, which the kernel does not tell); `None` when it
/// does not listen any more.
pub(super) fn accept_queue(socket: &OwnedFd) -> Option<u32> {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
    let found = polled[0].revents();
    let listens = rustix::net::sockopt::socket_acceptconn(socket.as_fd()).unwrap_or(false);
    (listens && !found.contains(PollFlags::HUP)).then(|| u32::from(found.contains(PollFlags::IN)))
}

/// Inodes of accepted connections of the socket that is bound to this name.
pub(super) fn connections(own: &Path) -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for line in BufReader::with_capacity(64 << 10, File::open("/proc/self/net/unix")?).lines().skip(1) {
        inodes.extend(connection_in(&line?, own));
    }
    Ok(inodes)
}

/// The inode in a row of `/proc/net/unix`, where it is a connection that was accepted under this name.
fn connection_in(row: &str, own: &Path) -> Option<u64> {
    const CONNECTED: &str = "03"; // SS_CONNECTED of linux/net.h
    let mut words = row.split_ascii_whitespace().skip(5);
    let (state, inode, path) = (words.next()?, words.next()?, words.next()?);
    (state == CONNECTED && Path::new(path) == own).then(|| inode.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn place(folder: &Path, run: u64) -> UnixPlace {
        let path = folder.join("below/web.sock");
        let own = folder.join(format!("below/web.sock.web.1-{run}"));
        UnixPlace { path, own, mode: 0o600, owner: None }
    }

    fn listening(place: &UnixPlace) -> OwnedFd {
        let socket = bind(place).unwrap();
        rustix::net::listen(&socket, 16).unwrap();
        socket
    }

    #[test]
    fn a_path_is_turned_and_turned_back_without_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (place(folder.path(), 1), place(folder.path(), 2));
        let (old_socket, new_socket) = (listening(&old), listening(&new));
        publish(&old).unwrap();
        publish(&old).unwrap();
        let mode = fs::metadata(&old.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let waiting = || (accept_queue(&old_socket), accept_queue(&new_socket));
        assert_eq!(waiting(), (Some(0), Some(0)));
        assert_eq!(name(&old_socket).as_ref(), Some(&old.own));
        let _first = UnixStream::connect(&old.path).unwrap();
        assert_eq!(waiting(), (Some(1), Some(0)));
        publish(&new).unwrap();
        let _second = UnixStream::connect(&old.path).unwrap();
        assert_eq!(waiting(), (Some(1), Some(1)));
        assert!(leads_to(&new).unwrap() && !leads_to(&old).unwrap());
        publish(&old).unwrap();
        assert!(leads_to(&old).unwrap());
        remove(&new).unwrap();
        assert!(leads_to(&old).unwrap() && !new.own.exists());
        remove(&old).unwrap();
        assert_eq!(fs::read_dir(old.path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_path_that_nobody_has_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Listener);
        drop(listener);
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::OtherFile);
    }

    #[test]
    fn what_earlier_runs_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let places: Vec<_> = (1..=4).map(|run| place(folder.path(), run)).collect();
        let _sockets: Vec<_> = places.iter().map(listening).collect();
        let bystander = folder.path().join("below/web.sock.web.1-old");
        fs::write(&bystander, "").unwrap();
        sweep(&places[3], &BTreeSet::from([places[1].own.clone()])).unwrap();
        let left: Vec<bool> = places.iter().map(|place| place.own.exists()).collect();
        assert_eq!(left, [false, true, false, true]);
        assert!(bystander.exists());
    }

    #[test]
    fn accepted_connections_are_told_by_the_name_of_their_run() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), 1);
        let socket = listening(&place);
        publish(&place).unwrap();
        let _client = UnixStream::connect(&place.path).unwrap();
        assert!(connections(&place.own).unwrap().is_empty());
        let server = rustix::net::accept(&socket).unwrap();
        let inode = rustix::fs::fstat(&server).unwrap().st_ino;
        assert_eq!(connections(&place.own).unwrap(), BTreeSet::from([inode]));
        rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).unwrap();
        assert_eq!(accept_queue(&socket), None);
    }
}
