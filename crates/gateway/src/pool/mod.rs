//! Connections to instances: each worker has its own, so that none is waited for and none is locked.
//!
//! An HTTP/1.1 connection carries one request at a time and comes back when its answer has been read to the end; the one
//! used last is used next, so that what a burst opened dies of age. HTTP/2 connections are shared by all streams.

mod connect;
mod driven;
mod form;
mod http1;
mod http2;

pub(crate) use connect::connect;
pub(crate) use form::request;
pub(crate) use http1::Lease;

use crate::body::SentBody;
use crate::upstream::{Serial, UpstreamState};
use baton_model::route::HttpProtocol;
use http::{Request, Response};
use hyper::body::Incoming;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Idle connections that are kept to one instance by one worker.
const IDLE_MAX: usize = 256;
/// An idle connection is not used again after this: below the five seconds after which common servers close one, so that
/// a request seldom meets a connection that is being closed.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// For a request that may not be repeated.
const IDLE_FOR_UNSAFE: Duration = Duration::from_secs(1);

/// Where a request goes, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) upstream: Arc<UpstreamState>,
    pub(crate) protocol: HttpProtocol,
    pub(crate) connect_timeout: Duration,
    /// Its connection is worked by a task of its own: both directions go on while the client takes nothing of the answer.
    pub(crate) by_task: bool,
    /// It may be sent again if its connection turns out to be closed.
    pub(crate) repeatable: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendError {
    pub(crate) cause: Cause,
    /// The connection had been used before: that it ended may say nothing of the instance.
    pub(crate) reused: bool,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection.
    Connect,
    /// The connection ended, or what came was no answer.
    Closed,
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    by_instance: RefCell<HashMap<Serial, Connections>>,
}

/// The connections to one instance.
#[derive(Debug)]
struct Connections {
    upstream: Arc<UpstreamState>,
    http1: Vec<http1::Idle>,
    http2: Rc<http2::Shared>,
}

impl Pool {
    /// Sends a request and waits for the head of its answer. The request is large, and so is not handed from one to the
    /// other: it is taken from where it lies when it is sent.
    ///
    /// # Errors
    /// [`SendError`]; the request lies there still, or again, if nothing of it was sent.
    pub(crate) async fn send(
        self: &Rc<Self>,
        target: &Target,
        request: &mut Option<Request<SentBody>>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        match target.protocol {
            HttpProtocol::Http1 => http1::send(self, target, request).await,
            HttpProtocol::Http2 => {
                let shared = self.with(&target.upstream, |it| Rc::clone(&it.http2));
                // Apart, so that requests by HTTP/1.1 need no room for it.
                Box::pin(http2::send(&shared, target, request)).await
            }
        }
    }

    fn with<T>(&self, upstream: &Arc<UpstreamState>, then: impl FnOnce(&mut Connections) -> T) -> T {
        let mut all = self.by_instance.borrow_mut();
        let connections = all.entry(upstream.serial()).or_insert_with(|| Connections {
            upstream: Arc::clone(upstream),
            http1: Vec::new(),
            http2: Rc::default(),
        });
        then(connections)
    }

    /// The connection that was used last, if it is young enough.
    fn take_http1(&self, target: &Target) -> Option<http1::Wire> {
        let most = if target.repeatable { IDLE_FOR } else { IDLE_FOR_UNSAFE };
        self.with(&target.upstream, |connections| {
            while let Some(idle) = connections.http1.pop() {
                if idle.since.elapsed() > most {
                    // All others are older. They may do for other requests.
                    if most == IDLE_FOR {
                        connections.http1.clear();
                    } else {
                        connections.http1.push(idle);
                    }
                    return None;
                }
                // One that has ended and was not looked at since gives the request back.
                if !idle.wire.is_closed() {
                    return Some(idle.wire);
                }
            }
            None
        })
    }

    fn put_http1(&self, upstream: &Arc<UpstreamState>, mut wire: http1::Wire) {
        if !wire.rests() {
            return;
        }
        self.with(upstream, |connections| {
            if connections.http1.len() < IDLE_MAX {
                connections.http1.push(http1::Idle { wire, since: Instant::now() });
            }
        });
    }

    /// Closes what is too old, or leads to an instance that no route names; for each turn of the worker's clock.
    pub(crate) fn sweep(&self) {
        self.by_instance.borrow_mut().retain(|_, connections| {
            let named = !connections.upstream.has_left();
            if !named {
                connections.http1.clear();
                connections.http2.leave();
            }
            connections.http1.retain_mut(|idle| idle.since.elapsed() <= IDLE_FOR && !idle.wire.has_ended());
            named || !connections.http1.is_empty()
        });
    }
}
