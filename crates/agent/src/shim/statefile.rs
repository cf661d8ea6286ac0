//! Who the shim and its workload are, in a small file: what proves that a workload without its shim is ours.
//!
//! One line of fixed length, written with one pwrite(2); the workload's child writes it before it executes
//! anything, so there is no moment in which a workload runs that the file does not know.

use super::protocol::Identity;
use rustix::fs::{Mode, OFlags};
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Its name in the run's directory.
pub(crate) const STATE_FILE: &str = "shim.state";
const LINE_BYTES: usize = 128;

/// The file, open for writing.
pub(super) struct StateFile {
    file: OwnedFd,
    boot: [u8; 16],
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The boot it was written in.
    pub(crate) boot: [u8; 16],
    /// The shim.
    pub(crate) shim: Identity,
    /// The workload; a process id of 0: none.
    pub(crate) workload: Identity,
}

impl StateFile {
    /// Makes or opens the file in the run's directory.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn open(directory: BorrowedFd<'_>, boot: [u8; 16]) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(directory, STATE_FILE, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { file: super::descriptor::move_up(file)?, boot })
    }

    /// Writes who runs. A failure (disk full on the first write) loses only this proof, not the run.
    pub(super) fn record(&self, shim: Identity, workload: Identity) {
        let mut line = [b' '; LINE_BYTES];
        line[LINE_BYTES - 1] = b'\n';
        let boot = u128::from_be_bytes(self.boot);
        let mut rest = &mut line[..LINE_BYTES - 1];
        // 32 + 2 * (10 + 20) digits and the words between them fit.
        let _ = write!(rest, "1 {boot:032x} {} {} {} {}", shim.pid, shim.start, workload.pid, workload.start);
        let _ = rustix::io::pwrite(&self.file, &line, 0);
    }
}

impl Recorded {
    /// Reads the line.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        if words.next()? != "1" {
            return None;
        }
        let boot = u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
        let mut identity =
            || Some(Identity { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? });
        Some(Self { boot, shim: identity()?, workload: identity()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_last_record_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let file = StateFile::open(directory.as_fd(), [0xA5; 16]).unwrap();
        let (shim, workload) = (Identity { pid: u32::MAX, start: u64::MAX }, Identity { pid: 7, start: 9 });
        file.record(shim, Identity { pid: u32::MAX, start: u64::MAX });
        file.record(shim, workload);
        let text = std::fs::read_to_string(folder.path().join(STATE_FILE)).unwrap();
        assert_eq!(Recorded::parse(&text), Some(Recorded { boot: [0xA5; 16], shim, workload }));
        for bad in ["", "2 00 1 1 1 1", "1 zz 1 1 1 1", "1 00 1 1 1"] {
            assert_eq!(Recorded::parse(bad), None, "{bad}");
        }
    }
}
