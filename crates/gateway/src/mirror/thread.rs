//! The thread on which copies are made: one for the whole gateway, behind the workers in the queue for processors, with
//! connections of its own. What it has no room for is counted and not sent.

use super::{CopyEvent, Posted, refuse, send};
use crate::pool::Pool;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Copies that wait for the thread: as many as some tens of milliseconds of it.
const WAITING_MAX: usize = 1024;
/// Bodies that wait for the thread.
const WAITING_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Copies that one worker gathers while it is at one connection.
const GATHERED_MAX: usize = 256;
/// Above 0 is behind whatever else wants a processor; see setpriority(2).
const NICE: i32 = 10;
/// Between two looks at idle connections.
const TURN: Duration = Duration::from_millis(250);

/// The way to the thread, for all workers.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    to: mpsc::Sender<Posted>,
    waiting_bytes: Arc<AtomicU64>,
}

/// One worker's way to the thread. What is posted goes once the worker has done what it is at, which is to write an answer.
#[derive(Debug)]
pub(crate) struct Outbox {
    way: Way,
    gathered: RefCell<VecDeque<Posted>>,
    wake: Notify,
}

impl Outbox {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, gathered: RefCell::default(), wake: Notify::new() }
    }

    pub(super) fn post(&self, posted: Posted) {
        let mut gathered = self.gathered.borrow_mut();
        if gathered.len() >= GATHERED_MAX {
            refuse(&posted.wanted, CopyEvent::NotFree);
            return;
        }
        gathered.push_back(posted);
        if gathered.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Sends off what is posted, for as long as the worker lives.
    pub(crate) async fn send_off(&self) {
        loop {
            self.wake.notified().await;
            let gathered = std::mem::take(&mut *self.gathered.borrow_mut());
            gathered.into_iter().for_each(|posted| self.way.send(posted));
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.gathered.get_mut().drain(..).for_each(|posted| refuse(&posted.wanted, CopyEvent::NotFree));
    }
}

impl Way {
    fn send(&self, posted: Posted) {
        let bytes = posted.wanted.body_bytes();
        if self.waiting_bytes.fetch_add(bytes, Relaxed) + bytes > WAITING_BYTES_MAX {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            refuse(&posted.wanted, CopyEvent::NotFree);
        } else if let Err(unsent) = self.to.try_send(posted) {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            refuse(&unsent.into_inner().wanted, CopyEvent::NotFree);
        }
    }
}

/// Starts the thread, which ends when it is cut.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn start(cut: CancellationToken) -> io::Result<(Way, std::thread::JoinHandle<()>)> {
    let (to, coming) = mpsc::channel(WAITING_MAX);
    let way = Way { to, waiting_bytes: Arc::default() };
    let waiting_bytes = Arc::clone(&way.waiting_bytes);
    let (begun, begins) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("copies".to_owned()).spawn(move || {
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::warn!(%error, "copies are made with the same priority as requests are answered");
        }
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
        {
            Ok(runtime) => {
                let _ = begun.send(Ok(()));
                runtime.block_on(work(coming, &waiting_bytes, &cut));
            }
            Err(error) => {
                let _ = begun.send(Err(error));
            }
        }
    })?;
    begins.recv().map_err(io::Error::other)??;
    Ok((way, thread))
}

async fn work(mut coming: mpsc::Receiver<Posted>, waiting_bytes: &AtomicU64, cut: &CancellationToken) {
    let pool: Rc<Pool> = Rc::default();
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            posted = coming.recv() => {
                let Some(posted) = posted else { return };
                waiting_bytes.fetch_sub(posted.wanted.body_bytes(), Relaxed);
                send(posted, &pool);
            }
            _ = turn.tick() => pool.sweep(),
            () = cut.cancelled() => break,
        }
    }
    coming.close();
    while let Ok(posted) = coming.try_recv() {
        refuse(&posted.wanted, CopyEvent::NotFree);
    }
}
