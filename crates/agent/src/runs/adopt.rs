//! Taking over a run that outlived an earlier agent.

use super::channel::Channel;
use super::process::{Held, boot_id};
use super::record::Stored;
use super::sockets::Listener;
use super::{RunHandle, RunRecord, RunState, Runs, link, lost, rescue, sockets, start};
use crate::shim::protocol::{Identity, Message, Request};
use crate::shim::statefile::{Recorded, STATE_FILE};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An agent may have died between starting a shim and the shim's first record; it gets this long to write it.
const RECORD_WITHIN: Duration = Duration::from_millis(500);
const RECORD_PAUSE: Duration = Duration::from_millis(20);
/// A process that ends closes its sockets before it is seen to have ended: whoever does not answer gets this long to go.
const ENDING_WITHIN: Duration = Duration::from_secs(1);
/// The answer with the sockets.
const LISTENERS_WITHIN: Duration = Duration::from_secs(5);

/// What became of a run that an earlier agent had started.
#[derive(Debug)]
pub enum Adoption {
    /// It lives; its events come from now on.
    Adopted(Box<Adopted>),
    /// Its shim has gone. What was left of the workload and provably ours has been removed.
    /// Call `Runs::forget` when this has been acted upon.
    Gone {
        /// What it was, where that could still be read.
        record: Option<RunRecord>,
        /// Why, for people.
        reason: String,
        /// Its listening sockets, taken back from its workload before that was ended.
        listeners: Vec<Listener>,
    },
}

/// A run that lives on.
#[derive(Debug)]
pub struct Adopted {
    /// The run. Ends that were not acknowledged are told once more as `Exited` events, in order, then what
    /// happens from now on; a run that had been stopped tells `Stopped` once more.
    pub handle: RunHandle,
    /// How the run is now.
    pub state: RunState,
}

/// It cannot be told whether a run lives. Nothing was signalled.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The shim lives, and does not answer or refuses.
    #[error("the shim of the run in {directory} (process {pid}) lives but cannot be spoken with: {reason}")]
    Unreachable {
        /// The run's directory.
        directory: PathBuf,
        /// The shim's process.
        pid: u32,
        /// Why.
        reason: String,
    },
    /// The directory cannot be read.
    #[error("reading the run in {directory}")]
    Io {
        /// The run's directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) async fn adopt(runs: &Runs, directory: &Path) -> Result<Adoption, AdoptError> {
    let failed = |source| AdoptError::Io { directory: directory.to_owned(), source };
    let stored = match Stored::read(directory) {
        Ok(stored) => stored,
        Err(error) if directory.is_dir() => {
            // The record is written before anything is started, so nothing was.
            return Ok(Adoption::Gone {
                record: None,
                reason: format!("its record cannot be read: {error}"),
                listeners: Vec::new(),
            });
        }
        Err(error) => return Err(failed(error)),
    };
    let Some(recorded) = read_recorded(directory).await else {
        return Ok(gone(directory, stored, "its shim never came up".to_owned()).await);
    };
    if recorded.boot != boot_id().map_err(failed)? {
        // Nothing of it lives, and its process ids are others' now.
        let reason = "the machine was started anew since".to_owned();
        return Ok(Adoption::Gone { record: Some(stored.record), reason, listeners: Vec::new() });
    }
    let pid = recorded.shim.pid;
    if !lives(recorded.shim) {
        return Ok(gone(directory, stored, format!("its shim (process {pid}) is gone")).await);
    }
    let unreachable = |error: io::Error| AdoptError::Unreachable {
        directory: directory.to_owned(),
        pid,
        reason: error.to_string(),
    };
    let spoken = async {
        let (channel, state) = link::connect(directory, &stored, recorded.shim).await?;
        let (listeners, early) = fetch_listeners(&channel, &stored).await?;
        Ok::<_, io::Error>((channel, state, listeners, early))
    };
    let (channel, state, listeners, early) = match spoken.await {
        Ok(spoken) => spoken,
        Err(_) if Held::ends_within(recorded.shim, ENDING_WITHIN).await => {
            return Ok(gone(directory, stored, format!("its shim (process {pid}) has just gone")).await);
        }
        Err(error) => return Err(unreachable(error)),
    };
    let spoken = start::Spoken { stored, state, channel, early, child: None };
    let handle = start::attach(runs, directory, spoken, listeners.into());
    Ok(Adoption::Adopted(Box::new(Adopted { handle, state: RunState::from(&state) })))
}

fn lives(shim: Identity) -> bool {
    Held::prove(shim).is_some()
}

async fn gone(directory: &Path, stored: Stored, reason: String) -> Adoption {
    let workload = lost::recorded_workload(directory);
    let listeners = workload.map_or_else(Vec::new, |workload| rescue::sockets(workload, &stored));
    let reason = if lost::clean(directory, &stored).await {
        reason
    } else {
        format!("{reason}; some of its processes do not die")
    };
    Adoption::Gone { record: Some(stored.record), reason, listeners }
}

async fn read_recorded(directory: &Path) -> Option<Recorded> {
    let read = async {
        loop {
            let text = std::fs::read_to_string(directory.join(STATE_FILE));
            if let Some(recorded) = text.ok().and_then(|text| Recorded::parse(&text)) {
                return recorded;
            }
            tokio::time::sleep(RECORD_PAUSE).await;
        }
    };
    tokio::time::timeout(RECORD_WITHIN, read).await.ok()
}

/// Asks for the sockets. Events that come before the answer are kept for the run's task.
async fn fetch_listeners(channel: &Channel, stored: &Stored) -> io::Result<(Vec<Listener>, Vec<Message>)> {
    let mut early = Vec::new();
    let fetch = async {
        channel.send(&Request::Listeners, 2, &[]).await?;
        loop {
            let incoming = channel.receive().await?.ok_or(io::ErrorKind::ConnectionReset)?;
            if let Message::Listeners { .. } = incoming.message {
                return Ok::<_, io::Error>(incoming.fds);
            }
            early.push(incoming.message);
        }
    };
    let fds = tokio::time::timeout(LISTENERS_WITHIN, fetch).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if fds.len() != stored.listeners.len() {
        let text = format!("{} sockets came for {}", fds.len(), stored.listeners.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let named = stored.listeners.iter().zip(fds);
    let listeners: io::Result<Vec<_>> = named
        .map(|((name, place), fd)| sockets::Listener::from_fd(name.clone(), place.clone(), fd))
        .collect();
    Ok((listeners?, early))
}
