//! What is counted: per phase and per release, how each request ended.

use super::client::{Author, Failure};
use baton_model::evidence::histogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A release of a service, as the answers name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Side {
    pub(crate) service: &'static str,
    pub(crate) version: String,
}

impl Side {
    /// Of this service and version.
    pub(crate) fn new(service: &'static str, version: &str) -> Self {
        Self { service, version: version.to_owned() }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With the right answer.
    Right(Author),
    /// With an error that an instance answered itself, and said so: nothing was lost on the way.
    Error(Author),
    /// In any other way.
    Failed(Failure),
}

/// The counts of one phase; a request belongs to the phase in which it was sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct PhaseTally {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) kinds: BTreeMap<Failure, u64>,
    /// Of all that ended.
    pub(crate) latency: Histogram,
    /// What each release answered.
    pub(crate) sides: BTreeMap<Side, SideTally>,
}

impl PhaseTally {
    /// Requests that ended with an answer of an instance, right or an error.
    pub(crate) fn answered(&self) -> u64 {
        self.sides.values().map(|side| side.right + side.errors).sum()
    }

    /// Errors that instances answered.
    pub(crate) fn errors(&self) -> u64 {
        self.sides.values().map(|side| side.errors).sum()
    }
}

/// What one release answered.
#[derive(Clone, Debug)]
pub(crate) struct SideTally {
    pub(crate) right: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Histogram,
    /// When its first answer came.
    pub(crate) first: Instant,
    /// When its latest answer came.
    pub(crate) last: Instant,
}

impl SideTally {
    const fn new(now: Instant, latency: Histogram) -> Self {
        Self { right: 0, errors: 0, latency, first: now, last: now }
    }

    fn count(&mut self, right: bool, latency: Duration, now: Instant) {
        if right {
            self.right += 1;
        } else {
            self.errors += 1;
        }
        self.latency.record(latency);
        self.last = now;
    }
}

/// All counts of a load.
#[derive(Debug)]
pub(crate) struct Tally {
    phases: Vec<PhaseTally>,
    /// A phase has begun; before that, what is sent belongs to the first.
    begun: bool,
    /// By release, over all phases.
    sides: BTreeMap<Side, SideTally>,
    /// By instance: the process that answered last, and when it first did.
    authors: BTreeMap<String, (u32, Instant)>,
    in_flight: usize,
    held_up: Duration,
}

/// A request that was sent, and must be settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    phase: usize,
    service: &'static str,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new() -> Self {
        Self {
            phases: vec![PhaseTally::default()],
            begun: false,
            sides: BTreeMap::new(),
            authors: BTreeMap::new(),
            in_flight: 0,
            held_up: Duration::ZERO,
        }
    }

    /// Begins a phase, which ends the one before; gives its place.
    pub(crate) fn begin_phase(&mut self) -> usize {
        if self.begun {
            self.phases.push(PhaseTally::default());
        }
        self.begun = true;
        self.phases.len() - 1
    }

    /// The phases so far, the present one last.
    pub(crate) fn phases(&self) -> &[PhaseTally] {
        &self.phases
    }

    /// Counts a request to a service as sent in the present phase.
    pub(crate) fn send(&mut self, service: &'static str) -> Ticket {
        let phase = self.phases.len() - 1;
        self.phases[phase].sent += 1;
        self.in_flight += 1;
        Ticket { phase, service }
    }

    /// Counts how a request ended, `latency` after the time it was due to be sent.
    pub(crate) fn settle(&mut self, ticket: Ticket, outcome: Outcome, latency: Duration, now: Instant) {
        let phase = &mut self.phases[ticket.phase];
        self.in_flight -= 1;
        phase.latency.record(latency);
        let (author, right) = match outcome {
            Outcome::Right(author) => (author, true),
            Outcome::Error(author) => (author, false),
            Outcome::Failed(failure) => {
                phase.failed += 1;
                *phase.kinds.entry(failure).or_default() += 1;
                return;
            }
        };
        let side = Side { service: ticket.service, version: author.release };
        for sides in [&mut phase.sides, &mut self.sides] {
            let side = sides.entry(side.clone()).or_insert_with(|| SideTally::new(now, Histogram::default()));
            side.count(right, latency, now);
        }
        let known = self.authors.get(&author.instance);
        if known.is_none_or(|(pid, _)| *pid != author.pid) {
            self.authors.insert(author.instance, (author.pid, now));
        }
    }

    /// What each release answered so far, over all phases.
    pub(crate) const fn sides(&self) -> &BTreeMap<Side, SideTally> {
        &self.sides
    }

    /// The process of an instance that answered last, and when it answered first.
    pub(crate) fn answered(&self, instance: &str) -> Option<(u32, Instant)> {
        self.authors.get(instance).copied()
    }

    /// The machine let the load send nothing for so long.
    pub(crate) fn held_up(&mut self, late: Duration) {
        self.held_up += late;
    }

    /// For how long the machine let the load send nothing.
    pub(crate) const fn held_up_for(&self) -> Duration {
        self.held_up
    }

    /// Requests sent and not yet settled.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(pid: u32) -> Author {
        Author { release: "1.0".into(), instance: "web.1".into(), pid }
    }

    #[test]
    fn a_request_belongs_to_the_phase_it_was_sent_in() {
        let mut tally = Tally::new();
        let early = tally.send("web");
        assert_eq!(tally.begin_phase(), 0, "what was sent before the first phase belongs to it");
        let ticket = tally.send("web");
        assert_eq!(tally.begin_phase(), 1);
        for ticket in [early, ticket] {
            tally.settle(ticket, Outcome::Failed(Failure::Reset), Duration::from_millis(1), Instant::now());
        }
        assert_eq!((tally.phases()[0].sent, tally.phases()[0].failed), (2, 2));
        assert_eq!((tally.phases()[1].sent, tally.phases()[1].failed), (0, 0));
        assert_eq!(tally.in_flight(), 0);
    }

    #[test]
    fn an_error_of_an_instance_is_its_release_s_and_no_failure() {
        let mut tally = Tally::new();
        let now = Instant::now();
        for (service, outcome) in [
            ("web", Outcome::Right(author(1))),
            ("web", Outcome::Error(author(1))),
            ("shop", Outcome::Right(author(1))),
            ("web", Outcome::Failed(Failure::Cut)),
        ] {
            let ticket = tally.send(service);
            tally.settle(ticket, outcome, Duration::ZERO, now);
        }
        let phase = &tally.phases()[0];
        assert_eq!((phase.sent, phase.answered(), phase.errors(), phase.failed), (4, 3, 1, 1));
        let web = &tally.sides()[&Side::new("web", "1.0")];
        assert_eq!((web.right, web.errors, web.latency.total()), (1, 1, 2));
        assert_eq!(tally.sides().len(), 2, "the same version of two services is two");
    }

    #[test]
    fn another_process_of_an_instance_is_seen_when_it_first_answers() {
        let mut tally = Tally::new();
        let start = Instant::now();
        let times = [start, start + Duration::from_secs(1), start + Duration::from_secs(2)];
        for (pid, now) in [7, 8, 8].into_iter().zip(times) {
            let ticket = tally.send("web");
            tally.settle(ticket, Outcome::Right(author(pid)), Duration::ZERO, now);
        }
        assert_eq!(tally.answered("web.1"), Some((8, times[1])));
        assert_eq!(tally.answered("web.2"), None);
    }
}
