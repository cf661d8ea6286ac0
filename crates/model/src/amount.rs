//! Numbers and shares.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A number or a share of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Amount {
    /// An absolute number.
    Number(u32),
    /// Percent of the whole, 0 to 100.
    Percent(u32),
}

impl Amount {
    /// Of `whole`, rounded down: for what may be out of service.
    #[must_use]
    pub fn floor_of(self, whole: u32) -> u32 {
        match self {
            Self::Number(n) => n.min(whole),
            Self::Percent(p) => {
                u32::try_from(u64::from(whole) * u64::from(p) / 100).unwrap_or(whole).min(whole)
            }
        }
    }

    /// Of `whole`, rounded up: for what must stay in service.
    #[must_use]
    pub fn ceil_of(self, whole: u32) -> u32 {
        match self {
            Self::Number(n) => n.min(whole),
            Self::Percent(p) => {
                u32::try_from((u64::from(whole) * u64::from(p)).div_ceil(100)).unwrap_or(whole).min(whole)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}
