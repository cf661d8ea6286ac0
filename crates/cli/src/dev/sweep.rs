//! What an earlier cluster left behind because its owner was killed with SIGKILL: workloads, and a folder.
//!
//! Its roles died with it (`--with-parent`), but shims outlive everything. A shim of that cluster is known by the
//! files it holds open inside the cluster's folder, whose random name nobody else has; a shim is the subreaper of
//! its workload, so whatever descends from it is the workload's. Nobody else's process is either of the two.

use super::table::{Process, is_shim, table};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that says which process owns a thrown-away cluster: its pid and start time.
const OWNER: &str = "owner";
/// What the folders of thrown-away clusters are called.
pub(super) const PREFIX: &str = "baton-dev-";

/// Rounds of killing what descends from one shim; a workload that forks faster than this is left to its operator.
const ROUNDS_MAX: usize = 100;
/// Pause between two of them.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// Marks `dir` as ours for as long as this process lives.
pub(super) fn own(dir: &Path) -> std::io::Result<()> {
    let pid = std::process::id();
    std::fs::write(dir.join(OWNER), format!("{pid} {}\n", start_time(pid).unwrap_or_default()))
}

/// Ends what is left of clusters whose owner is gone, and removes their folders. Gives the folders.
pub(super) fn sweep(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let own_user = rustix::process::getuid().as_raw();
    let ours =
        |dir: &PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|it| it.is_dir() && it.uid() == own_user);
    let left: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)))
        .filter(ours)
        .filter(|dir| owner_is_gone(dir))
        .collect();
    for dir in &left {
        end_processes_of(dir);
        remove_control_groups(dir);
        // Whatever cannot be removed now is tried again by the next cluster.
        let _ = std::fs::remove_dir_all(dir);
    }
    left
}

/// Removes the control groups of the cluster's runs, once nothing runs in them, and its secrets from memory.
pub(super) fn remove_control_groups(dir: &Path) {
    for node in std::fs::read_dir(dir.join("nodes")).into_iter().flatten().flatten() {
        baton_agent::runs::remove_empty_groups(&node.path().join("runs"));
        if let Err(error) = baton_agent::forget_secrets(&node.path()) {
            tracing::warn!(%error, "secrets of a node that was thrown away are left in memory");
        }
    }
}

/// Whether the process that owned `dir` has ended. A folder without an owner is not touched: it may be younger
/// than the file in it.
fn owner_is_gone(dir: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(dir.join(OWNER)) else { return false };
    let mut words = text.split_whitespace();
    let (Some(pid), Some(start)) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) else {
        return false;
    };
    start_time(pid).is_none_or(|now| now != start)
}

/// Ends the shims of the cluster in `dir`, each after everything that descends from it.
fn end_processes_of(dir: &Path) {
    for pid in table().into_keys().filter(|pid| is_shim_of(*pid, dir)) {
        end_shim(pid, dir);
    }
}

/// Whether a process is a shim that has files of `dir` open.
fn is_shim_of(pid: u32, dir: &Path) -> bool {
    let open =
        |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(dir));
    is_shim(pid) && std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| fds.flatten().any(open))
}

/// Stops the shim, so that it starts nothing again, kills what descends from it until nothing is left (orphans
/// become its children), and then the shim.
fn end_shim(pid: u32, dir: &Path) {
    let Some(shim) = open(pid) else { return };
    // Asked again with the descriptor in hand, so that it is this process which is the shim.
    if !is_shim_of(pid, dir) || pidfd_send_signal(&shim, Signal::STOP).is_err() {
        return;
    }
    for _ in 0..ROUNDS_MAX {
        let table = table();
        let left: Vec<u32> = table.keys().copied().filter(|child| descends(&table, *child, pid)).collect();
        if left.is_empty() {
            break;
        }
        for (child, process) in left.into_iter().filter_map(|child| Some((child, open(child)?))) {
            if descends(&self::table(), child, pid) {
                // It may have ended by itself.
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
        std::thread::sleep(ROUND_PAUSE);
    }
    // It cannot have gone: it was stopped.
    let _ = pidfd_send_signal(&shim, Signal::KILL);
}

fn open(pid: u32) -> Option<std::os::fd::OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

/// Whether `pid` lives and descends from `ancestor`.
fn descends(table: &BTreeMap<u32, Process>, pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    // Each step goes to an older process; the bound is for a table that changed under us.
    for _ in 0..table.len() {
        let Some(process) = table.get(&at).filter(|process| at != pid || !process.zombie) else {
            return false;
        };
        if process.parent == ancestor {
            return true;
        }
        at = process.parent;
    }
    false
}

/// When a process started, in clock ticks since boot: with the pid it names a process for good.
fn start_time(pid: u32) -> Option<String> {
    table().get(&pid).map(|process| process.start.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_dead_owner_left_is_ended_and_what_a_living_one_has_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path().canonicalize().unwrap();
        let (dead, alive) = (parent.join("baton-dev-dead"), parent.join("baton-dev-alive"));
        // Like a shim: its first argument says so, it holds a file of its cluster, and it has a workload.
        let shim = |dir: &Path| {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("shim"), "exec 9>held; sleep 600 & echo $! > workload; wait").unwrap();
            let child = Command::new("sh").arg("shim").current_dir(dir).stdin(Stdio::null()).spawn().unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            let workload = loop {
                match std::fs::read_to_string(dir.join("workload")).unwrap_or_default().trim().parse::<u32>()
                {
                    Ok(pid) => break pid,
                    Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(ROUND_PAUSE),
                    Err(_) => panic!("it did not start its workload"),
                }
            };
            (child, workload)
        };
        let ((mut left, workload), (mut kept, other)) = (shim(&dead), shim(&alive));
        // Somebody who only looks around in the folder.
        let mut guest =
            Command::new("sleep").arg("600").current_dir(&dead).stdin(Stdio::null()).spawn().unwrap();
        own(&alive).unwrap();
        std::fs::write(dead.join(OWNER), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(sweep(&parent), std::slice::from_ref(&dead));
        assert!(!dead.exists() && alive.exists());
        assert!(!left.wait().unwrap().success(), "it was killed");
        let lives = |pid: u32| table().get(&pid).is_some_and(|process| !process.zombie);
        assert!(!lives(workload), "its workload with it");
        assert!(lives(kept.id()) && lives(other) && lives(guest.id()), "nobody else");
        end_shim(kept.id(), &alive);
        kept.wait().unwrap();
        assert!(!lives(other));
        guest.kill().unwrap();
        guest.wait().unwrap();
    }
}
