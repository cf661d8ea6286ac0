//! What a field is when a person leaves it out. `docs/service-file.md` lists the same values, held by a test.

use crate::configuration::OnChange;
use crate::rollout::{AfterDark, OnFailure};
use crate::route::{HttpProtocol, Key, Weight};
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

pub(super) const ROUTE_PROTOCOL: HttpProtocol = HttpProtocol::Http1;
pub(super) const ROUTE_SPLIT_BY: Key = Key::Address;
/// A gateway stands near its instances: what takes longer to connect is gone or overloaded.
pub(super) const ROUTE_CONNECT: Millis = Millis::secs(1);
pub(super) const ROUTE_RESPONSE: Millis = Millis::secs(30);
pub(super) const ROUTE_IDLE: Millis = Millis::secs(300);
pub(super) const ROUTE_ATTEMPTS: u32 = 2;
pub(super) const ROUTE_RETRY_BUDGET_PERCENT: u32 = 20;
/// A process that is stopped, not dead, still accepts connections: only a second attempt answers within a second.
pub(super) const ROUTE_HEDGE_AFTER: Millis = Millis(500);
pub(super) const ROUTE_BODY_BYTES_MAX: u64 = 100 * 1024 * 1024;
pub(super) const ROUTE_IN_FLIGHT_MAX: u32 = 1024;
pub(super) const ROUTE_QUEUE_MAX: u32 = 1024;
pub(super) const ROUTE_QUEUE_TIMEOUT: Millis = Millis::secs(5);
pub(super) const ROUTE_CHECK_INTERVAL: Millis = Millis::secs(1);
pub(super) const ROUTE_CHECK_TIMEOUT: Millis = Millis(500);
pub(super) const ROUTE_CHECK_RISE: u32 = 1;
pub(super) const ROUTE_CHECK_FALL: u32 = 2;
pub(super) const ROUTE_EJECTION_FAILURES: u32 = 5;
pub(super) const ROUTE_EJECTION_BASE: Millis = Millis::secs(10);
/// Half may be left out: beyond that the fault is more likely everybody's.
pub(super) const ROUTE_EJECTION_SHARE: Weight = Weight(5_000);
pub(super) const ROUTE_SLOW_START: Millis = Millis::secs(10);
pub(super) const ROUTE_ZONE_SPILL_BELOW: Weight = Weight(7_000);

pub(super) const CANARY_STEPS: [Weight; 4] = [Weight(100), Weight(500), Weight(2_500), Weight::ALL];
pub(super) const CANARY_BAKE: Millis = Millis::secs(300);
pub(super) const PREVIEW_HEADER: &str = "baton-preview";
pub(super) const BLUE_GREEN_BAKE: Millis = Millis::secs(60);
pub(super) const KEEP_WARM: Millis = Millis::secs(600);
pub(super) const AB_SHARE: Weight = Weight(5_000);
pub(super) const DARK_SHARE: Weight = Weight(1_000);
pub(super) const DARK_DURATION: Millis = Millis::secs(600);
pub(super) const DARK_BODY_BYTES_MAX: u64 = 64 * 1024;
pub(super) const DARK_IN_FLIGHT_MAX: u32 = 64;
/// Nothing goes live by itself that was never seen to serve.
pub(super) const AFTER_DARK: AfterDark = AfterDark::Wait;
pub(super) const ANALYSIS_WINDOW: Millis = Millis::secs(60);
pub(super) const ANALYSIS_REQUESTS_MIN: u32 = 100;
pub(super) const ANALYSIS_QUANTILE: Weight = Weight(9_900);
