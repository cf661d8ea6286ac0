//! What choosing needs to know of a request, borrowed: nothing is copied and nothing is parsed that no rule asks for.

use crate::hash::Salt;
use baton_model::route::Key;
use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, Method};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

/// A request, as far as choosing looks at it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its host, with or without a port: `:authority` or `Host`.
    pub host: Option<&'a str>,
    /// Its path, without the query.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The client's address, as the gateway believes it.
    pub client: IpAddr,
    /// It came over TLS: a cookie that we set is for TLS only.
    pub secure: bool,
}

static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
static CONNECT: Method = Method::CONNECT;

impl RequestView<'static> {
    /// A connection of a TCP route: nothing is known but where it comes from.
    #[must_use]
    pub fn connection(client: IpAddr) -> Self {
        Self {
            method: &CONNECT,
            host: None,
            path: "",
            query: None,
            headers: &NO_HEADERS,
            client,
            secure: false,
        }
    }
}

/// A [`Key`] made ready for looking it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Address,
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
}

impl Lookup {
    /// `None` for a header name that HTTP does not allow.
    pub(crate) fn new(key: &Key) -> Option<Self> {
        Some(match key {
            Key::Address => Self::Address,
            Key::Header(name) => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            Key::Cookie(name) => Self::Cookie(name.as_str().into()),
            Key::Query(name) => Self::Query(name.as_str().into()),
        })
    }

    /// The hash of the key's value in a request, of the first where it has several.
    pub(crate) fn hash(&self, view: &RequestView<'_>, salt: Salt) -> Option<u64> {
        match self {
            Self::Address => Some(match view.client.to_canonical() {
                IpAddr::V4(v4) => salt.hash(&v4.octets()),
                IpAddr::V6(v6) => salt.hash(&v6.octets()),
            }),
            Self::Header(_) | Self::Cookie(_) | Self::Query(_) => Some(salt.hash(&self.value(view)?)),
        }
    }

    /// The value that the client wrote, the first where there are several. An address is not written.
    fn value<'a>(&self, view: &RequestView<'a>) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Address => None,
            Self::Header(name) => view.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            Self::Cookie(name) => cookie(view.headers, name).map(Cow::Borrowed),
            Self::Query(name) => parameter(view.query?, name),
        }
    }

    /// Whether any of the key's values is `value`, or there is one where `value` is `None`.
    pub(crate) fn is(&self, view: &RequestView<'_>, value: Option<&str>) -> bool {
        let Some(value) = value else { return *self == Self::Address || self.value(view).is_some() };
        match self {
            // An IPv4 address mapped into IPv6 is the IPv4 address: a listener for both sees it so.
            Self::Address => {
                value.parse::<IpAddr>().is_ok_and(|address| address == view.client.to_canonical())
            }
            Self::Header(name) => {
                view.headers.get_all(name).iter().any(|it| it.as_bytes() == value.as_bytes())
            }
            Self::Cookie(_) | Self::Query(_) => self.value(view).is_some_and(|it| *it == *value.as_bytes()),
        }
    }
}

/// The value of a cookie, as RFC 6265, 5.4 sends it; HTTP/2 may spread the pairs over several headers (RFC 9113, 8.2.3).
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().find_map(|header| {
        header.as_bytes().split(|byte| *byte == b';').find_map(|pair| {
            let value = pair.trim_ascii_start().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value.trim_ascii_end())
        })
    })
}

/// The value of a parameter of a query, decoded where it is encoded (`application/x-www-form-urlencoded`).
fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

