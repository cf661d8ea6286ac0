//! Moments as one number, so that they fit into an atomic.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since about the start of the process; 0 is long ago.
pub(crate) type Tick = u64;

/// Makes 0 long ago: a process is never so young that something could not have been before it.
const BEFORE: Duration = Duration::from_secs(86_400);

/// The tick of a moment.
pub(crate) fn tick(now: Instant) -> Tick {
    micros(BEFORE + now.saturating_duration_since(*START))
}

/// The ticks of a length of time.
pub(crate) fn micros(length: Duration) -> Tick {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
