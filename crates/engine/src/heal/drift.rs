//! Drift: outside a rollout, an instance whose change to the stable release failed, because its node could not fetch it
//! or was too busy just then. Nothing else would ever try it again. Those that the rollout itself saw fail and tolerated
//! are left for an operator's `retry`: it is the release that failed there.

use crate::progress::Slot;
use crate::sight::Sight;
use crate::turn::Turn;
use baton_model::observed::SwapPhase;
use baton_model::time::Millis;

/// From one try to the next: long enough that a node in trouble is not kept busy by it.
const TRY_AGAIN_AFTER: Millis = Millis::secs(300);

/// Gives such instances the stable release again, under the budget where the change takes them out of service.
pub(super) fn try_again(turn: &mut Turn<'_>) {
    let Some(stable) = turn.memory.stable.filter(|_| turn.rollout().is_none()) else { return };
    let tolerated = |number: u64| {
        let stands = turn.memory.rollout.as_ref().filter(|rollout| rollout.to == stable);
        stands.is_some_and(|rollout| rollout.stages.iter().any(|stage| stage.failed.contains_key(&number)))
    };
    let behind = |number: u64, slot: &Slot, sight: &Sight<'_>| {
        let swap = sight.seen?.swap.as_ref()?;
        let failed =
            swap.phase == SwapPhase::Failed && swap.to == slot.release && swap.attempt == slot.attempt;
        let ours = slot.release == stable && sight.heard && sight.confirmed;
        (failed && ours && !tolerated(number)).then(|| (number, slot.assigned_at.plus(TRY_AGAIN_AFTER)))
    };
    let unwell = turn.live_seen().filter(|(_, _, sight)| !sight.well());
    let behind: Vec<_> = unwell.filter_map(|(number, slot, sight)| behind(number, slot, sight)).collect();
    for (number, due) in behind {
        if turn.now < due {
            turn.wake(Some(due));
            continue;
        }
        let Some(slot) = turn.memory.slots.get(&number).cloned() else { continue };
        let serving = turn.seen(number).map_or(slot.release, |seen| seen.release);
        let free = turn.overlaps(serving, stable) || turn.spent(number, &slot);
        if free || turn.budget.take() {
            turn.assign(number, stable);
        }
    }
}
