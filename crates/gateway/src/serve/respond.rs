//! What the gateway answers by itself: one problem, one status, one sentence. No other file makes an answer.

use super::body::AnswerBody;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SERVER};
use http::{Response, StatusCode};
use std::fmt;

/// Seconds after which a client that was refused may come again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// Who answers: it tells a problem of the gateway's from one of the service's.
const WHO: HeaderValue = HeaderValue::from_static("baton");

/// Why a request is not answered by an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is not what RFC 9110 or 9112 allow.
    Malformed(&'static str),
    /// A transfer coding that is not known here (RFC 9112, 6.1).
    Coding,
    /// A method that a gateway does not carry.
    Method,
    /// No route takes this host and path.
    NoRoute,
    /// It has more fields than a head may have.
    TooManyFields,
    /// Its body is larger than the route allows.
    BodyTooLarge,
    /// Its body did not come.
    SlowBody,
    /// There is no instance, or none that is well.
    NoInstance,
    /// All instances have as much as they may, and so has the queue.
    Overload,
    /// It waited as long as it may.
    Waited,
    /// No connection to an instance, or it ended without an answer.
    Upstream,
    /// An instance has it, and did not answer in time.
    Timeout,
}

impl Problem {
    /// The status that says so.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Coding | Self::Method => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoInstance | Self::Overload | Self::Waited => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether the rest of the request may still be under way, so that nothing can follow it on its connection.
    const fn ends_connection(self) -> bool {
        match self {
            Self::Malformed(_) | Self::Coding | Self::BodyTooLarge | Self::SlowBody => true,
            Self::Method
            | Self::NoRoute
            | Self::TooManyFields
            | Self::NoInstance
            | Self::Overload
            | Self::Waited
            | Self::Upstream
            | Self::Timeout => false,
        }
    }

    /// The status of gRPC that says the same (its "HTTP to gRPC Status Code Mapping", and for limits `8`).
    const fn grpc_status(self) -> HeaderValue {
        match self {
            Self::Malformed(_) => HeaderValue::from_static("13"),
            Self::Coding | Self::Method | Self::NoRoute => HeaderValue::from_static("12"),
            Self::BodyTooLarge | Self::TooManyFields => HeaderValue::from_static("8"),
            Self::Timeout | Self::SlowBody => HeaderValue::from_static("4"),
            Self::NoInstance | Self::Overload | Self::Waited | Self::Upstream => {
                HeaderValue::from_static("14")
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(why) => why,
            Self::Coding => "a transfer coding other than chunked",
            Self::Method => "a method that is not carried here",
            Self::NoRoute => "no route takes this host and path",
            Self::TooManyFields => "more header fields than allowed",
            Self::BodyTooLarge => "the body is larger than allowed",
            Self::SlowBody => "the body did not come in time",
            Self::NoInstance => "no instance is there for it",
            Self::Overload => "too many requests wait already",
            Self::Waited => "no instance was free in time",
            Self::Upstream => "the instance ended without an answer",
            Self::Timeout => "the instance did not answer in time",
        })
    }
}

/// The answer to an HTTP request.
pub(crate) fn answer(problem: Problem) -> Response<AnswerBody> {
    let text = Bytes::from(format!("{problem}\n"));
    let mut response = Response::new(AnswerBody::whole(text.clone()));
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(SERVER, WHO);
    if problem.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if problem.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a call of gRPC: its status is in the trailers, and here there is nothing else ("Trailers-Only").
pub(crate) fn grpc_answer(problem: Problem) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", problem.grpc_status());
    if let Ok(message) = HeaderValue::from_str(&problem.to_string()) {
        headers.insert("grpc-message", message);
    }
    headers.insert(SERVER, WHO);
    response
}

/// What is written to an HTTP/1.1 connection whose request head did not come in time.
pub(crate) const SLOW_HEAD: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nserver: baton\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
