//! What a field is when a person leaves it out. `docs/service-file.md` lists the same values, held by a test.

use crate::configuration::OnChange;
use crate::rollout::{OnFailure, Strategy};
use crate::spec::{Amount, Count, RestartMode, StopSignal};
use crate::time::Millis;

pub(super) const CHECK_INTERVAL: Millis = Millis::secs(2);
pub(super) const CHECK_TIMEOUT: Millis = Millis::secs(1);
pub(super) const CHECK_RISE: u32 = 1;
pub(super) const CHECK_FALL: u32 = 3;
/// A startup check fails only after 60 s of trying: it is there for slow starters.
pub(super) const STARTUP_FALL: u32 = 30;
pub(super) const HTTP_PATH: &str = "/";

pub(super) const STOP_SIGNAL: StopSignal = StopSignal::Sigterm;
pub(super) const STOP_TIMEOUT: Millis = Millis::secs(30);
pub(super) const STOP_DRAIN: Millis = Millis::secs(5);

pub(super) const RESTART_MODE: RestartMode = RestartMode::Always;
/// A job that failed is not repeated unasked: it may have done half of its work.
pub(super) const ONE_SHOT_RESTART_MODE: RestartMode = RestartMode::Never;
pub(super) const RESTART_BASE: Millis = Millis(100);
pub(super) const RESTART_MAX: Millis = Millis::secs(30);
pub(super) const RESTART_RESET_AFTER: Millis = Millis::secs(60);
pub(super) const CRASH_LOOP_AFTER: u32 = 5;

/// As systemd's `DefaultTimeoutStartSec`.
pub(super) const NOTIFY_TIMEOUT: Millis = Millis::secs(90);
pub(super) const RELOAD_TIMEOUT: Millis = Millis::secs(30);
pub(super) const HOOK_TIMEOUT: Millis = Millis::secs(30);

pub(super) const COUNT: Count = Count::Replicas(1);
pub(super) const LOST_AFTER: Millis = Millis::secs(30);

pub(super) const STRATEGY: Strategy = Strategy::Rolling;
pub(super) const BATCH: Amount = Amount::Number(1);
pub(super) const FIRST_ZONE_BAKE: Millis = Millis::ZERO;
pub(super) const MIN_HEALTHY: Millis = Millis::secs(10);
pub(super) const HEALTHY_DEADLINE: Millis = Millis::secs(300);
pub(super) const PROGRESS_DEADLINE: Millis = Millis::secs(600);
pub(super) const FAILURE_TOLERANCE: Amount = Amount::Number(0);
pub(super) const ON_FAILURE: OnFailure = OnFailure::RollBack;

pub(super) const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;
pub(super) const LOG_KEEP: u32 = 10;
pub(super) const LOG_JOURNALD: bool = false;

/// Every program understands a restart.
pub(super) const ON_CHANGE: OnChange = OnChange::Restart;

/// As many as are swapped at a time; a share of a known number becomes that number, at least one, so that a
/// small service is not stuck at a share rounded down to none.
pub(super) fn max_unavailable(count: Count, batch: Amount) -> Amount {
    match count {
        Count::Replicas(replicas) => Amount::Number(batch.floor_of(replicas).max(1)),
        Count::PerNode => batch,
    }
}

/// All but those that may be unavailable. With one instance per node and a plain number the whole is not known,
/// so there is no floor of its own, and `max_unavailable` alone is the bound.
pub(super) fn min_available(count: Count, max_unavailable: Amount) -> Amount {
    match (count, max_unavailable) {
        (Count::Replicas(replicas), out) => Amount::Number(replicas - out.floor_of(replicas)),
        (Count::PerNode, Amount::Percent(out)) => Amount::Percent(100_u32.saturating_sub(out)),
        (Count::PerNode, Amount::Number(_)) => Amount::Number(0),
    }
}

/// Permission bits of a Unix socket: the workload's user and group may connect.
pub(super) const SOCKET_MODE: u32 = 0o660;
