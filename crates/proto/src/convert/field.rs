//! The error of a conversion, and the few ways in which a field is read.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// A message that says what the model cannot hold. Never retryable: the sender has to send something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct WireError {
    /// The field, from the outermost message on: `spec.checks.readiness.timeout_ms`.
    pub path: String,
    /// What is wrong with it and what is accepted.
    pub problem: String,
}

impl WireError {
    /// A problem with one field.
    pub fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self { path: field.into(), problem: problem.to_string() }
    }

    /// The same error, seen from the message that holds this one in `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.path = format!("{field}.{}", self.path);
        self
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::new(field, "it is missing")
    }

    pub(super) fn unset(field: &str) -> Self {
        Self::new(field, "no choice is set")
    }
}

/// Says in which field of the outer message an error is.
pub(super) trait Within {
    fn within(self, field: &str) -> Self;
}

impl<T> Within for Result<T, WireError> {
    fn within(self, field: &str) -> Self {
        self.map_err(|error| error.within(field))
    }
}

/// A part that must be there.
pub(super) fn required<W, M: TryFrom<W, Error = WireError>>(
    field: &str,
    wire: Option<W>,
) -> Result<M, WireError> {
    M::try_from(wire.ok_or_else(|| WireError::missing(field))?).within(field)
}

/// A part that may be there.
pub(super) fn optional<W, M: TryFrom<W, Error = WireError>>(
    field: &str,
    wire: Option<W>,
) -> Result<Option<M>, WireError> {
    wire.map(M::try_from).transpose().within(field)
}

/// Parts in a list; errors name the index.
pub(super) fn each<W, M: TryFrom<W, Error = WireError>>(
    field: &str,
    wire: Vec<W>,
) -> Result<Vec<M>, WireError> {
    let numbered = wire.into_iter().enumerate();
    numbered
        .map(|(at, part)| M::try_from(part).map_err(|error| error.within(&format!("{field}[{at}]"))))
        .collect()
}

/// Parts by key; errors name the key.
pub(super) fn keyed<K, W, M>(field: &str, wire: BTreeMap<String, W>) -> Result<BTreeMap<K, M>, WireError>
where
    K: FromStr<Err: Display> + Ord,
    M: TryFrom<W, Error = WireError>,
{
    let mut parts = BTreeMap::new();
    for (key, part) in wire {
        let named = format!("{field}[{key:?}]");
        let part = M::try_from(part).within(&named)?;
        parts.insert(text(&named, &key)?, part);
    }
    Ok(parts)
}

/// A name or number written as text.
pub(super) fn text<T: FromStr<Err: Display>>(field: &str, wire: &str) -> Result<T, WireError> {
    wire.parse().map_err(|problem| WireError::new(field, problem))
}

/// The same where it may be absent.
pub(super) fn optional_text<T: FromStr<Err: Display>>(
    field: &str,
    wire: Option<&str>,
) -> Result<Option<T>, WireError> {
    wire.map(|wire| text(field, wire)).transpose()
}

/// A number of one of the wire's enumerations; `UNSPECIFIED` is for the caller to refuse.
pub(super) fn choice<W: TryFrom<i32>>(field: &str, wire: i32) -> Result<W, WireError> {
    W::try_from(wire).map_err(|_| {
        WireError::new(
            field,
            format!("{wire} is a choice that this version does not know; upgrade the older side"),
        )
    })
}

/// A TCP port.
pub(super) fn port(field: &str, wire: u32) -> Result<u16, WireError> {
    u16::try_from(wire)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| WireError::new(field, format!("{wire} is not a TCP port: 1 to 65535")))
}

/// A measured share or rate.
pub(super) fn measured(field: &str, wire: f64) -> Result<f64, WireError> {
    if wire.is_finite() && wire >= 0.0 {
        return Ok(wire);
    }
    Err(WireError::new(field, format!("{wire} is not a measurement: a finite number from 0 on")))
}

/// The pace of a check. One of zero would be a loop without a pause, whoever sent it.
pub(super) fn pace(interval_ms: u64, timeout_ms: u64, rise: u32, fall: u32) -> Result<(), WireError> {
    let fields = [
        ("interval_ms", interval_ms),
        ("timeout_ms", timeout_ms),
        ("rise", rise.into()),
        ("fall", fall.into()),
    ];
    match fields.into_iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(WireError::new(field, "it must be at least 1")),
        None => Ok(()),
    }
}

/// The most that is counted of anything in one report. A report is of seconds, and of a comparison of days: nothing comes near
/// it; and the sums of millions of such reports are still numbers of 64 bits.
pub(super) const TALLY_MAX: u64 = 1 << 40;

/// How often something happened.
pub(super) fn tally(field: &str, wire: u64) -> Result<u64, WireError> {
    if wire > TALLY_MAX {
        return Err(WireError::new(field, format!("{wire} is more than anybody can have counted")));
    }
    Ok(wire)
}

/// A number that counts from 1.
pub(super) fn counted(field: &str, wire: u64) -> Result<u64, WireError> {
    if wire == 0 {
        return Err(WireError::new(field, "0 is not a number of anything: they count from 1"));
    }
    Ok(wire)
}
