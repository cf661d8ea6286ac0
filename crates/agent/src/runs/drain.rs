//! Waiting for what an old run still has: connections in its accept queue, and those its processes hold.

use super::RunHandle;
use super::place::Place;
use super::sockets::Listener;
use super::{tcp, unix};
use baton_model::time::Millis;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks: soon at first, since most requests are short, then at ease.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LAST: Duration = Duration::from_millis(200);

/// How long no datagram may wait in a UDP socket before its process is thought to have answered the last one: a datagram
/// that was read leaves no trace while it is worked on.
const UDP_SETTLE: Duration = Duration::from_millis(100);

/// Waits until the queues of `listeners` are empty and no process of the run holds a connection of theirs, or `within`
/// has passed. Returns how many connections were still open (cut) then. Where that cannot be told (`/proc` is not
/// readable), it waits for the whole time.
pub async fn drain(run: &RunHandle, listeners: &[Listener], within: Millis) -> u32 {
    let end = Instant::now() + within.duration();
    let settle = if listeners.iter().any(Listener::is_datagram) { UDP_SETTLE } else { Duration::ZERO };
    let mut pause = LOOK_FIRST;
    let mut quiet_since = None;
    loop {
        let (run, looked_at) = (run.clone(), listeners.to_vec());
        let looked = tokio::task::spawn_blocking(move || open_connections(&run, &looked_at)).await;
        let open = looked.unwrap_or_else(|error| Err(io::Error::other(error)));
        let now = Instant::now();
        if matches!(open, Ok(0)) && !datagrams_wait(listeners) {
            if now.duration_since(*quiet_since.get_or_insert(now)) >= settle {
                return 0;
            }
        } else {
            quiet_since = None;
        }
        if now >= end {
            return open.unwrap_or_else(|error| {
                tracing::warn!(%error, "the open connections of a run cannot be counted");
                0
            });
        }
        tokio::time::sleep(pause.min(end - now)).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}

fn datagrams_wait(listeners: &[Listener]) -> bool {
    listeners.iter().filter(|listener| listener.is_datagram()).any(|listener| listener.waiting() != Some(0))
}

/// Connections of the run now: waiting to be accepted, or held by one of its processes.
///
/// # Errors
/// `/proc` cannot be read.
pub fn open_connections(run: &RunHandle, listeners: &[Listener]) -> io::Result<u32> {
    let streams = listeners.iter().filter(|listener| !listener.is_datagram());
    let waiting: u32 = streams.filter_map(Listener::waiting).sum();
    let mut connected = BTreeSet::new();
    for listener in listeners {
        match &listener.place {
            Place::Tcp(address) => connected.extend(tcp::connections(address.port())?),
            Place::Unix(place) => connected.extend(unix::connections(&place.own)?),
            Place::Udp { .. } => {}
        }
    }
    if connected.is_empty() {
        return Ok(waiting);
    }
    let mut held = BTreeSet::new();
    for pid in run.pids()? {
        held.extend(sockets_of(pid).filter(|inode| connected.contains(inode)));
    }
    Ok(waiting + u32::try_from(held.len()).unwrap_or(u32::MAX))
}

/// Inodes of the sockets a process has open; none where it has just ended.
fn sockets_of(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}
