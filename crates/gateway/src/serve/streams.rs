//! The streams of a client that speaks HTTP/2: how many are open and since when none is, and that each takes its answer.
//!
//! A client gives a stream room for as much of its answer as it takes. One that gives none, and goes on reading all else, holds
//! the answer without end; its connection says nothing of that. So whoever works a stream looks whether it waits for the
//! instance or for the client: [`Taking`] is what the answer's body left there when it was asked.

use super::client::Client;
use crate::body::Silence;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// What became of an answer's body in the latest piece of work on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Taking {
    /// It was not asked for more: there is none, or no room for it at the client.
    #[default]
    Nothing,
    /// There is one now, or the client took a piece.
    Some,
    /// It was asked for more than the instance has sent.
    Waiting,
    /// The client took nothing for too long, and is cut off.
    Never,
}

/// How many streams of a connection are open.
#[derive(Debug)]
pub(super) struct Open {
    count: Cell<usize>,
    /// When the last of them ended, or the connection began.
    none_since: Cell<Instant>,
    /// Whether there was one.
    ever: Cell<bool>,
}

impl Default for Open {
    fn default() -> Self {
        Self { count: Cell::default(), none_since: Cell::new(Instant::now()), ever: Cell::default() }
    }
}

impl Open {
    fn begin(&self) {
        self.count.set(self.count.get() + 1);
        self.ever.set(true);
    }

    fn end(&self) {
        self.count.set(self.count.get() - 1);
        if self.count.get() == 0 {
            self.none_since.set(Instant::now());
        }
    }

    /// Whether there is none, and has been none for so long.
    pub(super) fn none_for(&self, long: Duration) -> bool {
        self.count.get() == 0 && self.none_since.get().elapsed() >= long
    }

    /// Whether there ever was one.
    pub(super) fn was_any(&self) -> bool {
        self.ever.get()
    }
}

/// Runs the streams of a client on the worker that has its connection.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Rc<Client>);

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let counted = Counted::new(Rc::clone(&self.0));
        tokio::task::spawn_local(async move { counted.work(stream).await });
    }
}

/// A stream that counts as open.
struct Counted(Rc<Client>);

impl Counted {
    fn new(client: Rc<Client>) -> Self {
        client.open.begin();
        Self(client)
    }

    /// Works a stream until it ends, or its client takes nothing for too long: dropped, it is reset.
    async fn work(self, stream: impl Future) {
        let client = &*self.0;
        let limits = &client.worker.shared.config.limits;
        let mut stuck = Silence::new(limits.send_timeout.duration());
        let mut stream = pin!(stream);
        let mut answers = false;
        poll_fn(|context| {
            client.taking.set(Taking::Nothing);
            if stream.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            match client.taking.get() {
                Taking::Nothing | Taking::Never => {}
                Taking::Some => {
                    answers = true;
                    stuck.broken();
                }
                Taking::Waiting => {
                    stuck.broken();
                    return Poll::Pending;
                }
            }
            if answers && stuck.is_over_by(&client.worker.alarms, context) {
                client.taking.set(Taking::Never);
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        stuck.give_back(&client.worker.alarms);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.end();
    }
}
