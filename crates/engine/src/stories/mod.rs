//! Whole stories, driven: a fleet, what operators and faults do to it, and how it ends.

mod between;
mod control;
mod evidence;
mod faults;
mod random;
mod rolling;
mod routes;
mod strategies;
mod trials;
mod usage;

use crate::fleet::{Fleet, fleet, spec};
use baton_model::rollout::RolloutOutcome;
use baton_model::time::Millis;

/// Three nodes in three zones that run `web` 1.0 on each.
fn three() -> Fleet {
    let mut fleet = fleet(3, 3);
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, Millis::secs(20)).run(Millis::secs(5));
    fleet.events.clear();
    fleet
}
