//! What a gateway changes in the head of a request and of an answer (RFC 9110, 7.6; RFC 7239), and what it refuses.

use super::forwarded::Forwarded;
use super::respond::Problem;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};

/// Names a request from its first hop to its last.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Fields that a request is given.
const ADDED: usize = 6;
/// An id that a client gives is kept if it is no longer.
const REQUEST_ID_MAX: usize = 128;
const VIA_1: HeaderValue = HeaderValue::from_static("1.1 baton");
const VIA_2: HeaderValue = HeaderValue::from_static("2 baton");

/// What a request asks of its connection besides an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An answer.
    Answer,
    /// To go on as a WebSocket (RFC 6455).
    WebSocket,
}

/// Refuses what would be read in two ways by two servers, and what is not for a gateway.
///
/// What HTTP's framing itself forbids, hyper has refused before: lengths that differ, folded fields, bare line feeds,
/// codings that do not end with `chunked`. Where both a length and chunks are given, it drops the length and closes the
/// connection afterwards, as RFC 9112, 6.3 allows.
///
/// # Errors
/// The answer to give instead.
pub(crate) fn vet(request: &Parts) -> Result<Wish, Problem> {
    if request.method == Method::CONNECT || request.method == Method::TRACE {
        return Err(Problem::Method);
    }
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Problem::Malformed("more than one host"));
    }
    match (host, request.uri.authority()) {
        (None, None) if request.version == Version::HTTP_11 => {
            return Err(Problem::Malformed("no host is named"));
        }
        (Some(host), _) if !is_authority(host.as_bytes()) && !host.is_empty() => {
            return Err(Problem::Malformed("the host is not a name or an address"));
        }
        (Some(host), Some(authority))
            if request.version == Version::HTTP_2
                && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(Problem::Malformed("two different hosts"));
        }
        (None | Some(_), None | Some(_)) => {}
    }
    if !request.uri.path().starts_with('/') && request.uri.path() != "*" {
        return Err(Problem::Malformed("the path does not begin with a slash"));
    }
    if let Some(coding) = request.headers.get(TRANSFER_ENCODING) {
        let more = request.headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_some();
        if more || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::Coding);
        }
    }
    Ok(wish(request))
}

/// Whether this is a name or an address, maybe with a port. What most hosts are is seen without taking it apart.
fn is_authority(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':');
    let (name, port) = colon.map_or((host, &b"80"[..]), |at| (&host[..at], &host[at + 1..]));
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_plain = !name.is_empty()
        && name.iter().all(plain)
        && (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit);
    is_plain || Authority::try_from(host).is_ok()
}

fn wish(request: &Parts) -> Wish {
    let asks = request.version == Version::HTTP_11
        && request.method == Method::GET
        && request.headers.get(UPGRADE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && names(&request.headers, CONNECTION, "upgrade");
    if asks { Wish::WebSocket } else { Wish::Answer }
}

/// Whether a list field has this word.
fn names(headers: &HeaderMap, field: HeaderName, word: &str) -> bool {
    headers
        .get_all(field)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|it| it.trim().eq_ignore_ascii_case(word))
}

/// The name of the request's host without its port: of the target, which wins over the field (RFC 9112, 3.2.2), or else
/// of `Host`.
pub(crate) fn host(request: &Parts) -> Option<&str> {
    if let Some(host) = request.uri.host() {
        return Some(host);
    }
    let text = request.headers.get(HOST)?.to_str().ok()?;
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.rfind(':').unwrap_or(text.len()),
    };
    text.get(..end).filter(|it| !it.is_empty())
}

/// Whether a field belongs to one connection, whether `Connection` names it or not (RFC 9110, 7.6.1). By its name in lower
/// case.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "te"
            | "upgrade"
            | "http2-settings"
    )
}

/// Takes away what belongs to the connection that a message came on. Few messages have any of it, and one that has
/// mostly says `keep-alive` or `close`: looking at the names that are there costs less than asking for each.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut going: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    if going.contains(&CONNECTION) {
        let named = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            // They go anyway, and `close` names no field.
            .filter(|name| !is_hop_by_hop(name) && *name != "close")
            .filter_map(|name| name.parse().ok())
            // What frames the body is not the client's to take away.
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST);
        going.extend(named);
    }
    for name in going {
        headers.remove(name);
    }
}

