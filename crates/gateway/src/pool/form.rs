//! A request as an instance is sent it, in the form that its protocol asks for.

use crate::body::SentBody;
use baton_model::route::HttpProtocol;
use http::request::Parts;
use http::{Request, Uri, Version};

/// A request with this head and body.
pub(crate) fn request(parts: &Parts, body: SentBody, protocol: HttpProtocol) -> Request<SentBody> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.headers_mut() = parts.headers.clone();
    match protocol {
        HttpProtocol::Http1 => *request.uri_mut() = origin_form(&parts.uri),
        HttpProtocol::Http2 => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = absolute_form(parts);
            request.headers_mut().remove(http::header::HOST);
        }
    }
    request
}

/// Path and query, as HTTP/1.1 asks an origin server (RFC 9112, 3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() {
        return uri.clone();
    }
    uri.path_and_query().map_or_else(Uri::default, |it| Uri::from(it.clone()))
}

/// With scheme and authority, of which HTTP/2 makes its pseudo-header fields (RFC 9113, 8.3.1).
fn absolute_form(parts: &Parts) -> Uri {
    let named = parts.headers.get(http::header::HOST).and_then(|it| it.to_str().ok());
    let mut uri = Uri::builder().scheme("http");
    uri = uri.authority(named.filter(|it| !it.is_empty()).unwrap_or("localhost"));
    uri = uri.path_and_query(parts.uri.path_and_query().map_or("/", |it| it.as_str()));
    uri.build().unwrap_or_else(|_| parts.uri.clone())
}
