//! How figures are written for people: lengths of time, sizes, shares, and tables.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_two_units_at_most() {
        let cases = [(0, "0ms"), (850, "850ms"), (4_250, "4.2s"), (125_000, "2m05s"), (11_520_000, "3h12m"), (446_400_000, "5d4h")];
        for (ms, text) in cases {
            assert_eq!(length(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn sizes_take_one_decimal() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (12 << 20, "12.0 MiB"), (u64::MAX, "16384.0 PiB")];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }
}