/// Makes a client's request head into what an instance is sent; gives the request's id.
pub(crate) fn to_instance(
    request: &mut Parts,
    client: &Forwarded,
    wish: Wish,
    fresh_id: impl FnOnce() -> HeaderValue,
) -> HeaderValue {
    let trailers = request.headers.contains_key(TE) && names(&request.headers, TE, "trailers");
    strip_hop_by_hop(&mut request.headers);
    // The gateway itself has said `100 Continue` when it began to read.
    request.headers.remove(EXPECT);
    if trailers {
        request.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if wish == Wish::WebSocket {
        request.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if request.uri.authority().is_some() || !request.headers.contains_key(HOST) {
        let authority = request.uri.authority().map_or("", Authority::as_str);
        if let Ok(authority) = HeaderValue::from_str(authority) {
            request.headers.insert(HOST, authority);
        }
    }
    // What follows is added at once: without room for it, the map would grow twice.
    request.headers.reserve(ADDED);
    client.tell(&mut request.headers);
    request.headers.append(VIA, if request.version == Version::HTTP_2 { VIA_2 } else { VIA_1 });
    let given = request.headers.get(X_REQUEST_ID).filter(|id| {
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some(id) = given {
        return id.clone();
    }
    let id = fresh_id();
    request.headers.insert(X_REQUEST_ID, id.clone());
    id
}

/// Makes an instance's answer head into what the client is sent.
pub(crate) fn to_client(headers: &mut HeaderMap, request_id: &HeaderValue, http2: bool) {
    strip_hop_by_hop(headers);
    if !http2 {
        headers.remove(TRAILER);
    }
    if !headers.contains_key(X_REQUEST_ID) {
        headers.insert(X_REQUEST_ID, request_id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::forwarded::Origin;
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn parts(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn what_two_servers_would_read_in_two_ways_is_refused() {
        let cases: [(Fields, Option<u16>); 8] = [
            (&[("host", "a.test")], None),
            (&[], Some(400)),
            (&[("host", "a.test"), ("host", "a.test")], Some(400)),
            (&[("host", "a b")], Some(400)),
            (&[("host", "a.test"), ("transfer-encoding", "chunked")], None),
            (&[("host", "a.test"), ("transfer-encoding", "gzip, chunked")], Some(501)),
            (
                &[("host", "a.test"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Some(501),
            ),
            (&[("host", "")], None),
        ];
        for (headers, expect) in cases {
            let got = vet(&parts(Version::HTTP_11, "/", headers)).err().map(|it| it.status().as_u16());
            assert_eq!(got, expect, "{headers:?}");
        }
        let two = parts(Version::HTTP_2, "http://a.test/", &[("host", "b.test")]);
        assert_eq!(vet(&two), Err(Problem::Malformed("two different hosts")));
    }

    #[test]
    fn the_host_is_found_with_and_without_a_port() {
        for (uri, header, expect) in [
            ("/", "a.test:80", Some("a.test")),
            ("/", "a.test", Some("a.test")),
            ("/", "[::1]:80", Some("[::1]")),
            ("/", "[::1]", Some("[::1]")),
            ("/", "", None),
            ("http://b.test:1/x", "a.test", Some("b.test")),
        ] {
            assert_eq!(host(&parts(Version::HTTP_11, uri, &[("host", header)])), expect, "{uri} {header}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_goes_and_what_tells_of_the_client_comes() {
        let mut request = parts(
            Version::HTTP_11,
            "/x?y",
            &[
                ("host", "a.test"),
                ("connection", "close, X-Own, content-length"),
                ("x-own", "1"),
                ("content-length", "3"),
                ("keep-alive", "5"),
                ("te", "trailers, deflate"),
                ("expect", "100-continue"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-request-id", "replaced below"),
            ],
        );
        // Not valid as an id: replaced.
        request.headers.insert(X_REQUEST_ID, HeaderValue::from_static("has space"));
        let client =
            Forwarded::of(Origin { address: "2001:db8::1".parse().expect("an address"), encrypted: true });
        let id = to_instance(&mut request, &client, Wish::Answer, || HeaderValue::from_static("fresh"));
        assert_eq!(id, "fresh");
        let got = |name: &str| request.headers.get(name).map(|it| it.to_str().expect("text").to_owned());
        for gone in ["connection", "x-own", "keep-alive", "expect", "upgrade"] {
            assert_eq!(got(gone), None, "{gone}");
        }
        for (name, value) in [
            ("content-length", "3"),
            ("te", "trailers"),
            ("x-forwarded-for", "192.0.2.1, 2001:db8::1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.test"),
            ("forwarded", "for=\"[2001:db8::1]\";proto=https;host=\"a.test\""),
            ("via", "1.1 baton"),
            ("x-request-id", "fresh"),
        ] {
            assert_eq!(got(name).as_deref(), Some(value), "{name}");
        }
    }

    proptest! {
        /// Whatever fields a client sends: nothing panics, and what is passed on has one host, one framing, and none of
        /// the fields that belong to the connection.
        #[test]
        fn any_fields_are_refused_or_made_fit(
            host in prop::collection::vec(any::<u8>(), 0..20),
            named in "[a-zA-Z, -]{0,30}",
            values in prop::collection::vec(("[a-z-]{1,12}", prop::collection::vec(any::<u8>(), 0..12)), 0..6),
        ) {
            let mut request = parts(Version::HTTP_11, "/", &[]);
            let mut add = |name: HeaderName, value: &[u8]| {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    request.headers.append(name, value);
                }
            };
            add(HOST, &host);
            add(CONNECTION, named.as_bytes());
            for (name, value) in &values {
                if let Ok(name) = name.parse::<HeaderName>() {
                    add(name, value);
                }
            }
            let _ = super::host(&request);
            if let Ok(wish) = vet(&request) {
                let client = Forwarded::of(Origin { address: [192, 0, 2, 1].into(), encrypted: false });
                to_instance(&mut request, &client, wish, || HeaderValue::from_static("id"));
                prop_assert_eq!(request.headers.get_all(HOST).iter().count(), 1);
                let wanted = if wish == Wish::WebSocket { vec![CONNECTION, UPGRADE, TE] } else { vec![TE] };
                for name in request.headers.keys().filter(|it| !wanted.contains(it)) {
                    prop_assert!(!is_hop_by_hop(name.as_str()), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_websocket_is_known_by_both_fields() {
        let both =
            [("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")].as_slice();
        assert_eq!(vet(&parts(Version::HTTP_11, "/", both)), Ok(Wish::WebSocket));
        assert_eq!(vet(&parts(Version::HTTP_11, "/", &both[..2])), Ok(Wish::Answer));
        assert_eq!(
            vet(&parts(Version::HTTP_11, "/", &[("host", "a"), ("upgrade", "h2c")])),
            Ok(Wish::Answer)
        );
    }
}
