//! How weights, keys and conditions are written: `5%`, `cookie:user`, `header:x-beta=1`, `path:/api`.

use super::{Condition, Key, Weight};
use std::fmt;
use std::str::FromStr;

/// A text that is no weight, key or condition; the message says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RouteTextError(pub String);

/// What a weight looks like.
pub const WEIGHT_FORMS: &str =
    "write a share from \"0%\" to \"100%\", with up to two decimals, such as \"2.5%\"";
/// What a key looks like.
pub const KEY_FORMS: &str =
    "write \"address\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\", such as \"cookie:user\"";
/// What a condition looks like.
pub const CONDITION_FORMS: &str = "write \"header:NAME=VALUE\", \"cookie:NAME=VALUE\", \"query:NAME=VALUE\" (any value \
                                   without the `=`), \"path:/PREFIX\" or \"host:NAME\"";

fn fault(text: &str, what: &str, forms: &str) -> RouteTextError {
    RouteTextError(format!("`{text}` is not {what}; {forms}"))
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => f.pad(&format!("{whole}%")),
            part if part % 10 == 0 => f.pad(&format!("{whole}.{}%", part / 10)),
            part => f.pad(&format!("{whole}.{part:02}%")),
        }
    }
}

impl FromStr for Weight {
    type Err = RouteTextError;
    fn from_str(text: &str) -> Result<Self, RouteTextError> {
        let bad = || fault(text, "a share", WEIGHT_FORMS);
        let number = text.strip_suffix('%').ok_or_else(bad)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, most: usize| {
            (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(part, 2) {
            return Err(bad());
        }
        let hundredths = format!("{whole}{part:0<2}").parse::<u16>().map_err(|_| bad())?;
        Some(Self(hundredths)).filter(|weight| *weight <= Self::ALL).ok_or_else(bad)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.pad("address"),
            Self::Header(name) => f.pad(&format!("header:{name}")),
            Self::Cookie(name) => f.pad(&format!("cookie:{name}")),
            Self::Query(name) => f.pad(&format!("query:{name}")),
        }
    }
}

impl FromStr for Key {
    type Err = RouteTextError;
    fn from_str(text: &str) -> Result<Self, RouteTextError> {
        let bad = || fault(text, "something of a request that tells clients apart", KEY_FORMS);
        if text == "address" {
            return Ok(Self::Address);
        }
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let is_token = !name.is_empty() && name.bytes().all(is_token_byte);
        match kind {
            "header" if is_token => Ok(Self::Header(name.to_ascii_lowercase())),
            "cookie" if is_token => Ok(Self::Cookie(name.to_owned())),
            "query" if is_query_name(name) => Ok(Self::Query(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// A byte of a `token` (RFC 9110, 5.6.2), which names of headers and cookies are made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_query_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#".contains(&byte))
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is { key, value: None } => f.pad(&key.to_string()),
            Self::Is { key, value: Some(value) } => f.pad(&format!("{key}={value}")),
            Self::Path { prefix } => f.pad(&format!("path:{prefix}")),
            Self::Host { name } => f.pad(&format!("host:{name}")),
            Self::Share { key, share, .. } => f.pad(&format!("{share} of {key}")),
        }
    }
}

/// Reads what a person may ask of a request; a share is not among it, since a stage has its own.
impl FromStr for Condition {
    type Err = RouteTextError;
    fn from_str(text: &str) -> Result<Self, RouteTextError> {
        let bad = || fault(text, "a question about a request", CONDITION_FORMS);
        if let Some(prefix) = text.strip_prefix("path:") {
            let right = is_path(prefix);
            return right.then(|| Self::Path { prefix: prefix.to_owned() }).ok_or_else(bad);
        }
        if let Some(name) = text.strip_prefix("host:") {
            return is_host(name).then(|| Self::Host { name: name.to_owned() }).ok_or_else(bad);
        }
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        let key = key.parse().map_err(|_| bad())?;
        if key == Key::Address
            || value.as_deref().is_some_and(|value| value.contains(|c: char| c.is_control()))
        {
            return Err(bad());
        }
        Ok(Self::Is { key, value })
    }
}

/// Whether a path can be the beginning of a request's: ASCII, from `/`, without query, fragment, empty or dot
/// segments.
#[must_use]
pub fn is_path(path: &str) -> bool {
    let segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let inner = path.strip_prefix('/').map(|inner| inner.strip_suffix('/').unwrap_or(inner));
    path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte))
        && (path == "/" || inner.is_some_and(|inner| inner.split('/').all(segment)))
}

/// Longest name of a host (RFC 1035, 2.3.4, less the root's dot and length).
const HOST_MAX: usize = 253;

/// Whether a text is the name or IPv4 address of a host as clients send it, in lower case, without a port.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= HOST_MAX && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_they_are_shown() {
        for (text, weight) in
            [("0%", 0), ("1%", 100), ("2.5%", 250), ("0.01%", 1), ("33.33%", 3333), ("100%", 10_000)]
        {
            assert_eq!(text.parse(), Ok(Weight(weight)));
            assert_eq!(Weight(weight).to_string(), text);
        }
        assert_eq!(format!("{:>6}|{:<6}|", Weight(250), Weight(500)), "  2.5%|5%    |");
        for text in ["", "%", "5", "5 %", "-1%", "101%", "100.01%", "1.234%", ".5%", "5.%", "0005%", "٣%"] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_and_conditions_are_read_as_they_are_shown() {
        for text in ["address", "header:x-user", "cookie:User", "query:user[id]"] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse(), Ok(Key::Header("x-user".to_owned())));
        for text in ["", "adress", "header:", "header:a b", "cookie:a;b", "query:a=b", "user"] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        for text in [
            "header:x-beta",
            "header:x-beta=",
            "cookie:group=a=b",
            "query:v=1",
            "path:/api",
            "host:a.example",
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().to_string(), text);
        }
        for text in
            ["", "address", "address=10.0.0.1", "path:api", "path:/a?b", "host:A", "host:a:80", "beta"]
        {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_and_hosts() {
        for (path, right) in [
            ("/", true),
            ("/a", true),
            ("/a/", true),
            ("", false),
            ("//", false),
            ("/a//b", false),
            ("/a/../b", false),
        ] {
            assert_eq!(is_path(path), right, "{path}");
        }
        for (host, right) in
            [("a", true), ("10.0.0.1", true), ("a..b", false), ("-a", false), ("a.", false), ("*", false)]
        {
            assert_eq!(is_host(host), right, "{host}");
        }
    }
}
