//! The retry budget: retries are at most a share of the requests of the last ten seconds, so that a service in trouble
//! does not get its load doubled by those who mean well.

use crate::clock::Tick;
use crate::evidence::shard::{Padded, shard, shards};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far back requests count.
const WINDOW_SECONDS: u64 = 10;
/// Retries in a window that are allowed however few requests there were: a share of almost nothing is nothing.
pub const RETRIES_FLOOR: u64 = 10;
const SECOND: Tick = 1_000_000;
/// A cell holds the low bits of its second above its count.
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Counts by second; a cell that belongs to another second starts anew.
#[derive(Debug, Default)]
struct Window([AtomicU64; WINDOW_SECONDS as usize]);

impl Window {
    fn add(&self, now: Tick) {
        let second = now / SECOND;
        let cell = &self.0[(second % WINDOW_SECONDS) as usize];
        let before = cell.load(Relaxed);
        if before >> COUNT_BITS == stamp(second) {
            cell.fetch_add(1, Relaxed);
        } else if cell.compare_exchange(before, stamp(second) << COUNT_BITS | 1, Relaxed, Relaxed).is_err() {
            // Another thread began the second in between.
            cell.fetch_add(1, Relaxed);
        }
    }

    fn take_back(&self, now: Tick) {
        let second = now / SECOND;
        let less =
            |cell: u64| (cell >> COUNT_BITS == stamp(second) && cell & COUNT_MASK > 0).then(|| cell - 1);
        // A second that is over keeps it.
        let _ = self.0[(second % WINDOW_SECONDS) as usize].fetch_update(Relaxed, Relaxed, less);
    }

    fn sum(&self, now: Tick) -> u64 {
        let second = now / SECOND;
        (0..WINDOW_SECONDS.min(second + 1))
            .map(|ago| {
                let second = second - ago;
                let cell = self.0[(second % WINDOW_SECONDS) as usize].load(Relaxed);
                if cell >> COUNT_BITS == stamp(second) { cell & COUNT_MASK } else { 0 }
            })
            .sum()
    }
}

const fn stamp(second: u64) -> u64 {
    second & (u64::MAX >> COUNT_BITS)
}

/// The retry budget of a service at one gateway.
#[derive(Debug)]
pub struct Budget {
    /// Sharded: every request counts here.
    requests: Box<[Padded<Window>]>,
    retries: Window,
}

impl Default for Budget {
    fn default() -> Self {
        Self { requests: (0..shards()).map(|_| Padded::default()).collect(), retries: Window::default() }
    }
}

impl Budget {
    /// A request came in.
    pub(crate) fn deposit(&self, now: Tick) {
        self.requests[shard()].0.add(now);
    }

    /// Takes one retry, where `percent` of the requests of the last ten seconds, or [`RETRIES_FLOOR`], allows it.
    /// Threads that take the last one at the same time may go over by one each.
    pub(crate) fn withdraw(&self, percent: u32, now: Tick) -> bool {
        let requests: u64 = self.requests.iter().map(|window| window.0.sum(now)).sum();
        let floor = if percent == 0 { 0 } else { RETRIES_FLOOR };
        let allowed = (requests * u64::from(percent) / 100).max(floor);
        let may = self.retries.sum(now) < allowed;
        if may {
            self.retries.add(now);
        }
        may
    }

    /// A retry that was taken and not made.
    pub(crate) fn give_back(&self, now: Tick) {
        self.retries.take_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(budget: &Budget, percent: u32, now: Tick) -> u64 {
        (0..1_000_000).take_while(|_| budget.withdraw(percent, now)).count() as u64
    }

    #[test]
    fn a_share_of_the_last_ten_seconds_and_no_more() {
        let budget = Budget::default();
        for at in 0..1_000 {
            budget.deposit(100 * SECOND + at * 1_000);
        }
        assert_eq!(taken(&budget, 20, 101 * SECOND), 200);
        assert_eq!(taken(&budget, 20, 109 * SECOND), 0, "the retries of this window are spent");
        assert_eq!(
            taken(&budget, 20, 110 * SECOND),
            0,
            "the requests are forgotten, the retries of 101 s are not"
        );
        assert_eq!(taken(&budget, 20, 111 * SECOND), RETRIES_FLOOR, "all is forgotten");
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let budget = Budget::default();
        let now = 100 * SECOND;
        assert_eq!(taken(&budget, 20, now), RETRIES_FLOOR);
        budget.give_back(now);
        assert_eq!(taken(&budget, 20, now), 1);
        budget.give_back(now + SECOND);
        assert_eq!(taken(&budget, 20, now + SECOND), 0, "of another second nothing was taken");
    }

    #[test]
    fn few_requests_may_be_retried_and_none_where_it_is_forbidden() {
        let budget = Budget::default();
        budget.deposit(5 * SECOND);
        assert_eq!(taken(&budget, 20, 5 * SECOND), RETRIES_FLOOR);
        assert_eq!(taken(&Budget::default(), 0, 5 * SECOND), 0);
    }

    proptest! {
        #[test]
        fn no_window_has_more_retries_than_its_share(
            steps in prop::collection::vec((0_u64..3 * SECOND, 0_u32..40, 0_u32..20), 1..60), percent in 1_u32..50,
        ) {
            let (budget, mut now) = (Budget::default(), 0);
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            for (wait, come, want) in steps {
                now += wait;
                for _ in 0..come { budget.deposit(now); requests.push(now); }
                for _ in 0..want { if budget.withdraw(percent, now) { retries.push(now); } }
                let within = |all: &[Tick]| all.iter().filter(|at| *at / SECOND + WINDOW_SECONDS > now / SECOND).count() as u64;
                // What was taken under an earlier, larger window still counts, and cannot be given back.
                let most = requests.len() as u64 * u64::from(percent) / 100;
                prop_assert!(within(&retries) <= most.max(RETRIES_FLOOR));
            }
        }
    }
}
