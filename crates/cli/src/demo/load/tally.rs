//! What is counted: per phase, per kind of failure, and which requests are in flight to which target.

use super::client::Failure;
use baton_model::evidence::histogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Failures remembered one by one; more are only counted.
const FAILURES_REMEMBERED: usize = 10_000;

/// A request in flight or done: its number in the order of sending.
pub(crate) type RequestNumber = u64;

/// The counts of one phase; a request belongs to the phase in which it was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct PhaseTally {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) kinds: BTreeMap<Failure, u64>,
    /// Which requests failed, up to [`FAILURES_REMEMBERED`].
    pub(crate) failures: BTreeSet<RequestNumber>,
    /// Answers by the release that gave them.
    pub(crate) releases: BTreeMap<String, u64>,
    pub(crate) latency: Histogram,
}

/// The requests in flight to one target.
#[derive(Debug, Default)]
struct Flight {
    now: BTreeSet<RequestNumber>,
    /// While a window is open: every request that was in flight at any time of it.
    window: Option<BTreeSet<RequestNumber>>,
    /// The process that answered last, and when it first did.
    answered: Option<(u32, Instant)>,
}

/// All counts of a load.
#[derive(Debug)]
pub(crate) struct Tally {
    phases: Vec<PhaseTally>,
    flights: Vec<Flight>,
    next: RequestNumber,
}

/// A request that was sent, and must be settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    number: RequestNumber,
    target: usize,
    phase: usize,
}

/// What the sample said: `RELEASE INSTANCE PID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) release: String,
    pub(crate) instance: String,
    pub(crate) pid: u32,
}

impl Page {
    /// Reads a body; `None` when it is not the sample's.
    pub(crate) fn parse(body: &str) -> Option<Self> {
        let mut words = body.split_whitespace();
        let (release, instance, pid) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        words.next().is_none().then(|| Self {
            release: release.to_owned(),
            instance: instance.to_owned(),
            pid,
        })
    }
}

impl Tally {
    /// Nothing counted yet, in the first phase.
    pub(crate) fn new(targets: usize) -> Self {
        Self {
            phases: vec![PhaseTally::default()],
            flights: (0..targets).map(|_| Flight::default()).collect(),
            next: 0,
        }
    }

    /// Ends the present phase and begins the next.
    pub(crate) fn next_phase(&mut self) {
        self.phases.push(PhaseTally::default());
    }

    /// The phases so far, the present one last.
    pub(crate) fn phases(&self) -> &[PhaseTally] {
        &self.phases
    }

    /// Counts a request as sent to `target` in the present phase.
    pub(crate) fn send(&mut self, target: usize) -> Ticket {
        let number = self.next;
        self.next += 1;
        let phase = self.phases.len() - 1;
        self.phases[phase].sent += 1;
        let flight = &mut self.flights[target];
        flight.now.insert(number);
        if let Some(window) = &mut flight.window {
            window.insert(number);
        }
        Ticket { number, target, phase }
    }

    /// Counts how a request ended, `latency` after the time it was due to be sent.
    pub(crate) fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Result<Page, Failure>,
        latency: Duration,
        now: Instant,
    ) {
        let phase = &mut self.phases[ticket.phase];
        let flight = &mut self.flights[ticket.target];
        flight.now.remove(&ticket.number);
        phase.latency.record(latency);
        match outcome {
            Ok(page) => {
                phase.ok += 1;
                *phase.releases.entry(page.release).or_default() += 1;
                if flight.answered.is_none_or(|(pid, _)| pid != page.pid) {
                    flight.answered = Some((page.pid, now));
                }
            }
            Err(failure) => {
                phase.failed += 1;
                *phase.kinds.entry(failure).or_default() += 1;
                if phase.failures.len() < FAILURES_REMEMBERED {
                    phase.failures.insert(ticket.number);
                }
            }
        }
    }

    /// Begins to remember which requests are in flight to `target`.
    pub(crate) fn open_window(&mut self, target: usize) {
        let flight = &mut self.flights[target];
        flight.window = Some(flight.now.clone());
    }

    /// The requests that were in flight to `target` at any time since the window was opened.
    pub(crate) fn close_window(&mut self, target: usize) -> BTreeSet<RequestNumber> {
        self.flights[target].window.take().unwrap_or_default()
    }

    /// The process that answered last at `target`, and when it answered first.
    pub(crate) fn answered(&self, target: usize) -> Option<(u32, Instant)> {
        self.flights[target].answered
    }

    /// Requests sent and not yet settled.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.now.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Result<Page, Failure> {
        Ok(Page::parse("1.0 web.1 42\n").unwrap())
    }

    #[test]
    fn a_request_belongs_to_the_phase_it_was_sent_in() {
        let mut tally = Tally::new(1);
        let ticket = tally.send(0);
        tally.next_phase();
        tally.settle(ticket, Err(Failure::Reset), Duration::from_millis(1), Instant::now());
        assert_eq!((tally.phases()[0].sent, tally.phases()[0].failed), (1, 1));
        assert_eq!((tally.phases()[1].sent, tally.phases()[1].failed), (0, 0));
        assert_eq!(tally.in_flight(), 0);
    }

    #[test]
    fn a_window_holds_what_was_in_flight_at_any_time_of_it_and_nothing_else() {
        let mut tally = Tally::new(2);
        let now = Instant::now();
        let before = tally.send(0);
        tally.settle(before, page(), Duration::ZERO, now);
        let at_opening = tally.send(0);
        let elsewhere = tally.send(1);
        tally.open_window(0);
        tally.settle(at_opening, page(), Duration::ZERO, now);
        let during = tally.send(0);
        let window = tally.close_window(0);
        let after = tally.send(0);
        assert_eq!(window, BTreeSet::from([at_opening.number, during.number]));
        assert!(!window.contains(&elsewhere.number) && !window.contains(&after.number));
    }

    #[test]
    fn only_the_samples_own_words_are_a_page() {
        assert_eq!(
            Page::parse("2.0 web.3 7\n"),
            Some(Page { release: "2.0".into(), instance: "web.3".into(), pid: 7 })
        );
        for body in ["", "2.0 web.3", "2.0 web.3 x", "2.0 web.3 7 8", "<html>"] {
            assert_eq!(Page::parse(body), None, "{body}");
        }
    }
}
