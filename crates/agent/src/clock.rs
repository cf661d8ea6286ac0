//! The node's two clocks. Everything below [`crate::app`] that decides gets `now` as an argument.

use baton_model::time::BootMs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since boot, suspend included; never stepped.
#[must_use]
pub(crate) fn boot_now() -> BootMs {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    BootMs(secs * 1000 + nanos / 1_000_000)
}

/// Wall time as Unix milliseconds; it may step, so nothing is decided by it.
#[must_use]
pub(crate) fn wall_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The kernel's boot id: the same until the machine restarts.
///
/// # Errors
/// When procfs is not mounted.
pub(crate) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
