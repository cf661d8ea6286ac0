//! Rollouts: the passage of a service from one release to another.
//!
//! A strategy is data that compiles once into stages ([`compile`]); one stage machine ([`machine`]) runs them all,
//! forward and back. What an operator sets ([`control`]) is whole state, never "do this once".
//!
//! ```text
//!             request                 every stage done
//!   (none) ───────────► Running ─────────────────────────► Succeeded
//!                        │  ▲ │
//!         pause, approval│  │ │a stage failed, or abort          every stage done
//!          or failed with│  │ └─────────────────► RollingBack ───────────────────► RolledBack
//!        on_failure pause▼  │resume, promote,        │ ▲
//!                       Paused    retry              ▼ │retry
//!                                                  Paused  (could not restore every instance)
//!   A first release has nothing to go back to: it ends as Failed. A newer request makes any of them Superseded.
//! ```

mod analysis;
mod back;
mod begin;
mod comparison;
mod compile;
mod control;
mod describe;
mod failure;
mod finish;
mod machine;
mod plan;
mod sets;
mod shift;
mod steps;
mod stop;
mod tally;
mod zone;

use crate::turn::Turn;

pub(crate) use describe::describe;

/// Brings the rollout of one service as far as it may go now.
pub(crate) fn run(turn: &mut Turn<'_>) {
    if begin::take_request(turn) {
        return;
    }
    if turn.rollout().is_none() {
        control::reopen(turn);
    }
    if turn.rollout().is_none() {
        return;
    }
    control::obey(turn);
    machine::step(turn);
    analysis::foresee(turn);
}
