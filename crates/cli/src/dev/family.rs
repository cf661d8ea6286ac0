//! The processes that descend from this one, and their end.
//!
//! Workloads and their shims outlive the agents that started them: that is their purpose. A local cluster must
//! leave none behind. So this process makes itself the *subreaper* of its descendants (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`): the kernel gives it every orphan among them, and descent, which nobody can forge,
//! is the proof that a process is ours before it is signalled (invariant `no-foreign-kill`).

use super::table::{Process, is_shim, table};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two looks at who is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// From SIGKILL to giving up on a process that does not go (it hangs in the kernel).
const KILL_LIMIT_S: i64 = 5;

/// This process and those that descend from it, less those that did before.
#[derive(Debug)]
pub(crate) struct Family {
    own: u32,
    /// Children we had from the start, by pid and start time: whoever executed us made them.
    foreign: BTreeSet<(u32, u64)>,
}

impl Family {
    /// Makes this process the subreaper of its descendants.
    pub(crate) fn found() -> std::io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let own = std::process::id();
        let table = table();
        let foreign = table.iter().filter(|(_, p)| p.parent == own).map(|(pid, p)| (*pid, p.start)).collect();
        Ok(Self { own, foreign })
    }

    /// Reaps the orphans given to us that have ended; `roles` are reaped by their supervisors.
    pub(crate) fn reap(&self, roles: &BTreeSet<u32>) {
        for (pid, process) in table() {
            let foreign = self.foreign.contains(&(pid, process.start));
            if process.parent == self.own && process.zombie && !foreign && !roles.contains(&pid) {
                reap(pid);
            }
        }
    }

    /// Ends every descendant: shims first, since they would restart what they hold; the rest is asked with
    /// SIGTERM, and killed after `grace`. Gives the pids of those that could not be ended.
    ///
    /// The roles must have ended before, since they start processes.
    pub(crate) async fn end(&self, grace: Duration) -> Vec<u32> {
        let began = Instant::now();
        let mut asked = BTreeSet::new();
        loop {
            let table = table();
            let left = self.descendants(&table);
            if left.is_empty() {
                return Vec::new();
            }
            if began.elapsed() > grace + Duration::from_secs(KILL_LIMIT_S.unsigned_abs()) {
                return left;
            }
            let shims: Vec<u32> = left.iter().copied().filter(|pid| is_shim(*pid)).collect();
            for pid in left {
                if table[&pid].zombie {
                    if table[&pid].parent == self.own {
                        reap(pid);
                    }
                } else if shims.contains(&pid) || began.elapsed() > grace {
                    self.signal(pid, Signal::KILL);
                } else if shims.is_empty() && asked.insert((pid, table[&pid].start)) {
                    self.signal(pid, Signal::TERM);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends SIGKILL to a descendant and waits until it is dead.
    ///
    /// # Errors
    /// When it does not descend from us, or does not die in time.
    pub(crate) async fn kill_and_wait(&self, pid: u32) -> std::io::Result<()> {
        let foreign = || std::io::Error::other(format!("process {pid} is none of this cluster's"));
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(foreign)?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        if !self.descendants(&table()).contains(&pid) {
            return Err(foreign());
        }
        pidfd_send_signal(&process, Signal::KILL)?;
        let dead = tokio::task::spawn_blocking(move || {
            // pidfd_open(2): readable once the process has ended, reaped or not.
            let limit = Timespec { tv_sec: KILL_LIMIT_S, tv_nsec: 0 };
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))
        });
        match dead.await.map_err(std::io::Error::other)?? {
            0 => Err(std::io::Error::other(format!("process {pid} does not die"))),
            _ => Ok(()),
        }
    }

    /// Signals the process `pid` if it descends from us at this moment.
    fn signal(&self, pid: u32, signal: Signal) {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return };
        // Looked up after the descriptor was opened: if the pid has changed hands since, the descriptor
        // still means the old, dead process, and the signal reaches nobody.
        if self.descendants(&table()).contains(&pid) {
            // It may have ended by itself.
            let _ = pidfd_send_signal(&process, signal);
        }
    }

    fn descendants(&self, table: &BTreeMap<u32, Process>) -> Vec<u32> {
        let ours = |mut pid: u32| {
            // Each step goes to an older process or to init; the bound is for a table that changed under us.
            for _ in 0..table.len() {
                let Some(process) = table.get(&pid) else { return false };
                if self.foreign.contains(&(pid, process.start)) {
                    return false;
                }
                if process.parent == self.own {
                    return true;
                }
                pid = process.parent;
            }
            false
        };
        table.keys().copied().filter(|pid| ours(*pid)).collect()
    }
}

fn reap(pid: u32) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    if let Ok(pid) = i32::try_from(pid) {
        // Somebody else may have reaped it.
        let _ = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descent_makes_a_process_ours() {
        let process = |parent, start| Process { parent, zombie: false, start };
        let family = Family { own: 10, foreign: BTreeSet::from([(12, 5)]) };
        let table = BTreeMap::from([
            (1, process(0, 0)),
            (10, process(1, 1)),
            (11, process(10, 2)),
            (12, process(10, 5)),
            (13, process(11, 6)),
            (14, process(12, 6)),
            (15, process(1, 7)),
        ]);
        assert_eq!(family.descendants(&table), [11, 13]);
    }
}
