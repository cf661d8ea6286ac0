//! A connection to an instance whose work is done by whoever waits for its answer.
//!
//! hyper's connections are futures that somebody has to poll. In a task of its own, each request would wake that task
//! to be sent, that task the client's to hand over the answer, and the client's that one again for the next piece: five
//! polls for one request. Here the client's task polls the connection itself, and sleeps once.
//!
//! The connection wakes whoever polled it last ([`Relay`]); nobody while it waits in the pool, where a look from time to
//! time, and the next request, find out whether it has ended.

use crate::body::SentBody;
use crate::joined::Joined;
use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1::Connection;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::net::TcpStream;

/// hyper's side of it.
type Work = Connection<TokioIo<Joined<TcpStream>>, SentBody>;

/// A connection, and whom it wakes.
#[derive(Debug)]
pub(crate) struct Driven {
    /// `None` once it has ended.
    work: Option<Box<Work>>,
    relay: Arc<Relay>,
    /// The relay as the connection knows it.
    waker: Waker,
    address: SocketAddr,
}

/// Passes a wake-up on.
#[derive(Debug)]
struct Relay {
    to: Mutex<Waker>,
    /// Whoever is woken is at work already, and asks again by itself.
    quiet: AtomicBool,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.quiet.load(Relaxed) {
            self.to.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

impl Relay {
    /// From now on this one is woken.
    fn direct(&self, waker: &Waker) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        if !to.will_wake(waker) {
            to.clone_from(waker);
        }
    }
}

impl Driven {
    pub(super) fn new(work: Work, address: SocketAddr) -> Self {
        let relay = Arc::new(Relay { to: Mutex::new(Waker::noop().clone()), quiet: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&relay));
        Self { work: Some(Box::new(work)), relay, waker, address }
    }

    /// Leaves the work to a task of its own.
    pub(super) fn spawn(self) {
        let Self { work, address, .. } = self;
        let Some(work) = work else { return };
        tokio::task::spawn_local(async move {
            if let Err(error) = work.with_upgrades().await {
                tracing::debug!(%address, %error, "a connection to an instance ended");
            }
        });
    }

    /// Does what there is to do; the task is woken when there is more.
    fn work(&mut self, context: &Context<'_>) {
        self.relay.direct(context.waker());
        let Some(work) = &mut self.work else { return };
        if let Poll::Ready(ended) = Pin::new(work).poll(&mut Context::from_waker(&self.waker)) {
            if let Err(error) = ended {
                tracing::debug!(address = %self.address, %error, "a connection to an instance ended");
            }
            // What still waits for it is told so.
            self.work = None;
        }
    }

    /// It wakes nobody from now on.
    pub(super) fn rest(&self) {
        self.relay.direct(Waker::noop());
    }

    /// Looks at it without waiting for anything.
    pub(super) fn look(&mut self) {
        self.work(&Context::from_waker(Waker::noop()));
    }

    /// Waits for the answer to a request that was given to the connection.
    pub(super) async fn answer<E>(
        &mut self,
        sent: impl Future<Output = Result<Response<Incoming>, E>>,
    ) -> Result<Response<Incoming>, E> {
        // Only the connection's work completes it, so that nobody need be woken: it is asked after each piece of work.
        // Without tokio's budget, since a poll that is put off would have to wake somebody.
        let mut sent = std::pin::pin!(tokio::task::coop::unconstrained(sent));
        std::future::poll_fn(|context| {
            self.work(context);
            sent.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// The next piece of an answer's body that comes over this connection.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        context: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = self.take(body) {
            return Poll::Ready(frame);
        }
        self.work(context);
        self.take(body)
    }

    /// What was read already. That the connection may read on is no news: it does when it is asked for the next piece.
    fn take(&self, body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.relay.quiet.store(true, Relaxed);
        let frame = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
        self.relay.quiet.store(false, Relaxed);
        frame
    }
}
