//! Heal: instances whose node is lost or is to be empty get a place elsewhere; what has retired is forgotten once its
//! node no longer reports it. Restarts are the agent's; a crash loop is reported, not moved, since a program that
//! crashes here crashes elsewhere too. An instance that was away while a rollout ended and could not follow is tried again.
//!
//! The **brake**: where many nodes fall silent at about the same time, the network or the coordinator is the likelier
//! cause, and moving everything onto the rest would make it worse. Then nothing is moved, and the report says so.

pub(crate) mod brake;
mod drift;
mod moves;
mod silence;

use crate::turn::Turn;

/// Heals one service, as far as it may be healed now.
pub(crate) fn run(turn: &mut Turn<'_>) {
    silence::note(turn);
    moves::forget_retired(turn);
    moves::leave_lost_nodes(turn);
    moves::leave_unfit_nodes(turn);
    moves::finish_moves(turn);
    drift::try_again(turn);
}
