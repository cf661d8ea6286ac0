//! HTTP/1.1 connections: taken from the pool or opened, and given back once the answer is read.

use super::connect::connect;
use super::driven::Driven;
use super::{Cause, Pool, SendError, Target};
use crate::body::SentBody;
use crate::joined::Joined;
use crate::upstream::UpstreamState;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// A connection: the end that takes requests, and the work that there is with it.
#[derive(Debug)]
pub(crate) struct Wire {
    sender: http1::SendRequest<SentBody>,
    /// `None` where a task of its own does the work.
    driven: Option<Driven>,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) wire: Wire,
    pub(super) since: Instant,
}

impl Wire {
    /// Whether it is known to be of no use any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it has ended while nobody looked.
    pub(super) fn has_ended(&mut self) -> bool {
        if let Some(driven) = &mut self.driven {
            driven.look();
        }
        self.is_closed()
    }

    /// Whether it can take the next request. It wakes nobody from now on.
    pub(super) fn rests(&mut self) -> bool {
        if let Some(driven) = &mut self.driven {
            driven.rest();
            if !self.sender.is_ready() {
                driven.look();
                return self.sender.is_ready();
            }
        }
        !self.is_closed()
    }
}

/// The right to a connection while an answer is read from it. Dropped, it closes an HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) enum Lease {
    /// The only request on its connection.
    Http1 {
        /// The connection.
        wire: Wire,
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
            Self::Http1 { wire, pool, upstream } => pool.put_http1(&upstream, wire),
            Self::Http2 => {}
        }
    }

    /// The next piece of the body of the answer that this is for.
    pub(crate) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Http1 { wire: Wire { driven: Some(driven), .. }, .. } => driven.poll_frame(body, context),
            Self::Http1 { wire: Wire { driven: None, .. }, .. } | Self::Http2 => {
                Pin::new(body).poll_frame(context)
            }
        }
    }
}

pub(super) async fn send(
    pool: &Rc<Pool>,
    target: &Target,
    request: &mut Option<Request<SentBody>>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    // At most what the pool has; each turn takes one out.
    while let Some(mut wire) = pool.take_http1(target) {
        if wire.driven.is_none() && wire.sender.ready().await.is_err() {
            continue;
        }
        match send_on(pool, target, wire, request, true).await {
            Err(_) if request.is_some() => {}
            other => return other,
        }
    }
    // Seldom, and much to keep: apart, it is no part of every request.
    match Box::pin(open(target)).await {
        Some(wire) => send_on(pool, target, wire, request, false).await,
        None => Err(SendError { cause: Cause::Connect, reused: false }),
    }
}

async fn send_on(
    pool: &Rc<Pool>,
    target: &Target,
    mut wire: Wire,
    request: &mut Option<Request<SentBody>>,
    reused: bool,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let closed = SendError { cause: Cause::Closed, reused };
    if target.by_task
        && let Some(driven) = wire.driven.take()
    {
        driven.spawn();
    }
    let sent = wire.sender.try_send_request(request.take().ok_or(closed)?);
    let answered = match &mut wire.driven {
        Some(driven) => driven.answer(sent).await,
        None => sent.await,
    };
    match answered {
        Ok(response) => {
            let upstream = Arc::clone(&target.upstream);
            Ok((response, Lease::Http1 { wire, pool: Rc::clone(pool), upstream }))
        }
        Err(mut error) => {
            *request = error.take_message();
            tracing::debug!(upstream = %target.upstream.id(), error = %error.error(), reused, "no answer");
            Err(closed)
        }
    }
}

async fn open(target: &Target) -> Option<Wire> {
    let address = target.upstream.address();
    let opened = async {
        let stream = connect(address, target.connect_timeout).await?;
        let shaken = http1::Builder::new().handshake(TokioIo::new(Joined::new(stream))).await;
        shaken.map_err(std::io::Error::other)
    };
    match opened.await {
        Ok((sender, connection)) => Some(Wire { sender, driven: Some(Driven::new(connection, address)) }),
        Err(error) => {
            tracing::debug!(upstream = %target.upstream.id(), %address, %error, "no connection");
            None
        }
    }
}
