//! What an instance is told of the client that asks: `X-Forwarded-*` and `Forwarded` (RFC 7239). A connection's client
//! stays the same, and mostly so does the host that it asks for: the texts are made once.
//!
//! What a client says of itself in these fields is worth nothing, and is replaced. What a proxy says that the configuration
//! names as trusted is added to, and tells who the client is; whether it is one is found out once for each connection.

use crate::network::Network;
use http::header::{Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who sent a request, and how it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The client.
    pub(crate) address: IpAddr,
    /// Whether it came over TLS, to us or to a proxy in front of us.
    pub(crate) encrypted: bool,
}

/// What is told of the client of one connection.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Whoever is at the other end.
    origin: Origin,
    /// It is a proxy that is believed.
    trusted: bool,
    address: Option<HeaderValue>,
    /// The host that was asked for last, and the element of `Forwarded` with it.
    latest: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarded {
    pub(crate) fn of(origin: Origin, proxies: &[Network]) -> Self {
        let trusted = is_trusted(proxies, origin.address);
        let address = HeaderValue::try_from(origin.address.to_string()).ok();
        Self { origin, trusted, address, latest: RefCell::default() }
    }

    /// Who sent a request on this connection: who is at its other end or, where that is a proxy that is believed, the last one in
    /// its list that is none.
    pub(super) fn asks(&self, headers: &HeaderMap, proxies: &[Network]) -> Origin {
        if !self.trusted {
            return self.origin;
        }
        let proto = headers.get(X_FORWARDED_PROTO).and_then(|it| it.to_str().ok()?.split(',').next());
        Origin {
            address: client_of(self.origin.address, headers, proxies),
            encrypted: proto.map_or(self.origin.encrypted, |it| it.trim().eq_ignore_ascii_case("https")),
        }
    }

    /// Adds the other end to the lists of a proxy that is believed, and says the scheme and host that were asked for, unless it
    /// has; of anybody else, says all that anew.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let scheme = HeaderValue::from_static(self.scheme());
        let host = headers.get(HOST).cloned();
        let element = self.element(host.as_ref());
        if self.trusted {
            append_listed(headers, X_FORWARDED_FOR, self.address.as_ref());
            append_listed(headers, FORWARDED, element.as_ref());
            headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
            if let Some(host) = host {
                headers.entry(X_FORWARDED_HOST).or_insert(host);
            }
        } else {
            replace(headers, X_FORWARDED_FOR, self.address.clone());
            replace(headers, FORWARDED, element);
            replace(headers, X_FORWARDED_PROTO, Some(scheme));
            replace(headers, X_FORWARDED_HOST, host);
        }
    }

    /// The element of `Forwarded` for a request to this host.
    fn element(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Some(host) = host else { return self.fresh_element(None) };
        let mut latest = self.latest.borrow_mut();
        if latest.as_ref().is_none_or(|(before, _)| before != host) {
            *latest = self.fresh_element(Some(host)).map(|element| (host.clone(), element));
        }
        latest.as_ref().map(|(_, element)| element.clone())
    }

    const fn scheme(&self) -> &'static str {
        if self.origin.encrypted { "https" } else { "http" }
    }

    fn fresh_element(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let mut text = String::with_capacity(96);
        let address = self.address.as_ref().and_then(|it| it.to_str().ok())?;
        let (before, after) = match self.origin.address {
            IpAddr::V4(_) => ("for=", ""),
            IpAddr::V6(_) => ("for=\"[", "]\""),
        };
        text.extend([before, address, after, ";proto=", self.scheme()]);
        let name = host.and_then(|host| host.to_str().ok());
        if let Some(name) = name.filter(|it| !it.is_empty() && !it.contains(['"', '\\'])) {
            text.extend([";host=\"", name, "\""]);
        }
        HeaderValue::try_from(text).ok()
    }
}

fn is_trusted(proxies: &[Network], address: IpAddr) -> bool {
    proxies.iter().any(|it| it.contains(address))
}

/// The client of a proxy: of those that each passed the request on, the last that is not believed, since what it says of those
/// before it may be made up. `X-Forwarded-For` counts, and `Forwarded` where there is none.
fn client_of(proxy: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let (name, parse): (_, fn(&str) -> Option<IpAddr>) =
        if headers.contains_key(X_FORWARDED_FOR) { (X_FORWARDED_FOR, node) } else { (FORWARDED, named_node) };
    let values = headers.get_all(name);
    let mut before = values.iter().rev().flat_map(|it| it.to_str().unwrap_or_default().rsplit(','));
    let mut client = proxy;
    while is_trusted(proxies, client) {
        let Some(address) = before.next().and_then(parse) else { break };
        client = address;
    }
    client
}

/// An address in `X-Forwarded-For`, or after `for=` in `Forwarded` (RFC 7239, 6): maybe in quotes, maybe with a port.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let address: Option<IpAddr> = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?.parse().ok(),
        None => text.parse().ok().or_else(|| text.split(':').next()?.parse().ok()),
    };
    address.map(|it| it.to_canonical())
}

/// The address in an element of `Forwarded`.
fn named_node(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for")).and_then(|(_, value)| node(value))
}

