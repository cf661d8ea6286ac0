//! The invariants of an outcome, checked on every decision, in simulation, tests and production alike: what a
//! service would break is never committed. The numbers are those of `ARCHITECTURE.md`.
//!
//! The audit asks what changed, not how the rooms came to it: it compares the memory before and after, against what
//! is seen. It shares with the rooms only what an instance's health is and what the budget counts.

mod drain;
mod gates;

use crate::decide::decide;
use crate::input::Input;
use crate::outcome::Outcome;
use crate::progress::{Progress, ServiceProgress, Slot};
use crate::sight::Sightings;
use crate::turn::Turn;
use baton_model::id::{InstanceId, ServiceName};
use baton_model::rollout::RolloutOutcome;
use std::collections::BTreeMap;

/// An invariant that an outcome would break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name in `ARCHITECTURE.md`.
    pub invariant: &'static str,
    /// What would break it.
    pub detail: String,
}

/// What an outcome would break, by service.
pub type Findings = BTreeMap<ServiceName, Vec<Violation>>;

/// One service before and after a decision.
struct Change<'a> {
    before: Turn<'a>,
    after: Turn<'a>,
}

/// Checks what can be checked on one decision: `capacity-floor`, `acked-drain`, `gate-holds`, `blast-radius`, `ends`,
/// `exact-rollback` and `generation-grows`. It costs nothing where nothing changed.
#[must_use]
pub fn audit(input: &Input<'_>, outcome: &Outcome) -> Findings {
    audit_seen(&Sightings::index(input), outcome)
}

/// The same, where what is seen is indexed already.
pub(crate) fn audit_seen(sightings: &Sightings<'_>, outcome: &Outcome) -> Findings {
    let input = &sightings.input;
    let mut findings = Findings::new();
    for (name, after) in &outcome.progress {
        let Some(service) = input.desired.services.get(name).filter(|service| !service.removed) else {
            continue;
        };
        let Some(after) = after else {
            let forgotten =
                violation("acked-is-durable", format!("{name} is forgotten although it is wanted"));
            findings.insert(name.clone(), vec![forgotten]);
            continue;
        };
        let change = Change {
            before: Turn::open(sightings, service, input.progress.get(name)),
            after: Turn::open(sightings, service, Some(after)),
        };
        let mut violations = Vec::new();
        capacity_floor(&change, &mut violations);
        drain::acked_drain(&change, outcome, &mut violations);
        gates::gate_holds(&change, &mut violations);
        gates::blast_radius(&change, &mut violations);
        ends(&change, &mut violations);
        exact_rollback(&change, &mut violations);
        generation_grows(&change, &mut violations);
        if !violations.is_empty() {
            findings.insert(name.clone(), violations);
        }
    }
    findings
}

/// Decides again on what a decision left and says what changes although nothing happened (invariant `quiet`). It
/// costs as much as a decision, so tests and the simulation ask, production does not.
#[must_use]
pub fn quiet(input: &Input<'_>, outcome: &Outcome) -> Vec<Violation> {
    let mut progress: Progress = input.progress.clone();
    let mut unconfirmed = input.unconfirmed.clone();
    for (name, memory) in &outcome.progress {
        let old = input.progress.get(name).map(|memory| &memory.slots);
        let fresh = memory.iter().flat_map(|memory| &memory.slots).filter(|(number, slot)| {
            old.and_then(|old| old.get(number)).is_none_or(|old| old.attempt != slot.attempt)
        });
        unconfirmed.extend(fresh.map(|(number, _)| InstanceId { service: name.clone(), slot: *number }));
        match memory {
            Some(memory) => progress.insert(name.clone(), memory.clone()),
            None => progress.remove(name),
        };
    }
    let again = decide(&Input { progress: &progress, unconfirmed: &unconfirmed, ..*input });
    let changed =
        again.progress.keys().map(|name| violation("quiet", format!("{name} changes again at once")));
    let told = again.events.iter().map(|event| violation("quiet", format!("tells again: {}", event.message)));
    changed.chain(told).collect()
}

fn violation(invariant: &'static str, detail: String) -> Violation {
    Violation { invariant, detail }
}

