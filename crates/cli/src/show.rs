//! How figures are written for people: lengths of time, sizes, shares, and tables.

use baton_model::time::UnixMs;
use std::time::Duration;

/// A length of time in at most two units: `850ms`, `4.2s`, `2m05s`, `3h12m`, `5d4h`.
pub(crate) fn length(length: Duration) -> String {
    let ms = length.as_millis();
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{}.{}s", s, ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A size in binary units, with one decimal from KiB up.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its thousands set apart: `12,345`.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A part of a whole: `1.2 GiB of 3.8 GiB`.
pub(crate) fn of(part: u64, whole: u64) -> String {
    format!("{} of {}", bytes(part), bytes(whole))
}

/// A share in percent: 1.0 is `100%`.
pub(crate) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 9.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}

/// The time of day of this host's zone, to the second.
pub(crate) fn clock(at: UnixMs) -> String {
    zoned(at).map_or_else(|| "-".to_owned(), |time| time.strftime("%H:%M:%S").to_string())
}

/// Date and time of day of this host's zone.
pub(crate) fn date(at: UnixMs) -> String {
    zoned(at).map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn zoned(at: UnixMs) -> Option<jiff::Zoned> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    // Tests and hosts without a zone database read UTC.
    let zone = if cfg!(test) { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
    Some(time.to_zoned(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_two_units_at_most() {
        let cases = [
            (0, "0ms"),
            (850, "850ms"),
            (4_250, "4.2s"),
            (125_000, "2m05s"),
            (11_520_000, "3h12m"),
            (446_400_000, "5d4h"),
        ];
        for (ms, text) in cases {
            assert_eq!(length(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(thousands(count), text);
        }
    }

    #[test]
    fn sizes_take_one_decimal() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (12 << 20, "12.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }
}
