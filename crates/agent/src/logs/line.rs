//! One line of a log file, in the format of the Kubernetes CRI: `<RFC 3339 time> <stdout|stderr> <F|P> <text>`.

/// A divided line is put together up to this length; what goes beyond comes as a line of its own.
const JOINED_MAX: usize = 256 * 1024;

/// A line as the workload wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// When its end was read, Unix milliseconds by the node's wall clock.
    pub(super) at_ms: u64,
    pub(super) stderr: bool,
    pub(super) text: Vec<u8>,
}

/// Puts divided lines together, each stream for itself.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Joiner {
    /// Whether parts of a line wait for its end.
    pub(super) fn is_dividing(&self) -> bool {
        !self.stdout.is_empty() || !self.stderr.is_empty()
    }

    /// Takes one line of the file, without its newline. What is not in the format is passed over: it was cut by a
    /// full disk or a crash.
    pub(super) fn take(&mut self, raw: &[u8]) -> Option<Line> {
        let mut parts = raw.splitn(4, |byte| *byte == b' ');
        let at_ms = parse_time(parts.next()?)?;
        let stderr = match parts.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let whole = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        let part = parts.next().unwrap_or_default();
        let begun = if stderr { &mut self.stderr } else { &mut self.stdout };
        begun.extend_from_slice(part);
        if !whole && begun.len() < JOINED_MAX {
            return None;
        }
        Some(Line { at_ms, stderr, text: std::mem::take(begun) })
    }
}

/// `2026-11-21T09:00:00.123456789Z` as Unix milliseconds; any number of decimals, UTC only, as the shims write it.
fn parse_time(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from the civil calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (y / 400, y % 400);
    let of_year = (153 * m + 2) / 5 + day - 1;
    let days = (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)?;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000 + millis.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_milliseconds() {
        for (text, expect) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56.789Z", Some(951_827_696_789)),
            ("2026-11-21T09:00:00.123456789Z", Some(1_795_251_600_123)),
            ("2026-11-21T09:00:00.5Z", Some(1_795_251_600_500)),
            ("2026-11-21T09:00:00+01:00", None),
            ("2026-13-21T09:00:00Z", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expect, "{text}");
        }
    }

    #[test]
    fn divided_lines_are_joined_per_stream_and_noise_is_passed_over() {
        let mut joiner = Joiner::default();
        let mut take = |text: &str| joiner.take(text.as_bytes()).map(|line| (line.stderr, line.text));
        assert_eq!(take("1970-01-01T00:00:00Z stdout P one "), None);
        assert_eq!(take("1970-01-01T00:00:00Z stderr F bad"), Some((true, b"bad".to_vec())));
        assert_eq!(
            take("1970-01-01T00:00:00Z stdout F two  words"),
            Some((false, b"one two  words".to_vec()))
        );
        assert_eq!(take("1970-01-01T00:00:00Z stdout F "), Some((false, Vec::new())));
        assert_eq!(take("1970-01-01T00:00:00Z stdout F"), Some((false, Vec::new())));
        for noise in ["", "x", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z stdin F x", "half a li"] {
            assert_eq!(take(noise), None, "{noise}");
        }
    }
}
