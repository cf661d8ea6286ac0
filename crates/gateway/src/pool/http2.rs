//! HTTP/2 connections with prior knowledge (RFC 9113, 3.3): few to each instance, each shared by many streams.

use super::connect::connect;
use super::{Cause, Lease, SendError, Target};
use crate::body::SentBody;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

/// Connections of one worker to one instance. Instances usually allow a hundred streams on each.
const CONNECTIONS_MAX: usize = 4;
/// A connection with streams that is silent for this long is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// One that does not say so by then is closed, with all its streams.
const PING_ANSWER: Duration = Duration::from_secs(3);
/// Room for answers that come fast, for a stream and for a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Runs hyper's tasks on the worker they belong to.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

type Sender = http2::SendRequest<SentBody>;

/// The connections to one instance.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    open: RefCell<Vec<Sender>>,
    /// Held while one is opened, so that a burst opens one and not a hundred.
    opening: tokio::sync::Mutex<()>,
    next: std::cell::Cell<usize>,
}

impl Shared {
    /// One with room for another stream; `None` where one is to be opened.
    fn take(&self) -> Option<Sender> {
        let mut open = self.open.borrow_mut();
        open.retain(|it| !it.is_closed());
        let count = open.len();
        if count == 0 {
            return None;
        }
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        (0..count).map(|at| &open[(first + at) % count]).find(|it| it.is_ready()).cloned()
    }

    fn is_full(&self) -> bool {
        self.open.borrow().len() >= CONNECTIONS_MAX
    }

    /// Lets go of all connections: they end with their last stream.
    pub(super) fn leave(&self) {
        self.open.borrow_mut().clear();
    }
}

pub(super) async fn send(
    shared: &Shared,
    target: &Target,
    request: &mut Option<Request<SentBody>>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let (mut sender, reused) = match shared.take() {
        Some(sender) => (sender, true),
        None => match obtain(shared, target).await {
            Some(sender) => (sender, false),
            None => return Err(SendError { cause: Cause::Connect, reused: false }),
        },
    };
    let closed = SendError { cause: Cause::Closed, reused };
    match sender.try_send_request(request.take().ok_or(closed)?).await {
        Ok(response) => Ok((response, Lease::Http2)),
        Err(mut error) => {
            *request = error.take_message();
            tracing::debug!(upstream = %target.upstream.id(), error = %error.error(), "no answer");
            Err(closed)
        }
    }
}

async fn obtain(shared: &Shared, target: &Target) -> Option<Sender> {
    let _turn = shared.opening.lock().await;
    // Whoever had the turn before may have opened one.
    if let Some(sender) = shared.take() {
        return Some(sender);
    }
    if shared.is_full() {
        return shared.open.borrow().first().cloned();
    }
    let sender = open(target).await?;
    shared.open.borrow_mut().push(sender.clone());
    Some(sender)
}

async fn open(target: &Target) -> Option<Sender> {
    let address = target.upstream.address();
    let opened = async {
        let stream = connect(address, target.connect_timeout).await?;
        let mut builder = http2::Builder::new(Local);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        builder.handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)
    };
    match opened.await {
        Ok((sender, connection)) => {
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.await {
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
