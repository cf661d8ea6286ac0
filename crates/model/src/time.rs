//! Times and durations, in milliseconds, each on a named clock.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Milliseconds since the Unix epoch on the coordinator's decision clock.
///
/// The coordinator reads wall time once at start, adds monotonic time to it, and never lets it fall below
/// the latest time it has stored, so that a stepped wall clock neither re-bases nor reverses a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

/// Milliseconds on a node's `CLOCK_BOOTTIME`: it counts suspend, is not stepped, and starts anew at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootMs(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

macro_rules! clock {
    ($clock:ident) => {
        impl $clock {
            /// This time plus `length`, saturating.
            #[must_use]
            pub fn plus(self, length: Millis) -> Self {
                Self(self.0.saturating_add(length.0))
            }
            /// How long after `earlier` this is; zero if it is not after it.
            #[must_use]
            pub fn since(self, earlier: Self) -> Millis {
                Millis(self.0.saturating_sub(earlier.0))
            }
        }
    };
}
clock!(UnixMs);
clock!(BootMs);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A length of whole seconds.
    #[must_use]
    pub const fn secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// The same length as a [`std::time::Duration`].
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Parses what people write: a whole number and one unit of `ms`, `s`, `m` or `h`.
    ///
    /// # Errors
    /// Says what is accepted when `text` is anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => {
                return Err(format!(
                    "`{text}` is not a duration; write a whole number and a unit: \"500ms\", \"10s\", \"5m\" or \"1h\""
                ));
            }
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a duration; write a whole number and a unit: \"500ms\", \"10s\", \"5m\" or \"1h\""))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}
