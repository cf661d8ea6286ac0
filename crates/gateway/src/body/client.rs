//! The body of a client's request as it comes, and what becomes of the rest of it once the request is answered.
//!
//! A request may be answered before its body has come: by an instance that needs no more of it (413, 401), or by the gateway
//! itself. To close the connection then would reset it under a client that still sends, and many a client does not look for
//! an answer once it cannot send. So what it still sends is read and thrown away, for a while; the connection goes on or
//! ends as HTTP says once that is over. On HTTP/2 it could be told to stop by a reset of its stream, of which many a client thinks
//! that there is no answer.

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The rest of a body is read for no longer.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// And no longer than this after its latest piece.
const REST_SILENT: Duration = Duration::from_secs(5);

/// The body of a client's request.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// `None` once it has ended.
    body: Option<Incoming>,
    /// Whether a client that still sends is to be heard to its end.
    hears_rest: bool,
    /// The client sends, and does not wait to be asked for it (RFC 9110, 10.1.1).
    sends: bool,
}

impl ClientBody {
    /// The body of a request with this head.
    pub(crate) fn new(body: Incoming, parts: &Parts) -> Self {
        if body.is_end_stream() {
            return Self { body: None, hears_rest: false, sends: false };
        }
        Self { body: Some(body), hears_rest: true, sends: !parts.headers.contains_key(EXPECT) }
    }

    /// What is left of it will not come.
    pub(crate) fn give_up(&mut self) {
        self.hears_rest = false;
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // To read is to ask.
        self.sends = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && self.hears_rest
            && self.sends
            && !body.is_end_stream()
        {
            tokio::task::spawn_local(hear_rest(body));
        }
    }
}

/// Reads what is left of a body, and throws it away.
async fn hear_rest(mut body: Incoming) {
    let all = async { while let Ok(Some(Ok(_))) = tokio::time::timeout(REST_SILENT, body.frame()).await {} };
    // What is left after that is met by the end of the connection.
    let _ = tokio::time::timeout(REST_WITHIN, all).await;
}
