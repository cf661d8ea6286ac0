//! What `/proc` says of processes: identity, descendants, marks.

use crate::shim::protocol::Identity;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// Processes looked at below one shim; a fork bomb is the kernel's to bound, not ours to list.
const DESCENDANTS_MAX: usize = 65_536;

/// Between two looks whether a process has ended.
const END_LOOK: Duration = Duration::from_millis(5);

/// A process held so that its id cannot come to mean another.
#[derive(Debug)]
pub(super) struct Held {
    pidfd: OwnedFd,
}

impl Held {
    /// Holds whatever process has this id now; the caller then reads what proves it, and only then signals.
    pub(super) fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Self { pidfd })
    }

    /// Holds the process with this identity, if it lives (and does not only wait to be reaped): opened first, then
    /// compared, so that the descriptor and the start time are of the same process.
    pub(super) fn prove(identity: Identity) -> Option<Self> {
        let held = Self::open(identity.pid)?;
        let stat = stat(identity.pid)?;
        (stat.start == identity.start && identity.start != 0 && !stat.has_ended()).then_some(held)
    }

    /// Whether the process with this identity ends within this time, or has ended.
    pub(super) async fn ends_within(identity: Identity, within: Duration) -> bool {
        let ended = async {
            while Self::prove(identity).is_some() {
                tokio::time::sleep(END_LOOK).await;
            }
        };
        tokio::time::timeout(within, ended).await.is_ok()
    }

    /// The descriptor that holds it.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills it, and no other.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Some fields of proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `Z`, ...
    pub(super) state: u8,
    pub(super) session: u32,
    /// Clock ticks after boot.
    pub(super) start: u64,
}

impl Stat {
    /// It is gone but for its parent's taking note.
    pub(super) fn has_ended(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads `/proc/<pid>/stat`.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name (field 2) may hold anything, also spaces and `)`; the last `)` ends it.
    let end = text.iter().rposition(|b| *b == b')')?;
    let words: Vec<&str> = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace().collect();
    Some(Stat {
        state: *words.first()?.as_bytes().first()?,
        session: words.get(3)?.parse().ok()?,
        start: words.get(19)?.parse().ok()?,
    })
}

/// The kernel's boot id, as 16 bytes.
///
/// # Errors
/// `/proc` is not there.
pub(super) fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16)
        .map(u128::to_be_bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Every process id of this machine.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn all() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The marks of runs in the environment that the process was started with (and has not overwritten).
pub(super) fn marks(pid: u32) -> Vec<[u8; 16]> {
    let prefix = crate::shim::config::MARK_PREFIX.as_bytes();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mark = |entry: &[u8]| {
        let digits = std::str::from_utf8(entry.strip_prefix(prefix)?).ok().filter(|it| it.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
    };
    environment.split(|byte| *byte == 0).filter_map(mark).collect()
}

/// Sixteen bytes as 32 digits.
pub(super) fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

/// All processes below `pid`, without itself, by the kernel's lists of children.
///
/// # Errors
/// `/proc` cannot be read. A process that ends meanwhile is no error.
pub fn descendants(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for task in tasks.filter_map(Result::ok) {
            let children = read_pids(&task.path().join("children"))?;
            found.extend(&children);
            next.extend(children);
        }
        if found.len() > DESCENDANTS_MAX {
            break;
        }
    }
    Ok(found)
}

/// A file of process ids; none where it is gone.
pub(super) fn read_pids(path: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()),
        // ESRCH, ENODEV: it ended while it was read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || matches!(error.raw_os_error(), Some(3 | 19)) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_the_fields() {
        let text = b"42 (a) R 9 (b)) S 1 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 10";
        assert_eq!(parse_stat(text), Some(Stat { state: b'S', session: 40, start: 777 }));
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b"42 (a) S 1"), None);
    }

    #[test]
    fn a_process_with_another_start_time_is_not_proven() {
        let pid = std::process::id();
        let start = stat(pid).unwrap().start;
        assert!(Held::prove(Identity { pid, start }).is_some());
        assert!(Held::prove(Identity { pid, start: start + 1 }).is_none());
        assert!(Held::prove(Identity { pid: 0, start: 0 }).is_none());
    }
}
