//! A worker: one thread with a runtime, listening sockets and connections of its own. Workers share the table in force
//! and the counters, and nothing else.

use crate::access::AccessLog;
use crate::choose::RouteState;
use crate::config::GatewayConfig;
use crate::listen::{Listener, Place, accept};
use crate::pool::Pool;
use crate::serve::{Client, Problem};
use crate::table::Served;
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Between two turns of a worker's clock: idle connections are let go of, clients told to go.
const TURN: Duration = Duration::from_millis(250);
/// Orders that wait for a worker: listening sockets come and go with tables.
const ORDERS_MAX: usize = 256;

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

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Accept here too.
    Listen(Listener),
    /// Accept here no more.
    Ignore(Place),
}

/// A worker, as its own thread sees it.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    /// Copies have connections of their own, so that they cannot take those of requests.
    pub(crate) copies: Rc<Pool>,
    clients: RefCell<Vec<Weak<Client>>>,
    accepting: RefCell<BTreeMap<Place, Vec<AbortHandle>>>,
    /// Ids are a random number and a count, so that one costs no system call.
    id_base: u64,
    id_next: Cell<u64>,
}

/// A worker, as the gateway sees it.
#[derive(Debug)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    /// Starts a worker.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(shared: Arc<Shared>, number: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, coming) = mpsc::channel(ORDERS_MAX);
        let thread = std::thread::Builder::new().name(format!("traffic-{number}")).spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, Worker::new(shared).run(coming));
        })?;
        Ok(Self { orders, thread })
    }

    /// Tells the worker something. A worker that is gone hears nothing.
    pub(crate) async fn tell(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::debug!("a worker is gone already");
        }
    }

    /// Waits until the worker's thread is gone. Blocks.
    pub(crate) fn join(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            pool: Rc::default(),
            copies: Rc::default(),
            clients: RefCell::default(),
            accepting: RefCell::default(),
            id_base: fastrand::u64(..),
            id_next: Cell::new(fastrand::u64(..1 << 32)),
        })
    }

    async fn run(self: Rc<Self>, mut orders: mpsc::Receiver<Order>) {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Listen(listener)) => self.listen(listener),
                    Some(Order::Ignore(place)) => self.ignore(place),
                    None => return,
                },
                _ = turn.tick() => self.turn(),
                () = self.shared.cut.cancelled() => return,
            }
        }
    }

    fn listen(self: &Rc<Self>, listener: Listener) {
        let place = listener.place;
        let task = tokio::task::spawn_local(accept(Rc::clone(self), listener));
        self.accepting.borrow_mut().entry(place).or_default().push(task.abort_handle());
    }

    fn ignore(&self, place: Place) {
        for task in self.accepting.borrow_mut().remove(&place).into_iter().flatten() {
            task.abort();
        }
    }

    fn turn(&self) {
        self.pool.sweep();
        self.copies.sweep();
        self.clients.borrow_mut().retain(|client| {
            let client = client.upgrade();
            client.iter().for_each(|it| it.look());
            client.is_some()
        });
    }

    /// A client that is looked at on each turn.
    pub(crate) fn remember(&self, client: &Rc<Client>) {
        self.clients.borrow_mut().push(Rc::downgrade(client));
    }

    /// The route of a request by the table in force.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(&self, host: Option<&str>, path: &str) -> Result<Arc<RouteState>, Problem> {
        self.shared.served.load().find(host, path).cloned().ok_or(Problem::NoRoute)
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
