//! Routes: what gateways do with the requests of a service, from what runs and how its rollout stands ([`content`],
//! [`split`]), under which revision, and which runs are on their way in or out ([`revise`]).
//!
//! ```text
//!              ready                    all live gateways have acknowledged the revision that names it
//!   a run ───────────────► named ──────────────────────────────────────────────────────────► available
//!                            │ not ready, to be stopped, or another run took its place
//!                            ▼
//!                           left ──all have acknowledged a revision without it, and none is busy with it──► let go
//!                            │                                                                               ▲
//!                            └──its release's `stop.drain` is over; what was in flight is counted ───────────┘
//! ```
//!
//! What waits for a run to be let go: a slot that retires stays in its node's plan until then, one that cannot change
//! beside its old run is told to change only then (`Slot::told`), and a node may stop the run that was replaced
//! (`Slot::released`).

mod content;
mod revise;
mod split;

pub use crate::gateways::GATEWAY_LEASE;

use crate::progress::ServiceProgress;
use crate::turn::Turn;
use baton_model::id::ServiceName;
use baton_model::route::Route;
use std::collections::BTreeMap;

/// The routes of all services as they are remembered: with a revision of its own, the table of every gateway.
#[must_use]
pub fn routes<'a>(
    progress: impl IntoIterator<Item = (&'a ServiceName, &'a ServiceProgress)>,
) -> BTreeMap<ServiceName, Route> {
    let route = |(name, memory): (&ServiceName, &'a ServiceProgress)| {
        Some((name.clone(), memory.route.current.clone()?))
    };
    progress.into_iter().filter_map(route).collect()
}

/// Brings the route of one service up to date, and lets go of the runs that may be stopped.
pub(crate) fn run(turn: &mut Turn<'_>) {
    let spec = content::spec(turn);
    if spec.is_none() && !turn.memory.route.in_use() {
        return;
    }
    revise::catch_up(turn);
    revise::revise(turn, spec);
    revise::let_go(turn);
    revise::release(turn);
    revise::explain(turn);
}
