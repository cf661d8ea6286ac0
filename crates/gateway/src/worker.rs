//! A worker: what one thread has for itself. Workers share the table in force and the counters, and nothing else.

use crate::access::AccessLog;
use crate::alarm::Alarms;
use crate::choose::RouteState;
use crate::config::GatewayConfig;
use crate::pool::Pool;
use crate::table::Served;
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) served: Arc<Served>,
    /// A place for each connection that a client may have.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) access: Option<AccessLog>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// The gateway leaves: nothing is accepted, clients are told to go.
    pub(crate) leaving: CancellationToken,
    /// The next program has the listening sockets, and accepts.
    pub(crate) relieved: CancellationToken,
    /// What is left is cut.
    pub(crate) cut: CancellationToken,
}

/// Something that is looked at on each turn of a worker's clock.
pub(crate) trait Look {
    /// Looks whether something is to be done.
    fn look(&self);
}

/// A worker, as everything on its thread sees it.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    /// Copies have connections of their own, so that they cannot take those of requests.
    pub(crate) copies: Rc<Pool>,
    pub(crate) alarms: Alarms,
    looked_at: RefCell<Vec<Weak<dyn Look>>>,
    /// As in [`Shared::leaving`], without asking what all threads ask.
    leaving: Cell<bool>,
    /// Ids are a random number and a count, so that one costs no system call.
    id_base: u64,
    id_next: Cell<u64>,
}

impl Worker {
    /// A worker of the thread that calls.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            pool: Rc::default(),
            copies: Rc::default(),
            alarms: Alarms::default(),
            looked_at: RefCell::default(),
            leaving: Cell::new(false),
            id_base: fastrand::u64(..),
            id_next: Cell::new(fastrand::u64(..1 << 32)),
        })
    }

    /// Lets go of idle connections, and looks at clients.
    pub(crate) fn turn(&self) {
        self.pool.sweep();
        self.copies.sweep();
        self.looked_at.borrow_mut().retain(|it| {
            let it = it.upgrade();
            it.iter().for_each(|it| it.look());
            it.is_some()
        });
    }

    /// Whether the gateway leaves.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The gateway leaves: clients are told.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
        self.turn();
    }

    /// Looked at on each turn, while it lives.
    pub(crate) fn remember(&self, it: Weak<dyn Look>) {
        self.looked_at.borrow_mut().push(it);
    }

    /// The route of a request by the table in force.
    pub(crate) fn find(&self, host: Option<&str>, path: &str) -> Option<Arc<RouteState>> {
        self.shared.served.load().find(host, path).cloned()
    }

    /// An id for a request that came without one.
    pub(crate) fn fresh_id(&self) -> HeaderValue {
        let count = self.id_next.get();
        self.id_next.set(count.wrapping_add(1));
        let mut text = [0; 32];
        for (at, digit) in text.iter_mut().enumerate() {
            let number = if at < 16 { self.id_base } else { count };
            let shift = 60 - 4 * (at % 16);
            *digit = b"0123456789abcdef"[(number >> shift & 15) as usize];
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}
