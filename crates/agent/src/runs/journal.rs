//! The system's journal as a place for a workload's lines: whether it is there, and what is said of each line.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where journald listens for its own protocol (systemd-journald.service(8)).
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Where a run's lines go besides its log files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalOutput {
    /// journald's socket.
    pub socket: PathBuf,
    /// Fields of each line, the same for all of them; names as journald takes them (capitals, digits, `_`).
    pub fields: Vec<(&'static str, String)>,
}

impl JournalOutput {
    /// The fields as they travel (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>): a value with a newline has its
    /// length before it.
    pub(super) fn encoded_fields(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in &self.fields {
            out.extend(name.as_bytes());
            if value.contains('\n') {
                out.push(b'\n');
                out.extend((value.len() as u64).to_le_bytes());
            } else {
                out.push(b'=');
            }
            out.extend(value.as_bytes());
            out.push(b'\n');
        }
        out
    }
}

/// Whether a journal can be reached there.
///
/// # Errors
/// Why not.
pub(super) fn reach(socket: &Path) -> io::Result<()> {
    let address = SocketAddrUnix::new(socket.as_os_str().as_bytes())?;
    let own = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::connect(&own, &address)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_newline_has_its_length_before_it() {
        let fields = vec![("BATON_SERVICE", "web".to_owned()), ("BATON_VERSION", "a\nb".to_owned())];
        let output = JournalOutput { socket: JOURNAL_SOCKET.into(), fields };
        assert_eq!(output.encoded_fields(), b"BATON_SERVICE=web\nBATON_VERSION\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn a_journal_is_there_or_the_system_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(reach(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        reach(&path).unwrap();
        drop(socket);
        assert_eq!(reach(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