/// Decodes `%xx` and `+`; what is no valid code stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = || Some(hex(*bytes.get(at + 1)?)? << 4 | hex(*bytes.get(at + 2)?)?);
        match (bytes[at], code()) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// An address for tests and for requests of our own.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn value(key: &Key, query: Option<&str>, headers: &HeaderMap) -> Option<String> {
        let view = RequestView { query, headers, ..RequestView::connection(LOOPBACK) };
        let value = Lookup::new(key).expect("a valid name").value(&view)?.into_owned();
        Some(String::from_utf8(value).expect("text"))
    }

    #[test]
    fn cookies_are_found_among_others_and_over_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xuser=1; user=ada ;user2=3"));
        headers.append(COOKIE, HeaderValue::from_static("arm=b"));
        let cookie = |name: &str| value(&Key::Cookie(name.to_owned()), None, &headers);
        assert_eq!(cookie("user").as_deref(), Some("ada"));
        assert_eq!(cookie("arm").as_deref(), Some("b"));
        assert_eq!(cookie("user2").as_deref(), Some("3"));
        assert_eq!(cookie("use"), None);
        assert_eq!(cookie("User"), None, "names of cookies tell case apart");
    }

    #[test]
    fn parameters_are_decoded() {
        let headers = HeaderMap::new();
        let parameter = |name: &str, query: &str| value(&Key::Query(name.to_owned()), Some(query), &headers);
        assert_eq!(parameter("user", "a=1&user=ada%20l+x&user=no").as_deref(), Some("ada l x"));
        assert_eq!(parameter("us er", "us+er=1").as_deref(), Some("1"));
        assert_eq!(parameter("flag", "flag").as_deref(), Some(""));
        assert_eq!(parameter("cut", "cut=%4&x").as_deref(), Some("%4"));
        assert_eq!(parameter("user", "users=1"), None);
    }

    #[test]
    fn a_header_matches_by_any_of_its_values_and_an_address_as_an_address() {
        let mut headers = HeaderMap::new();
        headers.append("x-group", HeaderValue::from_static("blue"));
        headers.append("x-group", HeaderValue::from_static("green"));
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().expect("an address");
        let view = RequestView { headers: &headers, ..RequestView::connection(mapped) };
        let is = |key: Key, value| Lookup::new(&key).expect("a valid name").is(&view, value);
        assert!(is(Key::Header("x-group".to_owned()), Some("green")));
        assert!(is(Key::Header("x-group".to_owned()), None));
        assert!(!is(Key::Header("x-group".to_owned()), Some("gree")));
        assert!(is(Key::Address, Some("192.0.2.7")));
        assert!(!is(Key::Address, Some("192.0.2.8")));
    }

    /// A text as a form sends it: each byte as it is, as a `+`, or as a code, as `how` says in turn.
    fn encoded(text: &str, how: &[bool]) -> String {
        let mut how = how.iter().cycle();
        let bytes = text.bytes().map(|byte| match byte {
            b' ' if *how.next().unwrap_or(&true) => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() && *how.next().unwrap_or(&true) => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02x}"),
        });
        bytes.collect()
    }

    proptest! {
        /// Whatever a client sends: nothing panics, and what is found was there.
        #[test]
        fn anything_may_be_a_query_or_a_cookie(
            query in "[a-c%+&=0-9\\PC]{0,40}",
            cookies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..4),
            name in "[a-c%+ ]{1,3}",
        ) {
            let mut headers = HeaderMap::new();
            for cookie in &cookies {
                if let Ok(cookie) = HeaderValue::from_bytes(cookie) {
                    headers.append(COOKIE, cookie);
                }
            }
            if let Some(found) = parameter(&query, &name) {
                prop_assert!(found.len() <= query.len());
            }
            if let Some(found) = cookie(&headers, &name) {
                prop_assert!(cookies.iter().any(|sent| sent.windows(found.len().max(1)).any(|it| it == found)
                    || found.is_empty()));
                prop_assert!(!found.contains(&b';'));
            }
        }

        /// What a client has put in is found again, however it was encoded, and the first of its name.
        #[test]
        fn what_was_put_in_is_found(
            pairs in prop::collection::vec(("[a-c ]{1,3}", "\\PC{0,8}"), 1..6),
            how in prop::collection::vec(any::<bool>(), 1..8),
        ) {
            let query: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{}={}", encoded(name, &how), encoded(value, &how)))
                .collect();
            let query = query.join("&");
            for (name, _) in &pairs {
                let (_, first) = pairs.iter().find(|(other, _)| other == name).expect("itself");
                let found = parameter(&query, name).map(Cow::into_owned);
                prop_assert_eq!(found.as_deref(), Some(first.as_bytes()), "{}", query);
            }
        }
    }
}
