//! Heads: what is refused, and what is changed of the others.

use super::super::forwarded::Origin;
use super::*;
use crate::network::Network;
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
    for host in
        ["a.test:x", "a.test:99999", "a.test:+80", "u@a.test", "u:p@a.test", "a.test:x@b.test", "[::1]:x"]
    {
        let named = vet(&parts(Version::HTTP_11, "/", &[("host", host)]));
        assert_eq!(named.err().map(|it| it.status().as_u16()), Some(400), "{host}");
    }
    for host in ["a.test:", "a.test:65535", "a_b.test:1", "[::1]:80", "[::1]", "xn--bcher-kva.test"] {
        assert_eq!(vet(&parts(Version::HTTP_11, "/", &[("host", host)])), Ok(Wish::Answer), "{host}");
    }
    for target in ["http://u:p@a.test/", "http://u@a.test/"] {
        for (version, fields) in [(Version::HTTP_11, &[("host", "a.test")][..]), (Version::HTTP_2, &[])] {
            let refused = vet(&parts(version, target, fields)).err();
            assert_eq!(refused.map(|it| it.status().as_u16()), Some(400), "{target}");
        }
    }
    assert_eq!(vet(&parts(Version::HTTP_2, "/", &[])), Err(Problem::Malformed("no host is named")));
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
    let proxies = [Network::parse("2001:db8::/32").expect("a network")];
    let client = Forwarded::of(
        Origin { address: "2001:db8::1".parse().expect("an address"), encrypted: true },
        &proxies,
    );
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

#[test]
fn an_answer_says_its_length_once_or_not_at_all() {
    for (fields, expect) in [
        (&[("content-length", "5")][..], Some("5")),
        (&[("content-length", "5, 5")], Some("5")),
        (&[("content-length", "5"), ("content-length", "5")], Some("5")),
        (&[("content-length", "5"), ("transfer-encoding", "chunked")], None),
        (&[("transfer-encoding", "chunked")], None),
    ] {
        let mut head = parts(Version::HTTP_11, "/", fields).headers;
        to_client(&mut head, &HeaderValue::from_static("id"), false);
        let all: Vec<_> = head.get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(all, expect.into_iter().collect::<Vec<_>>(), "{fields:?}");
        assert!(!head.contains_key(TRANSFER_ENCODING));
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
            let client = Forwarded::of(Origin { address: [192, 0, 2, 1].into(), encrypted: false }, &[]);
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
    let both = [("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")].as_slice();
    assert_eq!(vet(&parts(Version::HTTP_11, "/", both)), Ok(Wish::WebSocket));
    assert_eq!(vet(&parts(Version::HTTP_11, "/", &both[..2])), Ok(Wish::Answer));
    assert_eq!(vet(&parts(Version::HTTP_11, "/", &[("host", "a"), ("upgrade", "h2c")])), Ok(Wish::Answer));
}
