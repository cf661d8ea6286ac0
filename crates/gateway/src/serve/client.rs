//! A client's connection: which HTTP it speaks, what it may send, and how it is told that the gateway leaves.

use super::carry::carry;
use super::forwarded::{Forwarded, Origin};
use super::respond::SLOW_HEAD;
use crate::alarm::{Alarm, HeadTimer};
use crate::listen::{First, Spoken};
use crate::pool::Local;
use crate::upstream::UpstreamState;
use crate::worker::{Look, Worker};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;

/// A client that is silent on HTTP/2 for this long is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// One that does not say so by then is closed.
const PING_ANSWER: Duration = Duration::from_secs(10);
/// Room for bodies that come fast, for a stream and for a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What of an answer waits for a slow client on each stream.
const SEND_BUFFER: usize = 256 * 1024;
/// As many as hyper allows by itself: it has room for them without asking for memory, which it does for any number that
/// it is told.
const USUAL_HEADERS: usize = 100;
/// Instances whose answers a connection may be watched for; one with more at a time is not watched for all.
const WATCHED_MAX: usize = 64;

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) origin: Origin,
    /// What instances are told of it.
    pub(super) forwarded: Forwarded,
    http2: Cell<bool>,
    /// Instances that answer on this connection, or did.
    watched: RefCell<Vec<Arc<UpstreamState>>>,
    /// The client shall send its next request on another connection.
    told: Cell<bool>,
    /// Who tells it so.
    teller: RefCell<Option<Waker>>,
    /// Where the worker remembers it.
    place: usize,
    /// Counts the connection while it, or what became of it, lives.
    _permit: OwnedSemaphorePermit,
}

impl Client {
    pub(crate) fn new(worker: &Rc<Worker>, origin: Origin, permit: OwnedSemaphorePermit) -> Rc<Self> {
        Rc::new_cyclic(|this: &Weak<Self>| Self {
            worker: Rc::clone(worker),
            origin,
            forwarded: Forwarded::of(origin),
            http2: Cell::new(false),
            watched: RefCell::default(),
            told: Cell::new(worker.is_leaving()),
            teller: RefCell::default(),
            place: worker.remember(this.clone()),
            _permit: permit,
        })
    }

    /// An instance answers on this connection. When it leaves its route, the client is told to go (GOAWAY): calls that
    /// last are ended by the client, and new ones come on a new connection.
    pub(crate) fn watch(&self, upstream: &Arc<UpstreamState>) {
        if !self.http2.get() {
            return;
        }
        let mut watched = self.watched.borrow_mut();
        if !watched.iter().any(|it| Arc::ptr_eq(it, upstream)) && watched.len() < WATCHED_MAX {
            watched.push(Arc::clone(upstream));
        }
    }

    /// Waits for what the client does; `None` when it is to be told to go before that.
    pub(crate) async fn until_told<T>(&self, mut doing: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(done) = doing.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            if self.told.get() {
                return Poll::Ready(None);
            }
            let mut teller = self.teller.borrow_mut();
            if !teller.as_ref().is_some_and(|it| it.will_wake(context.waker())) {
                *teller = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The same, and then waits for it as long as a gateway that leaves waits for clients that are idle.
    pub(crate) async fn until_lingered<T>(&self, mut doing: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match self.until_told(doing.as_mut()).await {
            Some(done) => Some(done),
            None => tokio::time::timeout(self.worker.shared.config.drain.linger.duration(), doing).await.ok(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.forget(self.place);
    }
}

impl Look for Client {
    /// Tells the client to go if the gateway leaves, or an instance that still answers it has left its route.
    fn look(&self) {
        let mut told = self.worker.is_leaving();
        self.watched.borrow_mut().retain(|it| {
            told |= it.has_left() && it.in_flight() > 0;
            !it.has_left()
        });
        if told
            && !self.told.replace(true)
            && let Some(teller) = self.teller.take()
        {
            teller.wake();
        }
    }
}

/// Serves a connection until it ends. `alarm` was for its first bytes.
pub(crate) async fn serve<T>(client: Rc<Client>, spoken: Spoken, stream: First<T>, alarm: Option<Alarm>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match spoken {
        Spoken::Http1 => {
            let timer = alarm.map_or_else(HeadTimer::default, HeadTimer::with);
            serve_http1(&client, stream, &timer).await;
            if let Some(alarm) = timer.take() {
                client.worker.alarms.give_back(alarm);
            }
        }
        Spoken::Http2 => {
            client.http2.set(true);
            // Boxed, so that connections of HTTP/1.1 need no room for it.
            Box::pin(serve_http2(client, stream)).await;
        }
    }
}

async fn serve_http1<T>(client: &Rc<Client>, stream: First<T>, timer: &HeadTimer)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &client.worker.shared.config.limits;
    let service = service_fn(|request| {
        let client = Rc::clone(client);
        async move { Ok::<_, Infallible>(carry(client, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(timer.clone())
        .header_read_timeout(limits.header_timeout.duration())
        .max_header_size(limits.header_bytes);
    if limits.headers != USUAL_HEADERS {
        builder.max_headers(limits.headers);
    }
    let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let ended = match client.until_lingered(Pin::new(&mut connection)).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    tracing::debug!(client = %client.origin.address, %error, "a connection ended");
    if !error.is_timeout() {
        return;
    }
    // Silence between two requests is no fault; a head that was begun and not ended is.
    if let Some(parts) = connection.into_parts().filter(|parts| !parts.read_buf.is_empty()) {
        let mut stream = parts.io.into_inner();
        let _ = stream.write_all(SLOW_HEAD).await;
        let _ = stream.shutdown().await;
    }
}

async fn serve_http2<T>(client: Rc<Client>, stream: First<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::clone(&client.worker.shared);
    let limits = &shared.config.limits;
    let service = service_fn(|request| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(carry(client, request).await) }
    });
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match client.until_told(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %client.origin.address, %error, "a connection ended");
    }
}
