//! The listening sockets of a run whose shim died together with the agent: the workload, while it lives, still has
//! them open, and so their queues live too.
//!
//! They are taken back from it (pidfd_getfd(2)) before it is ended, so that the next run goes on with the same sockets
//! and no connection is refused between the two. The process is proven first, as for a signal, and held by its pidfd; a
//! socket is ours if it listens where the run's record says. The kernel allows it to root and to whoever may trace
//! the process; where it does not, the next run makes new sockets, as after a crash of the machine.

use super::process::Held;
use super::record::Stored;
use super::sockets::Listener;
use crate::shim::protocol::Identity;
use rustix::process::PidfdGetfdFlags;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::RawFd;

/// Descriptors of the workload looked at: its listeners have the first numbers unless it has moved them.
const DESCRIPTORS_MAX: usize = 4096;

/// Takes back what `workload` still has of the run's sockets; none where it is gone or may not be asked.
pub(super) fn sockets(workload: Identity, stored: &Stored) -> Vec<Listener> {
    let Some(held) = Held::prove(workload) else { return Vec::new() };
    let mut rescued: Vec<Listener> = Vec::new();
    for number in descriptors(workload.pid) {
        if rescued.len() == stored.listeners.len() {
            break;
        }
        let Ok(fd) = rustix::process::pidfd_getfd(held.descriptor(), number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        for (name, place) in &stored.listeners {
            let Ok(fd) = fd.try_clone() else { continue };
            let Ok(listener) = Listener::from_fd(name.clone(), place.clone(), fd) else { continue };
            let known =
                rescued.iter().any(|other| other.place.is_same(place) || other.inode == listener.inode);
            if !known && listener.is_where_it_says() {
                rescued.push(listener);
                break;
            }
        }
    }
    rescued
}

/// The sockets among its descriptors, the lowest numbers first.
fn descriptors(pid: u32) -> BTreeSet<RawFd> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets = entries.take(DESCRIPTORS_MAX).filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    });
    sockets.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
