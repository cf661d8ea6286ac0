//! The workers' threads: each has a runtime, accepts where it is told, and ends when it is cut.

use crate::accept::accept;
use crate::listen::{Listener, Place};
use crate::worker::{Shared, Worker};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Between two turns of a worker's clock: idle connections are let go of, clients told to go.
const TURN: Duration = Duration::from_millis(250);
/// Orders that wait for a worker: listening sockets come and go with tables.
const ORDERS_MAX: usize = 256;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Accept here too.
    Listen(Listener),
    /// Accept here no more.
    Ignore(Place),
}

/// A worker's thread, as the gateway sees it.
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
        let (orders, coming) = mpsc::channel(ORDERS_MAX);
        let (begun, begins) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("traffic-{number}")).spawn(move || {
            // A runtime that never leaves its thread: its tasks need no set of their own to be woken through.
            let mut builder = tokio::runtime::Builder::new_current_thread();
            match builder.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = begun.send(Ok(()));
                    runtime.block_on(Crew::new(&shared).run(coming));
                }
                Err(error) => {
                    let _ = begun.send(Err(error));
                }
            }
        })?;
        begins.recv().map_err(io::Error::other)??;
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

/// What a worker's thread does.
struct Crew {
    worker: Rc<Worker>,
    accepting: BTreeMap<Place, Vec<AbortHandle>>,
}

impl Crew {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { worker: Worker::new(Arc::clone(shared)), accepting: BTreeMap::new() }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let (cut, leaving) = (self.worker.shared.cut.clone(), self.worker.shared.leaving.clone());
        let copies = Rc::clone(&self.worker.copies);
        tokio::task::spawn_local(async move { copies.send_off().await });
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Listen(listener)) => self.listen(listener),
                    Some(Order::Ignore(place)) => self.ignore(place),
                    None => return,
                },
                _ = turn.tick() => self.worker.turn(),
                () = leaving.cancelled(), if !self.worker.is_leaving() => self.worker.leave(),
                () = cut.cancelled() => return,
            }
        }
    }

    fn listen(&mut self, listener: Listener) {
        let place = listener.place;
        let task = tokio::task::spawn_local(accept(Rc::clone(&self.worker), listener));
        self.accepting.entry(place).or_default().push(task.abort_handle());
    }

    fn ignore(&mut self, place: Place) {
        for task in self.accepting.remove(&place).into_iter().flatten() {
            task.abort();
        }
    }
}
