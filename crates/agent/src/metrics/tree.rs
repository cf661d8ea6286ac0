//! The processes of an instance, found by walking down from its shims (`/proc/PID/task/TID/children`), not by looking
//! at every process of the machine.
//!
//! Most processes do nothing between two samples, and one that has not run has started nothing. So each known process
//! is read, and only below one that has changed is looked for more. A node with hundreds of idle instances then reads
//! one file for each instead of three; reading them is what an idle agent's time goes to.

use super::procfs::{self, Process};
use std::collections::BTreeMap;

/// Processes of one instance that are looked at; a fork bomb must not take the agent's time as well.
const PROCESSES_MAX: usize = 1_000;
/// Samples after which everything is looked for anew: a process that started another in less than a tick and without a
/// page fault, and the shim that ran a hook, show no change of their own.
const WALK_EVERY: u32 = 15;

/// The processes, without the shims.
#[derive(Debug, Default)]
pub(super) struct Tree {
    shims: Vec<u32>,
    processes: BTreeMap<u32, Process>,
    /// Samples since the last walk down from the shims.
    age: u32,
}

impl Tree {
    /// The processes that are there now, given those of the sample before.
    pub(super) fn look(shims: &[u32], earlier: Option<&Self>) -> Self {
        earlier
            .filter(|earlier| earlier.shims == shims && earlier.age < WALK_EVERY)
            .and_then(Self::look_again)
            .unwrap_or_else(|| Self::walk(shims))
    }

    fn walk(shims: &[u32]) -> Self {
        let mut tree = Self { shims: shims.to_vec(), ..Self::default() };
        // A shim has one thread.
        let first = shims.iter().flat_map(|shim| procfs::children(*shim, 1)).collect();
        tree.take(first);
        tree
    }

    /// The known processes, and what those that changed have started. `None` when one is gone: its children, if it had
    /// any, are its shim's now, and a restart has put another in its place.
    fn look_again(&self) -> Option<Self> {
        let mut tree = Self { shims: self.shims.clone(), age: self.age + 1, ..Self::default() };
        let mut changed = Vec::new();
        for (pid, before) in &self.processes {
            let now = procfs::process(*pid).filter(|now| now.started == before.started)?;
            if now != *before {
                changed.push((*pid, now.threads));
            }
            tree.processes.insert(*pid, now);
        }
        // An instance without a process may get one at any time.
        if tree.processes.is_empty() {
            return None;
        }
        let below = changed.into_iter().flat_map(|(pid, threads)| procfs::children(pid, threads)).collect();
        tree.take(below);
        Some(tree)
    }

    /// Takes in these processes and all below them that are not known yet.
    fn take(&mut self, mut look: Vec<u32>) {
        while let Some(pid) = look.pop() {
            if self.processes.len() >= PROCESSES_MAX {
                return;
            }
            if self.processes.contains_key(&pid) {
                continue;
            }
            let Some(process) = procfs::process(pid) else { continue };
            look.extend(procfs::children(pid, process.threads));
            self.processes.insert(pid, process);
        }
    }

    /// Processor time used since an earlier sample, in ticks. One that was not there has used all of its time since.
    pub(super) fn ticks_since(&self, earlier: &Self) -> u64 {
        let used = |(pid, process): (&u32, &Process)| {
            let known = earlier.processes.get(pid).filter(|known| known.started == process.started);
            process.cpu_ticks.saturating_sub(known.map_or(0, |known| known.cpu_ticks))
        };
        self.processes.iter().map(used).sum()
    }

    pub(super) fn resident_bytes(&self) -> u64 {
        self.processes.values().map(|process| process.resident_bytes).sum()
    }

    pub(super) fn processes(&self) -> u32 {
        u32::try_from(self.processes.len()).unwrap_or(u32::MAX)
    }

    #[cfg(test)]
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// A process in the place of a shim, whose child waits for a line, then starts something.
    struct Shim(Child);

    impl Shim {
        fn start() -> Self {
            let workload =
                "sh -c 'echo ready; read line; sleep 60 & echo more; read line; exit 0' ; read line";
            let mut shim = Command::new("/bin/sh")
                .args(["-c", workload])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            shim.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
            Self(shim)
        }

        fn say(&mut self) {
            self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        }
    }

    impl Drop for Shim {
        fn drop(&mut self) {
            for pid in Tree::walk(&[self.0.id()]).pids() {
                let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Looks again, as samples do, until there are so many processes.
    fn until(shims: &[u32], mut tree: Tree, count: u32) -> Tree {
        let begun = Instant::now();
        while tree.processes() != count {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} processes", tree.processes());
            std::thread::sleep(Duration::from_millis(10));
            // As if it had just been walked: nothing here is found by that.
            tree.age = 0;
            tree = Tree::look(shims, Some(&tree));
        }
        tree
    }

    #[test]
    fn what_a_known_process_starts_is_found_and_what_ended_is_forgotten() {
        let mut shim = Shim::start();
        let shims = [shim.0.id()];
        let tree = until(&shims, Tree::look(&shims, None), 1);
        let again = Tree::look(&shims, Some(&tree));
        assert_eq!((again.pids(), again.age), (tree.pids(), tree.age + 1), "looked at again, not walked");
        shim.say();
        let more = until(&shims, again, 2);
        let sleep = *more.pids().iter().find(|pid| !tree.pids().contains(pid)).unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(sleep).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        // Its parent does not wait for it until it ends: it is a zombie, and still a process.
        shim.say();
        let none = until(&shims, more, 0);
        assert!(none.pids().is_empty());
    }

    #[test]
    fn a_tree_is_walked_anew_after_a_while() {
        let shim = Shim::start();
        let shims = [shim.0.id()];
        let mut tree = until(&shims, Tree::look(&shims, None), 1);
        tree.age = WALK_EVERY;
        assert_eq!(Tree::look(&shims, Some(&tree)).age, 0);
        assert_eq!(Tree::look(&[], Some(&tree)).processes(), 0, "of other shims nothing is known");
    }
}
