//! What a shim asks the kernel: when a process started, which boot this is, what its children are, random bits.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::io;

/// Children of the shim looked at in one round of killing; more are taken in the next.
const CHILDREN_BYTES: usize = 16 << 10;
/// From a sender up to its shim, at most; a deeper process is not taken for one of ours.
const GENERATIONS_MAX: u32 = 64;
/// Children of one process looked at when a tree is killed; what is left is killed when it is inherited.
const TREE_BYTES: usize = 1 << 10;

/// Calls `act` with every child by now.
pub(super) fn each_child(mut act: impl FnMut(libc::pid_t)) {
    let mut text = [0; CHILDREN_BYTES];
    let len = read_whole(c"/proc/thread-self/children", &mut text);
    for word in text[..len].split(|b| *b == b' ') {
        if let Some(pid) = parse_decimal(word).filter(|pid| *pid > 1) {
            act(pid as libc::pid_t);
        }
    }
}

/// Whether `pid` is below `ancestor`. Orphans below a shim become its children, so a chain of parents never leaves it.
pub(super) fn descends(pid: u32, ancestor: u32) -> bool {
    let mut pid = pid;
    for _ in 0..GENERATIONS_MAX {
        if pid == ancestor {
            return true;
        }
        if pid <= 1 {
            return false;
        }
        pid = field_of(pid, 1) as u32;
    }
    false
}

/// Kills what is below `pid`, then `pid` itself, as far as the lists of children tell.
pub(super) fn kill_below(pid: u32, generations: u32) {
    use io::Write;
    let (mut path, mut text) = ([0; 64], [0; TREE_BYTES]);
    // 26 bytes and at most 20 digits fit, and a NUL is left.
    let _ = write!(&mut path[..63], "/proc/{pid}/task/{pid}/children");
    let len = CStr::from_bytes_until_nul(&path).map_or(0, |path| read_whole(path, &mut text));
    if generations > 0 {
        for child in text[..len].split(|b| *b == b' ').filter_map(parse_decimal) {
            kill_below(child as u32, generations - 1);
        }
    }
    // SAFETY: no memory is involved. The caller's process is not reaped yet, and what is below it hangs on it.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

/// When this process started, in clock ticks after boot (field 22 of proc_pid_stat(5)).
pub(super) fn own_start_time() -> u64 {
    field_in(c"/proc/self/stat", 19)
}

/// When a child started; 0 if that cannot be read.
pub(super) fn start_time(pid: u32) -> u64 {
    field_of(pid, 19)
}

/// A field of `/proc/<pid>/stat`, counted from the state (field 3) as 0; 0 if that cannot be read.
fn field_of(pid: u32, field: usize) -> u64 {
    use io::Write;
    let mut path = [0; 32];
    // 11 bytes and at most 10 digits fit, and a NUL is left.
    let _ = write!(&mut path[..31], "/proc/{pid}/stat");
    CStr::from_bytes_until_nul(&path).map_or(0, |path| field_in(path, field))
}

fn field_in(path: &CStr, field: usize) -> u64 {
    let mut text = [0; 1024];
    let len = read_whole(path, &mut text);
    // The name (field 2) may hold anything, also spaces and `)`; the last `)` ends it.
    let Some(end) = text[..len].iter().rposition(|b| *b == b')') else { return 0 };
    text[end + 1..len]
        .split(|b| *b == b' ')
        .filter(|w| !w.is_empty())
        .nth(field)
        .and_then(parse_decimal)
        .unwrap_or(0)
}

/// The kernel's boot id.
pub(super) fn boot_id() -> [u8; 16] {
    let mut text = [0; 64];
    let len = read_whole(c"/proc/sys/kernel/random/boot_id", &mut text);
    let mut id = [0; 16];
    let digits = text[..len].iter().filter_map(|b| char::from(*b).to_digit(16));
    for (place, digit) in digits.enumerate().take(32) {
        id[place / 2] = id[place / 2] << 4 | digit as u8;
    }
    id
}

/// Random bits for jitter; without entropy the boot clock does.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the pointer and length are of one array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if got == 8 {
        u64::from_ne_bytes(bytes)
    } else {
        super::clock::boot_ms().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

fn read_whole(path: &CStr, buffer: &mut [u8]) -> usize {
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return 0 };
    let mut len = 0;
    while let Ok(n) = rustix::io::read(&file, &mut buffer[len..]) {
        if n == 0 {
            break;
        }
        len += n;
    }
    len
}

fn parse_decimal(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        assert!(own_start_time() > 0);
        assert_eq!(start_time(std::process::id()), own_start_time());
        assert_ne!(boot_id(), [0; 16]);
        assert!(descends(std::process::id(), std::os::unix::process::parent_id()));
        assert!(!descends(std::os::unix::process::parent_id(), std::process::id()));
    }
}
