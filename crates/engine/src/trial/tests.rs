use super::*;
use baton_model::evidence::StatusCounts;
use baton_model::evidence::trial::{CopyCounts, TrialCounts};
use baton_model::id::RolloutId;
use baton_model::route::Key;

fn counts(good: u64, bad: u64, us: u64) -> ArmCounts {
    let mut counts = ArmCounts {
        status: StatusCounts { successful: good, server_error: bad, ..StatusCounts::default() },
        ..ArmCounts::default()
    };
    (0..good + bad).for_each(|at| counts.latency.record_us(us + at % 10));
    counts
}

fn by_clients(clients: (u64, u64), share: u16, arms: (ArmCounts, ArmCounts)) -> Comparison {
    let between = Between::Clients { key: Key::Address, share: Weight(share), test: RolloutId(1) };
    let counts = TrialCounts { control: arms.0, treatment: arms.1, copies: CopyCounts::default() };
    compared(
        between,
        TrialObserved {
            rollout: RolloutId(3),
            sources: 2,
            counts,
            control_clients: clients.0,
            treatment_clients: clients.1,
        },
    )
}

fn compared(between: Between, observed: TrialObserved) -> Comparison {
    let trial =
        Trial { rollout: RolloutId(3), control: ReleaseNumber(1), treatment: ReleaseNumber(2), between };
    compare(&trial, Some(&observed), UnixMs(1), UnixMs(2))
}

#[test]
fn clients_that_fit_the_split_pass_and_others_are_told() {
    let same = || (counts(1000, 0, 500), counts(1000, 0, 500));
    let check = |clients, share, expect| {
        let it = by_clients(clients, share, same());
        assert_eq!(it.sample_ratio.unwrap().answer, expect, "{clients:?}: {:?}", it.sample_ratio);
        assert_eq!(it.conclusion.contains("not to be trusted"), expect == Answer::Fail, "{}", it.conclusion);
    };
    check((500, 500), 5_000, Answer::Pass);
    check((540, 460), 5_000, Answer::Pass);
    // Eight of a hundred less than half of a thousand: five standard deviations.
    check((580, 420), 5_000, Answer::Fail);
    check((9_000, 1_000), 1_000, Answer::Pass);
    check((9_000, 1_000), 2_000, Answer::Fail);
    check((4, 5), 5_000, Answer::Inconclusive);
    check((0, 0), 5_000, Answer::Inconclusive);
    check((0, 40), 5_000, Answer::Fail);
}

#[test]
fn there_are_no_more_clients_than_requests() {
    let it = by_clients((101, 99), 5_000, (counts(100, 0, 1), counts(90, 10, 1)));
    assert_eq!((it.control.clients, it.treatment.clients), (100, 99));
}

#[test]
fn the_error_of_the_estimates_is_no_mismatch() {
    // One percent of a million is twenty standard deviations of chance, and one of what the two sketches may be off.
    let it = by_clients((505_000, 495_000), 5_000, (counts(1, 0, 1), counts(1, 0, 1)));
    assert_eq!(it.sample_ratio.unwrap().answer, Answer::Pass);
    let it = by_clients((530_000, 470_000), 5_000, (counts(1, 0, 1), counts(1, 0, 1)));
    assert_eq!(it.sample_ratio.unwrap().answer, Answer::Fail);
}

#[test]
fn what_is_shown_is_said_and_what_is_not_is_not() {
    let of = |old, new| by_clients((500, 500), 5_000, (old, new)).conclusion;
    assert_eq!(
        of(counts(1000, 10, 500), counts(1000, 12, 500)),
        "no difference in errors is shown, nor in latency"
    );
    assert_eq!(
        of(counts(1000, 10, 500), counts(1000, 60, 900)),
        "the new release has more errors; it is slower at p50, p90, p99"
    );
    assert_eq!(
        of(counts(1000, 60, 500), counts(1000, 10, 500)),
        "the new release has fewer errors; no difference in latency is shown"
    );
    assert!(of(counts(10, 0, 1), counts(0, 0, 1)).starts_with("not enough evidence"));
    let unanswered = ArmCounts { failures: 100, ..ArmCounts::default() };
    assert_eq!(
        of(counts(100, 0, 500), unanswered),
        "the new release has more errors; latency cannot be compared, since one of the two never answered"
    );
}

#[test]
fn copies_are_compared_too() {
    let copies = CopyCounts { compared: 100, differs_status: 1, differs_body: 2, ..CopyCounts::default() };
    let counts = TrialCounts { control: counts(100, 0, 500), treatment: counts(99, 1, 500), copies };
    let observed = TrialObserved { rollout: RolloutId(3), counts, ..TrialObserved::default() };
    let it = compared(Between::Copies, observed.clone());
    assert_eq!(
        it.conclusion,
        "3 of 100 compared answers differ; no difference in errors is shown, nor in latency"
    );
    assert_eq!(it.copies, Some(copies));
    assert_eq!(it.sample_ratio, None);
    let earlier = TrialObserved { rollout: RolloutId(2), ..observed };
    let it = compared(Between::Copies, earlier);
    assert_eq!(it.control.requests, 0, "another rollout's evidence is not this one's");
}
