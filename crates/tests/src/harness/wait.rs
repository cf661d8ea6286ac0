//! Waiting for a fact, with room, and with a word on what was awaited when it does not come.

use std::time::{Duration, Instant};

/// Between two looks. Facts of other processes can't be awaited, only looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` gives something, and returns it.
///
/// # Panics
/// When nothing came within `room`; names `what` was awaited and says what `last` saw.
pub fn until<T>(what: &str, room: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if begun.elapsed() > room => panic!("no {what} within {room:?}; last seen: {last}"),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Whether a process of this id exists and is not a zombie.
#[must_use]
pub fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