/// Invariant 1: what we take out of service leaves the floor whole. What faults took is not ours, but then we take
/// nothing more.
fn capacity_floor(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let (before, after) = (&change.before, &change.after);
    let stays = |number| after.memory.slots.get(&number).filter(|slot| !slot.retiring && !slot.beside);
    let (mut taken, mut given): (u32, u32) = (0, 0);
    for (number, old) in before.live().filter(|(number, slot)| before.secure(*number, slot)) {
        let Some(seen) = before.seen(number) else { continue };
        let serves_on = stays(number).is_some_and(|slot| {
            // Its times may have changed; what it is to run is all that can take it out of service.
            let same = (slot.release, slot.attempt) == (old.release, old.attempt);
            let stays = same || seen.release == slot.release;
            stays || before.overlaps(seen.release, slot.release)
        });
        taken += u32::from(!serves_on && !old.beside);
        // A switch gives what stood beside for what it takes.
        given += u32::from(serves_on && old.beside);
    }
    let floor = before.budget.floor.min(after.budget.floor);
    // What the decision made known to the gateways serves as of now, where none of them has to acknowledge it.
    let left = (before.budget.secure + given).saturating_sub(taken).max(after.budget.secure);
    if taken > 0 && left < floor {
        let detail = format!(
            "{}: takes {taken} of {} ready instances, floor {floor}",
            before.name, before.budget.secure
        );
        violations.push(violation("capacity-floor", detail));
    }
}

/// Invariant 7, as far as one decision shows it: what is paused says why.
fn ends(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let Some(rollout) = change.after.rollout() else { return };
    if rollout.outcome == RolloutOutcome::Paused && rollout.reason.is_empty() {
        violations.push(violation(
            "ends",
            format!("{}: rollout {} is paused without a reason", change.after.name, rollout.id),
        ));
    }
}

/// Invariant 8: what is said to be rolled back is planned exactly so.
fn exact_rollback(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let Some(rollout) = &change.after.memory.rollout else { return };
    let (Some(from), RolloutOutcome::RolledBack) = (rollout.from, rollout.outcome) else { return };
    let behind: Vec<u64> =
        change.after.live().filter(|(_, slot)| slot.release != from).map(|(number, _)| number).collect();
    let ended_now = rollout.ended_at == Some(change.after.now);
    if ended_now && !behind.is_empty() {
        let detail =
            format!("{}: rolled back, and slots {behind:?} should not run release {from}", change.after.name);
        violations.push(violation("exact-rollback", detail));
    }
}

/// Invariant 11 in the memory: slot numbers are never used again, attempts only grow, no deadline is re-based.
fn generation_grows(change: &Change<'_>, violations: &mut Vec<Violation>) {
    let (before, after) = (&change.before.memory, &change.after.memory);
    let mut say = |detail: String| {
        violations.push(violation("generation-grows", format!("{}: {detail}", change.after.name)))
    };
    if after.last_slot < before.last_slot {
        say(format!("the last slot falls from {} to {}", before.last_slot, after.last_slot));
    }
    for (number, slot) in &after.slots {
        match before.slots.get(number) {
            None if *number <= before.last_slot || *number > after.last_slot => {
                say(format!("slot {number} is used again"))
            }
            None => {}
            Some(old) => same_slot(*number, old, slot, before, &mut say),
        }
    }
    let (Some(old), Some(new)) = (&before.rollout, &after.rollout) else { return };
    if new.id < old.id {
        say(format!("rollout {} follows rollout {}", new.id, old.id));
    }
    if new.id == old.id
        && (new.started_at != old.started_at || (old.turned_at.is_some() && new.turned_at != old.turned_at))
    {
        say(format!("rollout {} begins or turns round twice", new.id));
    }
}

fn same_slot(number: u64, old: &Slot, new: &Slot, before: &ServiceProgress, say: &mut impl FnMut(String)) {
    if old.node != new.node || (old.retiring && !new.retiring) || new.attempt < old.attempt {
        say(format!("slot {number} moves, comes back or forgets attempts"));
    }
    // A node that was silent could not be told anything, so its instances get their time anew, once.
    let unchanged =
        old.attempt == new.attempt && old.release == new.release && !before.silent.contains(&old.node);
    // Until its node was told, it could not begin.
    let begins = old.told.is_some() && new.told.is_none();
    if unchanged && !begins && old.assigned_at != new.assigned_at {
        say(format!("the deadline of slot {number} is re-based"));
    }
}

/// The slots that were given another release, with the release.
fn reassigned<'t>(change: &'t Change<'_>) -> BTreeMap<u64, &'t Slot> {
    let before = &change.before.memory.slots;
    let live = change.after.memory.slots.iter().filter(|(_, slot)| !slot.retiring);
    let changed =
        live.filter(|(number, slot)| before.get(number).is_some_and(|old| old.release != slot.release));
    changed.map(|(number, slot)| (*number, slot)).collect()
}
