//! What the live path has of a copy: it keeps the request until its client is answered, notes what that answer is, and lets both
//! go. Nothing is encoded, sent or compared here.

use super::{Live, Outbox, Posted, Wanted};
use bytes::Bytes;
use http::StatusCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Of each body this much is compared.
pub(super) const COMPARED_MAX: usize = 256 * 1024;
/// A copy waits for the end of the answer for no longer: the next piece of one that goes on takes it along.
const WAITS: Duration = Duration::from_secs(1);

/// A request that is to be copied, and its answer as it goes by. However that ends, the copy goes when this does.
#[derive(Debug)]
pub(crate) struct LiveCopy {
    begun: Instant,
    status: StatusCode,
    latency: Duration,
    /// As it came, not copied; where bodies are compared.
    body: Option<Vec<Bytes>>,
    kept_bytes: usize,
    compared: Option<oneshot::Sender<Live>>,
    posted: Option<Posted>,
    outbox: Rc<Outbox>,
}

impl LiveCopy {
    /// The head of the answer is there, to a request that was begun at `begun`.
    pub(crate) fn answered(wanted: Wanted, begun: Instant, status: StatusCode, outbox: &Rc<Outbox>) -> Self {
        let (compared, live) = oneshot::channel();
        Self {
            begun,
            status,
            latency: begun.elapsed(),
            body: wanted.compares_bodies().then(Vec::new),
            kept_bytes: 0,
            compared: Some(compared),
            posted: Some(Posted { wanted, live: Some(live) }),
            outbox: Rc::clone(outbox),
        }
    }

    /// A piece of the body.
    pub(crate) fn add(&mut self, piece: &Bytes) {
        if let Some(body) = &mut self.body {
            let kept = piece.len().min(COMPARED_MAX.saturating_sub(self.kept_bytes));
            if kept > 0 {
                body.push(piece.slice(..kept));
                self.kept_bytes += kept;
            }
        }
        if self.posted.is_some() && self.begun.elapsed() > WAITS {
            self.post();
        }
    }

    /// All of it went by.
    pub(crate) fn ended(mut self) {
        let live = Live { status: self.status, latency: self.latency, body: self.body.take() };
        if let Some(compared) = self.compared.take() {
            // Nobody waits for it where the copy was not sent.
            let _ = compared.send(live);
        }
    }

    fn post(&mut self) {
        if let Some(posted) = self.posted.take() {
            self.outbox.post(posted);
        }
    }
}

impl Drop for LiveCopy {
    fn drop(&mut self) {
        self.post();
    }
}
