//! Health of one instance with respect to the release its slot should run: on a node that is heard, ready, the right
//! release, no change under way, and ready for `min_healthy` without a break.

use crate::progress::Slot;
use crate::turn::Turn;
use baton_model::observed::{InstanceObserved, InstanceState, SwapPhase};
use baton_model::time::{Millis, UnixMs};

/// An instance that cannot run is retried by its agent: a port may still be in use, a download may have broken off.
/// Only after this long does a rollout take it for a failure.
pub(crate) const CANNOT_RUN_GRACE: Millis = Millis::secs(10);

/// How an instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It runs the right release and has been ready for long enough.
    Healthy,
    /// The right release is ready, and will have been for long enough at this time.
    Settling(UnixMs),
    /// It is being brought up or changed; what it does now, for people.
    Coming(String),
    /// It is as it should be, and not every live gateway has acknowledged it; for people, whom it waits for.
    Unacknowledged(String),
    /// It says itself that it failed, and why.
    Failed(String),
    /// Its node is silent; its instances wait for it until this time.
    Deferred(UnixMs),
    /// Its node is lost.
    Lost,
}

/// Asks about the instance in a slot.
pub(crate) fn ask(turn: &Turn<'_>, number: u64, slot: &Slot, min_healthy: Millis) -> Health {
    let Some(sight) = turn.sight(number) else { return Health::Lost };
    if !sight.heard {
        let lost_after = turn.lost_after();
        return match sight.node {
            Some(view) if !turn.nodes.lost(Some(view), lost_after) => {
                Health::Deferred(view.last_heard.plus(lost_after))
            }
            Some(_) | None => Health::Lost,
        };
    }
    match sight.seen {
        Some(_) if slot.told.is_some() => {
            Health::Coming("its run leaves the gateways before it is stopped for the change".to_owned())
        }
        Some(_) if !sight.confirmed => Health::Coming("its node has not confirmed its plan yet".to_owned()),
        None => Health::Coming("its node has not reported it yet".to_owned()),
        Some(seen) => match judge(seen, slot, min_healthy, turn.now) {
            Health::Healthy if !sight.ready => Health::Unacknowledged(unacknowledged(turn, number)),
            judged => judged,
        },
    }
}

fn unacknowledged(turn: &Turn<'_>, number: u64) -> String {
    let behind =
        turn.entered(number).and_then(|revision| turn.sightings.gateways.unserved(turn.name, revision));
    behind.map_or_else(|| "it is ready, and not yet in the route".to_owned(), |(why, _)| why)
}

fn judge(seen: &InstanceObserved, slot: &Slot, min_healthy: Millis, now: UnixMs) -> Health {
    let ours = |swap: &&baton_model::observed::SwapObserved| swap.to == slot.release;
    if let Some(swap) = seen.swap.as_ref().filter(ours) {
        match swap.phase {
            SwapPhase::Failed if swap.attempt == slot.attempt => return Health::Failed(swap.reason.clone()),
            SwapPhase::DrainingOld if seen.release == slot.release => {}
            SwapPhase::Failed
            | SwapPhase::Staging
            | SwapPhase::StoppingOld
            | SwapPhase::Confirming
            | SwapPhase::Reverting
            | SwapPhase::Refreshing
            | SwapPhase::DrainingOld => {
                return Health::Coming(format!("swap: {}", phase_text(swap.phase, &swap.reason)));
            }
        }
    }
    if seen.release != slot.release {
        return Health::Coming("its node has not begun the change yet".to_owned());
    }
    // Back is back only when nothing of the other release is left (`exact-rollback`).
    if seen.swap.as_ref().is_some_and(|swap| !ours(&swap) && swap.phase == SwapPhase::Reverting) {
        return Health::Coming("what was begun of another release is still being removed".to_owned());
    }
    if seen.crash_loop {
        return Health::Failed(with_reason("it is in a crash loop", &seen.reason));
    }
    match (seen.state, seen.ready_since) {
        // Readiness is that of a run, and a swap makes a new one, so it is never older than the release.
        (InstanceState::Ready, Some(since)) => {
            let healthy_at = since.plus(min_healthy);
            if healthy_at <= now { Health::Healthy } else { Health::Settling(healthy_at) }
        }
        (InstanceState::Failed, _) if now >= slot.assigned_at.plus(CANNOT_RUN_GRACE) => {
            Health::Failed(with_reason("it cannot run", &seen.reason))
        }
        (state, _) => Health::Coming(with_reason(&format!("it is {state}"), &seen.reason)),
    }
}

fn phase_text(phase: SwapPhase, reason: &str) -> String {
    with_reason(&phase.to_string(), reason)
}

fn with_reason(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}