/// Sets a field, whatever was said in it.
fn replace(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => headers.insert(name, value),
        None => headers.remove(name),
    };
}

/// Appends to a field that is a list.
fn append_listed(headers: &mut HeaderMap, name: HeaderName, element: Option<&HeaderValue>) {
    let Some(element) = element else { return };
    match headers.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(element.clone());
        }
        Entry::Occupied(mut there) => {
            let mut all = Vec::new();
            for value in there.iter() {
                all.extend_from_slice(value.as_bytes());
                all.extend_from_slice(b", ");
            }
            all.extend_from_slice(element.as_bytes());
            if let Ok(value) = HeaderValue::from_bytes(&all) {
                there.insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Network> {
        vec![
            Network::parse("192.0.2.0/24").expect("a network"),
            Network::parse("2001:db8::/32").expect("a network"),
        ]
    }

    /// What is said of a request on a connection from `peer`, and who sent it.
    fn check(peer: &str, said: &[(HeaderName, &'static str)]) -> (String, Origin) {
        let origin = Origin { address: peer.parse().expect("an address"), encrypted: false };
        let client = Forwarded::of(origin, &all());
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(name, HeaderValue::from_static(value));
        }
        let asks = client.asks(&headers, &all());
        client.tell(&mut headers);
        (headers[X_FORWARDED_FOR].to_str().expect("text").to_owned(), asks)
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (X_FORWARDED_FOR, "203.0.113.9"),
            (X_FORWARDED_FOR, "192.0.2.9"),
            (X_FORWARDED_PROTO, "https"),
            (X_FORWARDED_HOST, "bank.test"),
            (FORWARDED, "for=203.0.113.9;proto=https"),
            (HOST, "a.test"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let origin = Origin { address: [198, 51, 100, 7].into(), encrypted: false };
        let client = Forwarded::of(origin, &all());
        let asks = client.asks(&headers, &all());
        assert_eq!((asks.address, asks.encrypted), (origin.address, false));
        client.tell(&mut headers);
        let said: Vec<&str> = headers.values().map(|it| it.to_str().expect("text")).collect();
        assert!(!said.iter().any(|it| it.contains("203.0.113.9") || it.contains("bank")), "{said:?}");
        assert_eq!(headers[X_FORWARDED_FOR], "198.51.100.7");
        assert_eq!(headers[X_FORWARDED_PROTO], "http");
        assert_eq!(headers[X_FORWARDED_HOST], "a.test");
        assert_eq!(headers[FORWARDED], "for=198.51.100.7;proto=http;host=\"a.test\"");
    }

    #[test]
    fn the_client_of_trusted_proxies_is_the_last_that_is_none() {
        let forwarded_for = |value| (X_FORWARDED_FOR, value);
        for (said, client) in [
            (vec![], "192.0.2.1"),
            (vec![forwarded_for("203.0.113.9")], "203.0.113.9"),
            (vec![forwarded_for("203.0.113.1, 203.0.113.9")], "203.0.113.9"),
            (vec![forwarded_for("203.0.113.1, 203.0.113.9 ,192.0.2.4:80")], "203.0.113.9"),
            (vec![forwarded_for("203.0.113.9"), forwarded_for("192.0.2.4,[2001:db8::4]:80")], "203.0.113.9"),
            (vec![forwarded_for("192.0.2.3, 2001:db8::4")], "192.0.2.3"),
            (vec![forwarded_for("203.0.113.9, unknown, 192.0.2.4")], "192.0.2.4"),
            (vec![forwarded_for("203.0.113.9"), (FORWARDED, "for=203.0.113.8")], "203.0.113.9"),
            (
                vec![(FORWARDED, "for=203.0.113.8, proto=http;For=\"203.0.113.9:80\", for=192.0.2.4")],
                "203.0.113.9",
            ),
            (vec![(FORWARDED, "for=\"[2001:db9::9]\"")], "2001:db9::9"),
        ] {
            let (_, asks) = check("192.0.2.1", &said);
            assert_eq!(asks.address, client.parse::<IpAddr>().expect("an address"), "{said:?}");
        }
        let (list, asks) = check("192.0.2.1", &[forwarded_for("203.0.113.9"), (X_FORWARDED_PROTO, "https")]);
        assert_eq!((list.as_str(), asks.encrypted), ("203.0.113.9, 192.0.2.1", true));
    }

    #[test]
    fn each_host_is_told_as_it_was_asked_for() {
        let client = Forwarded::of(Origin { address: [192, 0, 2, 1].into(), encrypted: false }, &all());
        for host in ["a.test", "a.test", "b.test:8080", "a.test"] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            client.tell(&mut headers);
            assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.1");
            assert_eq!(headers[X_FORWARDED_HOST], host);
            assert_eq!(headers[FORWARDED], format!("for=192.0.2.1;proto=http;host=\"{host}\""));
        }
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_static("for=198.51.100.1"));
        headers.insert(HOST, HeaderValue::from_static("a\\.test"));
        client.tell(&mut headers);
        assert_eq!(headers[FORWARDED], "for=198.51.100.1, for=192.0.2.1;proto=http");
    }
}
