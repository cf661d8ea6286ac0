//! What a shim asks the kernel: when a process started, which boot this is, what its children are, random bits.

use rustix::fs::{Mode, OFlags};
use std::ffi::CStr;
use std::io;

/// Children of the shim looked at in one round of killing; more are taken in the next.
const CHILDREN_BYTES: usize = 16 << 10;

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

/// When this process started, in clock ticks after boot (field 22 of proc_pid_stat(5)).
pub(super) fn own_start_time() -> u64 {
    start_time_in(c"/proc/self/stat")
}

/// When a child started; 0 if that cannot be read.
pub(super) fn start_time(pid: u32) -> u64 {
    use io::Write;
    let mut path = [0; 32];
    // 11 bytes and at most 10 digits fit, and a NUL is left.
    let _ = write!(&mut path[..31], "/proc/{pid}/stat");
    CStr::from_bytes_until_nul(&path).map_or(0, start_time_in)
}

fn start_time_in(path: &CStr) -> u64 {
    let mut text = [0; 1024];
    let len = read_whole(path, &mut text);
    // The name (field 2) may hold anything, also spaces and `)`; the last `)` ends it.
    let Some(end) = text[..len].iter().rposition(|b| *b == b')') else { return 0 };
    text[end + 1..len]
        .split(|b| *b == b' ')
        .filter(|w| !w.is_empty())
        .nth(19)
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
    }
}
