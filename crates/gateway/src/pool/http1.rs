//! HTTP/1.1 connections: taken from the pool or opened, and given back once the answer is read.

use super::connect::connect;
use super::{Cause, Pool, SendError, Target};
use crate::body::SentBody;
use crate::upstream::UpstreamState;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The sending end of a connection.
pub(super) type Sender = http1::SendRequest<SentBody>;

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) sender: Sender,
    pub(super) since: Instant,
}

/// The right to a connection while an answer is read from it. Dropped, it closes an HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) enum Lease {
    /// The only request on its connection.
    Http1 {
        /// The connection.
        sender: http1::SendRequest<SentBody>,
        /// Where it came from.
        pool: Rc<Pool>,
        /// Where it leads.
        upstream: Arc<UpstreamState>,
    },
    /// One of many streams.
    Http2,
}

impl Lease {
    /// The answer was read to its end, and all of the request was sent: the connection may carry the next request.
    pub(crate) fn give_back(self) {
        match self {
            Self::Http1 { sender, pool, upstream } => pool.put_http1(&upstream, sender),
            Self::Http2 => {}
        }
    }
}

pub(super) async fn send(
    pool: &Rc<Pool>,
    target: &Target,
    request: Request<SentBody>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let mut request = request;
    // At most what the pool has; each turn takes one out.
    while let Some(mut sender) = pool.take_http1(target) {
        if sender.ready().await.is_err() {
            continue;
        }
        match send_on(pool, target, sender, request, true).await {
            Err(SendError { unsent: Some(back), .. }) => request = back,
            other => return other,
        }
    }
    match open(target).await {
        Some(sender) => send_on(pool, target, sender, request, false).await,
        None => Err(SendError { cause: Cause::Connect, unsent: Some(request), reused: false }),
    }
}

async fn send_on(
    pool: &Rc<Pool>,
    target: &Target,
    mut sender: Sender,
    request: Request<SentBody>,
    reused: bool,
) -> Result<(Response<Incoming>, Lease), SendError> {
    match sender.try_send_request(request).await {
        Ok(response) => {
            let upstream = Arc::clone(&target.upstream);
            Ok((response, Lease::Http1 { sender, pool: Rc::clone(pool), upstream }))
        }
        Err(mut error) => {
            let unsent = error.take_message();
            tracing::debug!(upstream = %target.upstream.id(), error = %error.error(), reused, "no answer");
            Err(SendError { cause: Cause::Closed, unsent, reused })
        }
    }
}

async fn open(target: &Target) -> Option<Sender> {
    let address = target.upstream.address();
    let opened = async {
        let stream = connect(address, target.connect_timeout).await?;
        let shaken = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        shaken.map_err(std::io::Error::other)
    };
    match opened.await {
        Ok((sender, connection)) => {
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%address, %error, "a connection to an instance ended");
                }
            });
            Some(sender)
        }
        Err(error) => {
            tracing::debug!(upstream = %target.upstream.id(), %address, %error, "no connection");
            None
        }
    }
}
