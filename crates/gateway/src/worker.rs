//! A worker: what one thread has for itself. Workers share the table in force and the counters, and nothing else.

use crate::access::AccessLog;
use crate::alarm::Alarms;
use crate::choose::RouteState;
use crate::config::GatewayConfig;
use crate::mirror::{Outbox, Way};
use crate::pool::Pool;
use crate::table::Served;
use bytes::BytesMut;
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Digits of an id.
const ID_LENGTH: usize = 32;
/// Ids whose texts lie together.
const IDS_TOGETHER: usize = 128;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) served: Arc<Served>,
    /// A place for each connection that a client may have.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) access: Option<AccessLog>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// To the thread that makes copies.
    pub(crate) copies: Way,
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
    /// What is to be copied leaves the worker here.
    pub(crate) copies: Rc<Outbox>,
    pub(crate) alarms: Alarms,
    looked_at: RefCell<LookedAt>,
    /// As in [`Shared::leaving`], without asking what all threads ask.
    leaving: Cell<bool>,
    /// Ids are a random number and a count, so that one costs no system call.
    id_begins: [u8; ID_LENGTH / 2],
    id_next: Cell<u64>,
    /// The texts of many ids lie in one piece of memory.
    id_texts: RefCell<BytesMut>,
}

/// What is looked at, at places that are used again.
#[derive(Default)]
struct LookedAt {
    places: Vec<Option<Weak<dyn Look>>>,
    free: Vec<usize>,
}

impl Worker {
    /// A worker of the thread that calls.
    pub(crate) fn new(shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            pool: Rc::default(),
            copies: Rc::new(Outbox::new(shared.copies.clone())),
            shared,
            alarms: Alarms::default(),
            looked_at: RefCell::default(),
            leaving: Cell::new(false),
            id_begins: digits(fastrand::u64(..)),
            id_next: Cell::new(fastrand::u64(..1 << 32)),
            id_texts: RefCell::default(),
        })
    }

    /// Lets go of idle connections, and looks at clients.
    pub(crate) fn turn(&self) {
        self.pool.sweep();
        // What is looked at may end then, and be forgotten.
        let there: Vec<Rc<dyn Look>> =
            self.looked_at.borrow().places.iter().flatten().filter_map(Weak::upgrade).collect();
        there.iter().for_each(|it| it.look());
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

    /// Looked at on each turn, until the place that this gives is forgotten.
    pub(crate) fn remember(&self, it: Weak<dyn Look>) -> usize {
        let mut looked_at = self.looked_at.borrow_mut();
        match looked_at.free.pop() {
            Some(place) => {
                looked_at.places[place] = Some(it);
                place
            }
            None => {
                looked_at.places.push(Some(it));
                looked_at.places.len() - 1
            }
        }
    }

    /// What was looked at there has ended.
    pub(crate) fn forget(&self, place: usize) {
        let mut looked_at = self.looked_at.borrow_mut();
        looked_at.places[place] = None;
        looked_at.free.push(place);
    }

    /// The route of a request by the table in force.
    pub(crate) fn find(&self, host: Option<&str>, path: &str) -> Option<Arc<RouteState>> {
        self.shared.served.load().find(host, path).cloned()
    }

    /// An id for a request that came without one.
    pub(crate) fn fresh_id(&self) -> HeaderValue {
        let count = self.id_next.get();
        self.id_next.set(count.wrapping_add(1));
        let mut texts = self.id_texts.borrow_mut();
        if texts.capacity() < ID_LENGTH {
            texts.reserve(ID_LENGTH * IDS_TOGETHER);
        }
        texts.extend_from_slice(&self.id_begins);
        texts.extend_from_slice(&digits(count));
        HeaderValue::from_maybe_shared(texts.split().freeze()).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// A number in hexadecimal digits.
fn digits(number: u64) -> [u8; ID_LENGTH / 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; ID_LENGTH / 2];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn a_number_is_written_as_anybody_writes_it() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(String::from_utf8_lossy(&digits(number)), format!("{number:016x}"));
        }
    }
}
