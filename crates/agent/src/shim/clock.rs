//! Time for a shim: `CLOCK_BOOTTIME` for delays, wall time for log lines.

use rustix::time::{ClockId, clock_gettime};

/// Length of a [`stamp`].
pub(super) const STAMP_BYTES: usize = 30;

/// Milliseconds since boot, suspend included.
pub(super) fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Microseconds on `CLOCK_MONOTONIC`, as workloads tell theirs (`MONOTONIC_USEC` of sd_notify(3)).
pub(super) fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Wall time as RFC 3339 in UTC with nanoseconds: `2026-01-31T23:59:59.123456789Z`.
pub(super) fn stamp() -> [u8; STAMP_BYTES] {
    let now = clock_gettime(ClockId::Realtime);
    format_stamp(now.tv_sec, now.tv_nsec)
}

fn format_stamp(seconds: i64, nanoseconds: i64) -> [u8; STAMP_BYTES] {
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut out = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], second_of_day / 3600);
    digits(&mut out[14..16], second_of_day / 60 % 60);
    digits(&mut out[17..19], second_of_day % 60);
    digits(&mut out[20..29], nanoseconds);
    out
}

/// Year, month and day of a day counted from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Writes `value` in decimal with leading zeros.
fn digits(out: &mut [u8], mut value: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rfc_3339() {
        let check = |seconds, text: &str| assert_eq!(format_stamp(seconds, 7), text.as_bytes());
        check(0, "1970-01-01T00:00:00.000000007Z");
        check(951_782_399, "2000-02-28T23:59:59.000000007Z");
        check(951_782_400, "2000-02-29T00:00:00.000000007Z");
        check(1_735_689_599, "2024-12-31T23:59:59.000000007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.000000007Z");
    }
}
