//! What an earlier cluster left behind because its owner was killed with SIGKILL: workloads, and a folder.
//!
//! Its roles died with it (`--with-parent`), but shims outlive everything. They and their workloads are known by
//! the folder of that cluster, whose random name nobody else uses: it is in their command line, or they work in it.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file that says which process owns a thrown-away cluster: its pid and start time.
const OWNER: &str = "owner";
/// What the folders of thrown-away clusters are called.
pub(super) const PREFIX: &str = "baton-dev-";

/// Marks `dir` as ours for as long as this process lives.
pub(super) fn own(dir: &Path) -> std::io::Result<()> {
    let pid = std::process::id();
    std::fs::write(dir.join(OWNER), format!("{pid} {}\n", start_time(pid).unwrap_or_default()))
}

/// Ends what is left of clusters whose owner is gone, and removes their folders. Gives the folders.
pub(super) fn sweep(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let own_user = rustix::process::getuid().as_raw();
    let ours = |dir: &PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|it| it.is_dir() && it.uid() == own_user);
    let left: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)))
        .filter(ours)
        .filter(|dir| owner_is_gone(dir))
        .collect();
    for dir in &left {
        end_processes_of(dir);
        // Whatever cannot be removed now is tried again by the next cluster.
        let _ = std::fs::remove_dir_all(dir);
    }
    left
}

/// Whether the process that owned `dir` has ended. A folder without an owner is not touched: it may be younger
/// than the file in it.
fn owner_is_gone(dir: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(dir.join(OWNER)) else { return false };
    let mut words = text.split_whitespace();
    let (Some(pid), Some(start)) = (words.next().and_then(|pid| pid.parse().ok()), words.next()) else { return false };
    start_time(pid).is_none_or(|now| now != start)
}

/// Kills the processes that name or work in `dir`; shims first, since they would restart what they hold.
fn end_processes_of(dir: &Path) {
    let all = || std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<(bool, u32)> = pids.filter_map(|pid| belongs(pid, dir).map(|shim| (!shim, pid))).collect();
    found.sort_unstable();
    for (_, pid) in found {
        kill(pid, dir);
    }
}

/// Whether a process belongs to the cluster in `dir`, and if so, whether it is a shim.
fn belongs(pid: u32, dir: &Path) -> Option<bool> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).map(|word| Path::new(std::ffi::OsStr::new(std::str::from_utf8(word).unwrap_or(""))));
    let shim = words.clone().nth(1) == Some(Path::new("shim"));
    let named = words.any(|word| word.starts_with(dir));
    let inside = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    (named || inside).then_some(shim)
}

fn kill(pid: u32, dir: &Path) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return };
    // Asked again with the descriptor in hand, so that it is this process which belongs.
    if belongs(pid, dir).is_some() {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

/// When a process started, in clock ticks since boot: with the pid it names a process for good.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.get(stat.rfind(')')? + 2..)?.split(' ').nth(19).map(ToOwned::to_owned)
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
        let sleep = |dir: &Path| {
            std::fs::create_dir(dir).unwrap();
            Command::new("sleep").arg("600").current_dir(dir).stdin(Stdio::null()).spawn().unwrap()
        };
        let (mut left, mut kept) = (sleep(&dead), sleep(&alive));
        own(&alive).unwrap();
        std::fs::write(dead.join(OWNER), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(sweep(&parent), std::slice::from_ref(&dead));
        assert!(!dead.exists() && alive.exists());
        assert!(!left.wait().unwrap().success(), "it was killed");
        assert!(kept.try_wait().unwrap().is_none(), "it runs on");
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}
