//! A shim that is gone while its workload may live: what is left is killed, if it is provably ours.
//!
//! Proof is one of three: the process is in the run's own control group; it is the workload that the shim recorded
//! (process id and start time, same boot), or in the session of that workload while it lives; or it carries the run's
//! random mark in its environment. A process held by a pidfd before it is looked at cannot change meanwhile.

use super::contain::Group;
use super::process::{self, Held};
use super::record::Stored;
use crate::shim::protocol::Identity;
use crate::shim::statefile::{Recorded, STATE_FILE};
use std::path::Path;
use std::time::Duration;

/// Rounds of looking and killing; a process that is slow to die (waiting for a disk) has a second.
const ROUNDS_MAX: u32 = 100;
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// Kills what the run in `directory` left. Returns whether all of it is gone.
pub(super) async fn clean(directory: &Path, stored: &Stored) -> bool {
    let workload = recorded_workload(directory);
    let group = stored.group.clone().map(|path| Group { path });
    for _ in 0..ROUNDS_MAX {
        if let Some(group) = &group {
            // The group is named by the run's mark; without one it was never made.
            let _ = group.kill();
        }
        let mark = stored.mark;
        let left = tokio::task::spawn_blocking(move || kill_proven(workload, &mark)).await.unwrap_or(0);
        let in_group = group.as_ref().and_then(|group| group.pids().ok()).map_or(0, |pids| pids.len());
        if left == 0 && in_group == 0 {
            return true;
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
    tracing::warn!(run = %directory.display(), "processes of a run without its shim do not die");
    false
}

/// The workload as the shim recorded it, if in this boot.
pub(super) fn recorded_workload(directory: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(directory.join(STATE_FILE)).ok()?;
    let recorded = Recorded::parse(&text)?;
    let same_boot = process::boot_id().is_ok_and(|boot| boot == recorded.boot);
    (same_boot && recorded.workload.pid != 0).then_some(recorded.workload)
}

/// One round. Returns how many were found (and killed).
fn kill_proven(workload: Option<Identity>, mark: &[u8; 16]) -> usize {
    let session = workload.filter(|leader| Held::prove(*leader).is_some()).map(|leader| leader.pid);
    let mut found = Vec::new();
    for pid in process::all().unwrap_or_default() {
        let Some(held) = Held::open(pid) else { continue };
        let Some(stat) = process::stat(pid).filter(|stat| !stat.has_ended()) else { continue };
        let is_leader = workload.is_some_and(|leader| leader == Identity { pid, start: stat.start });
        let in_session = session.is_some_and(|session| session == stat.session);
        if is_leader || in_session || process::has_mark(pid, mark) {
            found.push(held);
        }
    }
    // The leader proves its session: it must not die before all members are found.
    for held in &found {
        held.kill();
    }
    found.len()
}
