//! How many requests are in flight to an upstream, and whether it may be sent any: one atomic number, so that no
//! request can slip in between "it has left the routes" and "nothing is in flight" (invariant `acked-drain`).

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Set while no route names the upstream.
const LEFT: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(crate) struct Flight(AtomicU64);

/// Why a request may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No route names it any more.
    Left,
    /// As many are in flight as may be.
    Full,
}

impl Flight {
    /// Counts a request in, unless `most` are in already.
    pub(crate) fn enter(&self, most: u32) -> Result<(), Refused> {
        let before = self.0.fetch_add(1, SeqCst);
        let refused = if before & LEFT != 0 {
            Refused::Left
        } else if before >= u64::from(most) {
            Refused::Full
        } else {
            return Ok(());
        };
        self.0.fetch_sub(1, SeqCst);
        Err(refused)
    }

    /// Counts a request out.
    pub(crate) fn exit(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    /// From now on nobody enters.
    pub(crate) fn close(&self) {
        self.0.fetch_or(LEFT, SeqCst);
    }

    /// A route names it again.
    pub(crate) fn open(&self) {
        self.0.fetch_and(!LEFT, SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.load(SeqCst) & LEFT != 0
    }

    /// How many are in flight. May be one too high for the moment in which a request is refused; never too low.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(SeqCst) & !LEFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn nobody_enters_over_the_limit_or_after_the_end() {
        let flight = Flight::default();
        assert_eq!((flight.enter(2), flight.enter(2), flight.enter(2)), (Ok(()), Ok(()), Err(Refused::Full)));
        flight.close();
        flight.exit();
        assert_eq!(flight.enter(2), Err(Refused::Left));
        assert_eq!(flight.count(), 1);
        flight.open();
        assert_eq!(flight.enter(2), Ok(()));
    }

    #[test]
    fn once_closed_and_empty_it_stays_empty() {
        let (flight, stop, inside) = (Flight::default(), AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let (inside, flight, stop) = (&inside, &flight, &stop);
            for _ in 0..4 {
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        if flight.enter(u32::MAX).is_ok() {
                            inside.fetch_add(1, SeqCst);
                            inside.fetch_sub(1, SeqCst);
                            flight.exit();
                        }
                    }
                });
            }
            for _ in 0..200 {
                flight.close();
                while flight.count() > 0 {
                    std::thread::yield_now();
                }
                // What is seen once must hold: a request inside now would be cut.
                for _ in 0..50 {
                    assert_eq!(
                        inside.load(SeqCst),
                        0,
                        "a request is inside an upstream that was idle and closed"
                    );
                }
                flight.open();
            }
            stop.store(true, SeqCst);
        });
    }
}
