//! What an instance is told of the client that asks: `X-Forwarded-*` and `Forwarded` (RFC 7239). A connection's client
//! stays the same, and mostly so does the host that it asks for: the texts are made once.

use http::header::{Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use std::cell::RefCell;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who sent a request, and how it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The client, or the proxy in front of us.
    pub(crate) address: IpAddr,
    /// Whether it came over TLS.
    pub(crate) encrypted: bool,
}

/// What is told of the client of one connection.
#[derive(Debug)]
pub(crate) struct Forwarded {
    origin: Origin,
    address: Option<HeaderValue>,
    /// The host that was asked for last, and the element of `Forwarded` with it.
    latest: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl Forwarded {
    pub(crate) fn of(origin: Origin) -> Self {
        let address = HeaderValue::try_from(origin.address.to_string()).ok();
        Self { origin, address, latest: RefCell::default() }
    }

    /// Adds the client to the lists; says the scheme and host it asked for, unless a proxy before us has.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        append_listed(headers, X_FORWARDED_FOR, self.address.as_ref());
        headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(self.scheme()));
        let Some(host) = headers.get(HOST).cloned() else {
            append_listed(headers, FORWARDED, self.element(None).as_ref());
            return;
        };
        {
            let mut latest = self.latest.borrow_mut();
            if latest.as_ref().is_none_or(|(before, _)| *before != host) {
                *latest = self.element(Some(&host)).map(|element| (host.clone(), element));
            }
            append_listed(headers, FORWARDED, latest.as_ref().map(|(_, element)| element));
        }
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }

    const fn scheme(&self) -> &'static str {
        if self.origin.encrypted { "https" } else { "http" }
    }

    fn element(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
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

    #[test]
    fn each_host_is_told_as_it_was_asked_for() {
        let client = Forwarded::of(Origin { address: [192, 0, 2, 1].into(), encrypted: false });
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
