//! Names and numbers that identify things. Each is its own type, so that two of them cannot be swapped.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a text is not a valid identifier; the message says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdError(pub String);

/// Longest accepted name: a DNS label, because names end up in host names and in file names.
pub const NAME_MAX: usize = 63;
/// Longest accepted version string.
pub const VERSION_MAX: usize = 64;

fn check_name(kind: &str, text: &str) -> Result<(), IdError> {
    let ok = !text.is_empty()
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.as_bytes()[text.len() - 1].is_ascii_alphanumeric();
    if ok {
        return Ok(());
    }
    Err(IdError(format!(
        "`{text}` is not a valid {kind}: use 1 to {NAME_MAX} lower-case letters, digits and dashes, starting and ending with a letter or digit"
    )))
}

fn check_secret(text: &str) -> Result<(), IdError> {
    let ok = !text.is_empty()
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if ok {
        return Ok(());
    }
    Err(IdError(format!(
        "`{text}` is not a valid name of a secret: use 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, starting with a letter or digit"
    )))
}

fn check_version(text: &str) -> Result<(), IdError> {
    let ok = !text.is_empty()
        && text.len() <= VERSION_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if ok {
        return Ok(());
    }
    Err(IdError(format!(
        "`{text}` is not a valid version: use 1 to {VERSION_MAX} letters, digits, `.`, `_`, `+` and `-`, starting with a letter or digit"
    )))
}

/// Shared text: a decision over ten thousand instances copies names all the time.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses and checks `text`.
            ///
            /// # Errors
            /// [`IdError`] says what is accepted.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                #[allow(clippy::redundant_closure_call)]
                ($check)(&text)?;
                Ok(Self(text.into()))
            }
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id!(/** A host with an agent. */ NodeName, |t: &str| check_name("node name", t));
text_id!(/** A process that carries traffic. */ GatewayName, |t: &str| check_name("gateway name", t));
text_id!(/** A named workload. */ ServiceName, |t: &str| check_name("service name", t));
text_id!(/** A port of a service; also its name in `LISTEN_FDNAMES` and, upper-cased with `_` for `-`, in `PORT_<NAME>`. */ PortName, |t: &str| check_name("port name", t));
text_id!(/** A secret that the coordinator keeps. */ SecretName, check_secret);
text_id!(/** The operator's own version string of a release. */ Version, check_version);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number_id!(/** Numbers the releases of one service from 1, in the order they were made. */ ReleaseNumber);
number_id!(/** Numbers the rollouts of one service from 1. */ RolloutId);
number_id!(/** Numbers the plans of one node; only grows (invariant `generation-grows`). */ Generation);
number_id!(/** Numbers the runs (shims) of one instance on its node; only grows. */ RunNumber);
number_id!(/** Version of one record in the store, for compare-and-set; 0 means absent. */ Revision);
number_id!(/** Numbers the agent sessions a coordinator has opened; a newer one replaces the older. */ SessionId);
number_id!(/** Numbers the whole tables that a coordinator sends to gateways; only grows. */ TableRevision);
number_id!(/** Numbers the states of one service's route; only grows. */ RouteRevision);
number_id!(/** Place of an event in the journal; only grows. */ EventSeq);

/// One running copy of a service: the service and a slot number that is never used again.
///
/// A rollout swaps the release inside a slot; a move to another node takes a fresh slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The service.
    pub service: ServiceName,
    /// The slot, counted from 1.
    pub slot: u64,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.service, self.slot))
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError(format!("`{text}` is not an instance: write SERVICE.SLOT, as in `web.1`"));
        let (service, slot) = text.rsplit_once('.').ok_or_else(bad)?;
        let slot = slot.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        Ok(Self { service: ServiceName::new(service)?, slot })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

/// A SHA-256 digest; written as 64 lower-case hex digits, as `sha256sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError(format!("`{text}` is not a SHA-256 digest: 64 hex digits are expected"));
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "web", "web-1", "1st", &"x".repeat(63)] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "a b", "ä", &"x".repeat(64), "../x"] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instance_ids_round_trip() {
        let id: InstanceId = "web-2.17".parse().unwrap();
        assert_eq!((id.service.as_str(), id.slot), ("web-2", 17));
        assert_eq!(id.to_string(), "web-2.17");
        for bad in ["web", "web.", "web.0", "web.x", ".1", "we b.1"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_round_trip() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        assert!("xyz".parse::<Digest>().is_err());
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }
}
