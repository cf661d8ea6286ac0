//! The order of a run: what is written before what, and what a lost, failed or broken-off write leaves behind.

use super::*;
use crate::fleet::{Fleet, fleet, spec};

/// A fleet whose first deploy was asked for and not yet decided, as the store and the sessions show it.
fn fresh() -> (Snapshot, Observed, UnixMs) {
    let mut fleet = fleet(2, 1);
    fleet.run(Millis::secs(1)).deploy(spec("web", 2));
    seen(&fleet)
}

fn seen(fleet: &Fleet) -> (Snapshot, Observed, UnixMs) {
    let snapshot = Snapshot {
        desired: fleet.desired.clone(),
        progress: fleet.progress.clone(),
        plans: fleet.plans.clone(),
    };
    (snapshot, fleet.observed(), fleet.now)
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Load => "load",
        Action::Write(Write::Progress(..)) => "progress",
        Action::Write(Write::Plan(..)) => "plan",
        Action::Send { .. } => "send",
        Action::Wait(_) => "wait",
    }
}

/// Runs a cycle whose writes end as told; what is not told is stored.
fn check(ends: &[Written], expect: &str) -> Vec<Action> {
    let (snapshot, observed, now) = fresh();
    let mut cycle = Cycle::default();
    let mut ends = ends.iter().copied();
    let mut actions = vec![cycle.begin()];
    while actions.len() < 64 {
        let next = match actions.last().unwrap() {
            Action::Load => cycle.loaded(snapshot.clone(), &observed, now),
            Action::Write(_) => cycle.written(ends.next().unwrap_or(Written::Stored(Revision(1)))),
            Action::Send { .. } => cycle.sent(),
            Action::Wait(_) => break,
        };
        actions.push(next);
    }
    let words: Vec<&str> = actions.iter().map(word).collect();
    assert_eq!(words.join(" "), expect);
    actions
}

#[test]
fn progress_is_durable_before_plans_and_plans_before_they_are_sent() {
    let actions = check(&[], "load progress plan plan send wait");
    let Action::Send { plans, events, .. } = &actions[4] else { panic!("{actions:?}") };
    assert_eq!((plans.len(), events.is_empty()), (2, false));
}

#[test]
fn events_that_are_stored_with_their_write_are_not_sent_again() {
    let (snapshot, observed, now) = fresh();
    let mut cycle = Cycle::default();
    cycle.begin();
    let mut action = cycle.loaded(snapshot, &observed, now);
    let mut stored = Vec::new();
    while let Action::Write(write) = action {
        stored.extend(cycle.take_events(&write));
        action = cycle.written(Written::Stored(Revision(1)));
    }
    let Action::Send { events, .. } = action else { panic!("{action:?}") };
    assert!(stored.iter().any(|event| event.service.is_some()), "{stored:?}");
    assert!(events.iter().all(|event| !stored.contains(event)), "{events:?}");
}

#[test]
fn a_conflict_throws_the_outcome_away_and_decides_again() {
    check(&[Written::Conflict], "load progress load progress plan plan send wait");
}

#[test]
fn a_store_that_fails_is_tried_again_later_and_nothing_is_sent() {
    let actions = check(&[Written::Failed], "load progress wait");
    let (_, _, now) = fresh();
    assert_eq!(actions.last(), Some(&Action::Wait(Some(now.plus(RETRY_AFTER)))));
}

#[test]
fn endless_conflicts_end_in_a_wait() {
    let conflicts = vec![Written::Conflict; 100];
    let turns = "load progress ".repeat(CONFLICTS_MAX as usize + 1);
    check(&conflicts, &format!("{turns}wait"));
}

#[test]
fn events_of_stored_progress_are_told_though_the_run_broke_off() {
    let (snapshot, observed, now) = fresh();
    let mut cycle = Cycle::default();
    cycle.begin();
    let Action::Write(Write::Progress(name, _, Some(memory))) =
        cycle.loaded(snapshot.clone(), &observed, now)
    else {
        panic!("the progress of the service comes first")
    };
    cycle.written(Written::Stored(Revision(1)));
    assert_eq!(word(&cycle.written(Written::Failed)), "wait");

    // The next run finds the progress, writes the plans that are missing, and tells what it owes.
    let mut later = snapshot;
    later.progress.insert(name, Versioned { revision: Revision(1), value: memory });
    cycle.begin();
    let mut action = cycle.loaded(later, &observed, now);
    while let Action::Write(write) = &action {
        assert!(matches!(write, Write::Plan(..)), "{write:?}");
        action = cycle.written(Written::Stored(Revision(1)));
    }
    let Action::Send { plans, events, .. } = action else { panic!("{action:?}") };
    assert_eq!(plans.len(), 2);
    assert!(events.iter().any(|event| event.kind == "rollout-started"), "{events:?}");
}

#[test]
fn a_node_that_is_behind_gets_its_stored_plan_again() {
    let mut fleet = fleet(2, 1);
    fleet.deploy(spec("web", 2)).run(Millis::secs(10));
    let (snapshot, mut observed, now) = seen(&fleet);
    let mut cycle = Cycle::default();
    let (name, node) = observed.nodes.iter_mut().next().unwrap();
    node.generation = Generation(0);
    let name = name.clone();
    let Action::Send { plans, .. } = cycle.loaded(snapshot.clone(), &observed, now) else { panic!() };
    assert_eq!(plans, BTreeMap::from([(name.clone(), snapshot.plans[&name].value.clone())]));
}

#[test]
fn a_generation_passes_what_the_node_has_seen() {
    let (snapshot, mut observed, now) = fresh();
    let (name, node) = observed.nodes.iter_mut().next().unwrap();
    let name = name.clone();
    node.generation = Generation(40);
    let mut cycle = Cycle::default();
    let mut action = cycle.loaded(snapshot, &observed, now);
    while let Action::Write(_) = action {
        action = cycle.written(Written::Stored(Revision(1)));
    }
    let Action::Send { plans, .. } = action else { panic!("{action:?}") };
    assert_eq!(plans[&name].generation, Generation(41));
}

#[test]
fn only_what_changed_takes_a_new_generation() {
    let record = |slots: &[(u64, u64)]| -> Assignments {
        let id = |slot| InstanceId { service: crate::fleet::service_name("web"), slot };
        let one = |(slot, release): &(u64, u64)| {
            (
                id(*slot),
                crate::outcome::Assignment {
                    release: baton_model::id::ReleaseNumber(*release),
                    attempt: 1,
                    reload: 0,
                    released: Default::default(),
                },
            )
        };
        slots.iter().map(one).collect()
    };
    let first = PlanRecord::default().followed_by(Generation(1), record(&[(1, 1), (2, 1)]));
    let second = first.followed_by(Generation(2), record(&[(1, 1), (2, 2)]));
    let newer: Vec<u64> = second.newer_than(Generation(1)).map(|id| id.slot).collect();
    assert_eq!(newer, [2]);
    assert_eq!(second.newer_than(Generation(2)).count(), 0);
}
