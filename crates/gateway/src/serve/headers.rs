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
const VIA_1_0: HeaderValue = HeaderValue::from_static("1.0 baton");
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
/// What HTTP's framing itself forbids, hyper has refused before: lengths that differ, folded fields, codings that do not
/// end with `chunked`. Where both a length and chunks are given, it drops the length and closes the
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
        (None, None) if request.version > Version::HTTP_10 => {
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
        (_, Some(authority)) if !is_authority(authority.as_str().as_bytes()) => {
            return Err(Problem::Malformed("the host of the target is not a name or an address"));
        }
        (None | Some(_), None | Some(_)) => {}
    }
    let whole_server = request.uri.path() == "*" && request.method == Method::OPTIONS;
    if !request.uri.path().starts_with('/') && !whole_server {
        return Err(Problem::Malformed("the path does not begin with a slash"));
    }
    if is_coded(&request.headers) {
        return Err(Problem::Coding);
    }
    Ok(wish(request))
}

/// Whether this is a name or an address, maybe with a port, and nothing else: of what names a user, one server takes what is
/// before the `@` and another what is after it. What most hosts are is seen without taking it apart.
fn is_authority(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':');
    let (name, port) = colon.map_or((host, &b"80"[..]), |at| (&host[..at], &host[at + 1..]));
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_plain = !name.is_empty()
        && name.iter().all(plain)
        && (1..=4).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit);
    is_plain || Authority::try_from(host).is_ok_and(|it| is_host_and_port(it.as_str()))
}

/// Of what may be an authority (RFC 3986, 3.2): no user, and a port that there can be, if any.
fn is_host_and_port(authority: &str) -> bool {
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    let port = authority[after_address..].split_once(':').map_or("", |(_, port)| port);
    !authority.contains('@') && (port.is_empty() || !port.starts_with('+') && port.parse::<u16>().is_ok())
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
    let via = match request.version {
        Version::HTTP_2 => VIA_2,
        Version::HTTP_10 => VIA_1_0,
        _ => VIA_1,
    };
    request.headers.append(VIA, via);
    let given = request.headers.get(X_REQUEST_ID).filter(|id| {
        !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some(id) = given.cloned() {
        // The first of several is the one.
        if request.headers.get_all(X_REQUEST_ID).iter().nth(1).is_some() {
            request.headers.insert(X_REQUEST_ID, id.clone());
        }
        return id;
    }
    let id = fresh_id();
    request.headers.insert(X_REQUEST_ID, id.clone());
    id
}

/// Whether a body is coded for its connection by more than chunks: nothing here could take that off again.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let first = codings.next();
    first.is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.next().is_some()
}

/// A length that is said more than once, always the same, is said once (RFC 9110, 8.6).
fn single_length(headers: &mut HeaderMap) {
    let Some(first) = headers.get(CONTENT_LENGTH) else { return };
    let list = first.as_bytes().contains(&b',');
    if !list && headers.get_all(CONTENT_LENGTH).iter().nth(1).is_none() {
        return;
    }
    let number = first.to_str().ok().and_then(|text| text.split(',').next()?.trim().parse::<u64>().ok());
    match number {
        Some(number) => headers.insert(CONTENT_LENGTH, HeaderValue::from(number)),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// Makes an instance's answer head into what the client is sent.
pub(crate) fn to_client(headers: &mut HeaderMap, request_id: &HeaderValue, http2: bool) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The chunks say where it ends, whatever the length says (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    single_length(headers);
    strip_hop_by_hop(headers);
    if !http2 {
        headers.remove(TRAILER);
    }
    // Also in place of the instance's own: the access log and the client know the request by the same id.
    headers.insert(X_REQUEST_ID, request_id.clone());
}

#[cfg(test)]
mod tests;
