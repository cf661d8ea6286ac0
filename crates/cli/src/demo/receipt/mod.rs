//! The receipt: from what was counted to one record. [`table`] is for people.

mod table;

pub(super) use table::table;

use super::load::{Counted, Failure, PhaseTally, Side};
use baton_model::receipt::{PhaseReceipt, Receipt, ReleaseReceipt};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a phase did and found, before its requests are counted in.
#[derive(Clone, Debug)]
pub(super) struct PhaseDone {
    /// A stable word.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: String,
    /// What went wrong, if anything did.
    pub(super) trouble: Option<String>,
    /// What is worth saying.
    pub(super) note: String,
    /// How long it took.
    pub(super) took: Duration,
    /// The release that is bad, if one is: what it answers with an error is its own, and no failure.
    pub(super) bad: Option<Side>,
    /// Measured times and counts.
    pub(super) measured: BTreeMap<String, f64>,
    /// Its place among the load's phases; `None` where there was no load yet.
    pub(super) tally: Option<usize>,
}

/// Puts the phases and the counts together.
pub(super) fn receipt(title: String, done: Vec<PhaseDone>, counted: &Counted) -> Receipt {
    let phases: Vec<PhaseReceipt> = done
        .into_iter()
        .map(|phase| {
            let tally = phase.tally.and_then(|index| counted.phases.get(index)).cloned().unwrap_or_default();
            phase_receipt(phase, &tally)
        })
        .collect();
    Receipt {
        title,
        ok: phases.iter().all(|phase| phase.ok),
        requests: phases.iter().map(|phase| phase.requests).sum(),
        failed: phases.iter().map(|phase| phase.failed).sum(),
        bad_answers: phases.iter().map(|phase| phase.bad_answers).sum(),
        duration: millis(counted.took),
        held_up: millis(counted.held_up),
        phases,
    }
}

fn phase_receipt(phase: PhaseDone, tally: &PhaseTally) -> PhaseReceipt {
    let own = phase.bad.as_ref().and_then(|bad| tally.sides.get(bad)).map_or(0, |side| side.errors);
    // An error of any release but the bad one is a failure as much as a lost request is.
    let others = tally.errors() - own;
    let failed = tally.failed + others;
    let unsettled = tally.sent.saturating_sub(tally.answered() + tally.failed);
    let mut notes = Vec::new();
    notes.extend(phase.trouble.clone());
    if failed > 0 {
        notes.push(format!("{failed} requests failed: {}", kinds(&tally.kinds, others)));
    }
    if unsettled > 0 {
        notes.push(format!("{unsettled} requests never ended"));
    }
    if !phase.note.is_empty() {
        notes.push(phase.note);
    }
    PhaseReceipt {
        name: phase.name.to_owned(),
        title: phase.title,
        ok: phase.trouble.is_none() && failed == 0 && unsettled == 0,
        note: notes.join("; "),
        duration: millis(phase.took),
        requests: tally.sent,
        failed,
        bad_answers: own,
        latency_ms: tally.latency.latency(),
        releases: releases(tally),
        measured: phase.measured,
    }
}

fn releases(tally: &PhaseTally) -> Vec<ReleaseReceipt> {
    let of_side = |(side, counted): (&Side, &super::load::SideTally)| ReleaseReceipt {
        service: side.service.to_owned(),
        version: side.version.clone(),
        answers: counted.right + counted.errors,
        errors: counted.errors,
        latency_ms: counted.latency.latency(),
    };
    tally.sides.iter().map(of_side).collect()
}

fn kinds(kinds: &BTreeMap<Failure, u64>, errors: u64) -> String {
    let mut all: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {}", kind.word())).collect();
    if errors > 0 {
        all.push(format!("{errors} answered with an error by a good version"));
    }
    all.join(", ")
}

fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::load::SideTally;
    use super::*;
    use baton_model::evidence::histogram::Histogram;
    use std::time::Instant;

    /// What a service's version answered: rightly, and with errors.
    pub(super) type Answered = (&'static str, &'static str, u64, u64);

    pub(super) fn tally(answered: &[Answered], failed: u64) -> PhaseTally {
        let mut tally = PhaseTally { failed, sent: failed, ..PhaseTally::default() };
        if failed > 0 {
            tally.kinds.insert(Failure::Reset, failed);
        }
        let now = Instant::now();
        for (service, version, right, errors) in answered {
            let mut latency = Histogram::default();
            (0..right + errors).for_each(|us| latency.record(Duration::from_micros(300 + us)));
            tally.latency.merge(&latency);
            tally.sent += right + errors;
            let side = SideTally { right: *right, errors: *errors, latency, first: now, last: now };
            tally.sides.insert(Side::new(service, version), side);
        }
        tally
    }

    pub(super) fn phase(name: &'static str, title: &str, tally: Option<usize>) -> PhaseDone {
        PhaseDone {
            name,
            title: title.to_owned(),
            trouble: None,
            note: String::new(),
            took: Duration::from_millis(3_210),
            bad: None,
            measured: BTreeMap::new(),
            tally,
        }
    }

    pub(super) fn counted(phases: Vec<PhaseTally>) -> Counted {
        Counted { phases, took: Duration::from_millis(31_234), held_up: Duration::ZERO }
    }

    fn of_one(phase: PhaseDone, tally: PhaseTally) -> Receipt {
        receipt("t".into(), vec![phase], &counted(vec![tally]))
    }

    #[test]
    fn the_bad_release_s_own_errors_are_counted_apart_and_nobody_else_s() {
        let canary = |bad: Option<Side>| PhaseDone { bad, ..phase("canary", "canary", Some(0)) };
        let answered = [("shop", "2.0", 90, 0), ("shop", "3.0", 6, 4)];
        let told_apart = of_one(canary(Some(Side::new("shop", "3.0"))), tally(&answered, 0));
        assert!(told_apart.ok);
        assert_eq!((told_apart.requests, told_apart.failed, told_apart.bad_answers), (100, 0, 4));
        for bad in [None, Some(Side::new("shop", "2.0")), Some(Side::new("web", "3.0"))] {
            let failed = of_one(canary(bad), tally(&answered, 0));
            assert!(!failed.ok);
            assert_eq!((failed.failed, failed.bad_answers), (4, 0));
        }
    }

    #[test]
    fn a_lost_request_breaks_the_promise_whatever_the_phase() {
        let bad = Some(Side::new("shop", "3.0"));
        let lost = of_one(PhaseDone { bad, ..phase("c", "c", Some(0)) }, tally(&[("shop", "3.0", 5, 5)], 1));
        assert!(!lost.ok);
        assert_eq!((lost.failed, lost.bad_answers), (1, 5));
        assert_eq!(lost.phases[0].note, "1 requests failed: 1 reset");
    }

    #[test]
    fn a_request_that_never_ended_breaks_the_promise() {
        let mut lost = tally(&[("web", "1.0", 99, 0)], 0);
        lost.sent += 1;
        assert!(!of_one(phase("roll", "roll", Some(0)), lost).ok);
    }

    #[test]
    fn a_phase_that_did_not_end_as_it_must_breaks_the_promise_without_a_lost_request() {
        let trouble = Some("it was not rolled back".to_owned());
        let broken = of_one(PhaseDone { trouble, ..phase("c", "c", Some(0)) }, tally(&[], 0));
        assert!(!broken.ok && broken.failed == 0);
    }
}
