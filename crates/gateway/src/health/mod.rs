//! How instances are: asked by the gateway itself, beside what the coordinator says and what requests show.
//!
//! [`watch`] runs one check for each upstream that a route names, for as long as one does, and once in a while looks who
//! is much slower than the others of its release.

mod check;
mod slow;
mod verdict;

use crate::table::{Served, Table};
use crate::upstream::UpstreamState;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Checks the upstreams of the table in force, and of each that follows, until `stop`.
pub async fn watch(served: Arc<Served>, stop: CancellationToken) {
    let mut installed = served.installed();
    let mut checks = JoinSet::new();
    let mut sweep = tokio::time::interval(slow::INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Marked as seen before it is read: a table that comes in between is looked at again.
        installed.borrow_and_update();
        let table: Arc<Table> = Arc::clone(&served.load());
        for upstream in table.upstreams().filter(|upstream| upstream.begin_watch()) {
            checks.spawn(checked(Arc::clone(&served), Arc::clone(upstream), stop.clone()));
        }
        drop(table);
        tokio::select! {
            () = stop.cancelled() => break,
            // The sender lives in `served`, so that it is never gone.
            _ = installed.changed() => {}
            _ = sweep.tick() => {
                let now = Instant::now();
                served.load().routes().values().for_each(|route| slow::sweep(route, now));
            }
            Some(_) = checks.join_next(), if !checks.is_empty() => {}
        }
    }
    checks.shutdown().await;
}

/// The check of one upstream, until it leaves.
async fn checked(served: Arc<Served>, upstream: Arc<UpstreamState>, stop: CancellationToken) {
    tokio::select! {
        () = check::run(&served, &upstream) => {}
        () = upstream.until_left() => {}
        () = stop.cancelled() => {}
    }
    upstream.end_watch();
}

#[cfg(test)]
mod tests;
