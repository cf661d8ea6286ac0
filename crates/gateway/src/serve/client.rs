//! A client: whose answers are on their way to it, and how it is told that the gateway leaves.

use super::forwarded::{Forwarded, Origin};
use super::streams::{Open, Taking};
use crate::upstream::UpstreamState;
use crate::worker::{Look, Worker};
use http::HeaderMap;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio::sync::OwnedSemaphorePermit;

/// Instances whose answers a connection may be watched for; one with more at a time is not watched for all.
const WATCHED_MAX: usize = 64;

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// Whoever is at the other end.
    pub(crate) origin: Origin,
    /// What instances are told of it.
    pub(super) forwarded: Forwarded,
    http2: Cell<bool>,
    /// What the answer that is asked for now has of its client.
    pub(super) taking: Cell<Taking>,
    /// Streams that are open, where it speaks HTTP/2.
    pub(super) open: Open,
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
            forwarded: Forwarded::of(origin, &worker.shared.config.trusted_proxies),
            http2: Cell::new(false),
            taking: Cell::default(),
            open: Open::default(),
            watched: RefCell::default(),
            told: Cell::new(worker.is_leaving()),
            teller: RefCell::default(),
            place: worker.remember(this.clone()),
            _permit: permit,
        })
    }

    /// Who sent a request with these fields: the other end, or a client of it where it is a proxy.
    pub(super) fn asks(&self, headers: &HeaderMap) -> Origin {
        self.forwarded.asks(headers, &self.worker.shared.config.trusted_proxies)
    }

    /// It speaks HTTP/2: it can be told to go while it is answered.
    pub(super) fn speaks_http2(&self) {
        self.http2.set(true);
    }

    /// It speaks HTTP/2 and has had no request for as long as it may: hyper watches over those that speak HTTP/1.1.
    pub(super) fn is_idle(&self) -> bool {
        let patience = self.worker.shared.config.limits.header_timeout.duration();
        self.http2.get() && self.open.none_for(patience)
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

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.origin.address).finish()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.forget(self.place);
    }
}

impl Look for Client {
    /// Tells the client to go if the gateway leaves, an instance that still answers it has left its route, or it has asked for
    /// nothing for too long.
    fn look(&self) {
        let mut told = self.worker.is_leaving() || self.is_idle();
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
