//! A shim that is gone while its workload may live: what is left is killed, if it is provably ours.
//!
//! Proof is one of three: the process is in the run's own control group; it is the workload that the shim recorded
//! (process id and start time, same boot), or in the session of that workload while it lives; or it carries the run's
//! random mark in its environment. What was seen of a process is bound to its id and start time, and it is held by a
//! pidfd and compared with both before it is killed.

use super::contain::Group;
use super::process::{self, Held};
use super::record::Stored;
use crate::shim::protocol::Identity;
use crate::shim::statefile::{Recorded, STATE_FILE};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Mutex;

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
        let (mark, look) = (stored.mark, look_from_now_on().await);
        let killed = tokio::task::spawn_blocking(move || kill_proven(&look, workload, &mark));
        let left = killed.await.unwrap_or(0);
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
fn kill_proven(look: &[Seen], workload: Option<Identity>, mark: &[u8; 16]) -> usize {
    // It lives, so it has lived since before the look, and whoever was in its session then is of it.
    let session = workload.filter(|leader| Held::prove(*leader).is_some()).map(|leader| leader.pid);
    let is_ours = |seen: &&Seen| {
        workload == Some(seen.identity) || session == Some(seen.session) || seen.marks.contains(mark)
    };
    // All are held before one is killed: the leader proves its session.
    let found: Vec<Held> =
        look.iter().filter(is_ours).filter_map(|seen| Held::prove(seen.identity)).collect();
    found.iter().for_each(Held::kill);
    found.len()
}

/// What is seen of one process.
struct Seen {
    identity: Identity,
    session: u32,
    marks: Vec<[u8; 16]>,
}

/// Looks at every process of this machine that lives.
fn look() -> Vec<Seen> {
    let see = |pid| {
        let stat = process::stat(pid).filter(|stat| !stat.has_ended())?;
        let marks = process::marks(pid);
        // Nobody else has its number by now, so the marks are its own.
        process::stat(pid).filter(|again| again.start == stat.start)?;
        Some(Seen { identity: Identity { pid, start: stat.start }, session: stat.session, marks })
    };
    process::all().unwrap_or_default().into_iter().filter_map(see).collect()
}

/// The latest look at the machine, shared by those who still use it.
struct Latest {
    /// The moment when it began.
    began: u64,
    seen: Weak<Vec<Seen>>,
}

/// Where looks are taken, one at a time.
static LATEST: Mutex<Latest> = Mutex::const_new(Latest { began: 0, seen: Weak::new() });
/// Counts what is asked and what is begun, to know which came first.
static MOMENTS: AtomicU64 = AtomicU64::new(0);

/// A look that begins after now. Whoever asks while one is taken shares the next: two hundred runs that are lost at once
/// would look at every process two hundred times.
async fn look_from_now_on() -> Arc<Vec<Seen>> {
    let asked = MOMENTS.fetch_add(1, Ordering::Relaxed);
    let mut latest = LATEST.lock().await;
    if latest.began > asked
        && let Some(seen) = latest.seen.upgrade()
    {
        return seen;
    }
    let began = MOMENTS.fetch_add(1, Ordering::Relaxed);
    let seen = Arc::new(tokio::task::spawn_blocking(look).await.unwrap_or_default());
    *latest = Latest { began, seen: Arc::downgrade(&seen) };
    seen
}
