//! A live run as the driver holds it: its shim, its checks, and its part in a swap.

use super::launch::Launched;
use super::swap::{Closing, Kept, Steered};
use crate::checks::dial::SharedSteering;
use crate::runs::{Place, RunHandle, SocketError};
use baton_model::id::RunNumber;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// A run that is held by a proven shim.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) handle: RunHandle,
    /// The task that checks it; dropping it ends the checks.
    pub(super) checks: Option<AbortOnDropHandle<()>>,
    /// The run that it was started beside, until that one is gone.
    pub(super) beside: Option<RunNumber>,
    /// The ports that it shares with that run.
    pub(super) steered: BTreeMap<String, Steered>,
}

impl LiveRun {
    pub(super) fn launched(launched: Launched) -> Self {
        let Launched { handle, beside, steered, kept_from: _ } = launched;
        Self { handle, checks: None, beside, steered }
    }

    pub(super) fn adopted(handle: RunHandle) -> Self {
        Self { handle, checks: None, beside: None, steered: BTreeMap::new() }
    }

    /// How its checks reach it while it is a candidate.
    pub(super) fn steering(&self) -> BTreeMap<String, SharedSteering> {
        self.steered.iter().map(|(name, steered)| (name.clone(), Arc::clone(&steered.steering))).collect()
    }

    /// New connections go to this run from now on, at all of its sockets.
    ///
    /// # Errors
    /// At none of them then.
    pub(super) fn flip(&mut self) -> Result<(), SocketError> {
        let refused = self.steered.values().find_map(|steered| steered.flip().err());
        if let Some(error) = refused {
            self.steered.values().for_each(Steered::turn_back);
            return Err(error);
        }
        self.steered.values_mut().for_each(Steered::relay_late);
        Ok(())
    }

    /// Where its checks find its Unix sockets: under its own names, whoever has the public paths.
    pub(super) fn paths(&self) -> BTreeMap<String, PathBuf> {
        let listeners = self.handle.listeners().iter();
        let paths = listeners.filter_map(|listener| match &listener.place {
            Place::Unix(unix) => Some((listener.name.to_string(), unix.own.clone())),
            Place::Tcp(_) | Place::Udp { .. } => None,
        });
        paths.collect()
    }

    /// What stays open for the next run when this one's shim was lost. Nothing of a candidate: it had no connections.
    pub(super) fn take_kept(&mut self) -> Option<Kept> {
        if !self.steered.values().all(Steered::is_flipped) {
            return None;
        }
        Some(Kept {
            from: self.handle.run(),
            listeners: self.handle.listeners().to_vec(),
            beside: self.beside.take(),
            steered: std::mem::take(&mut self.steered),
        })
    }

    /// What is to be closed now that the run beside it is gone. Nothing while that run's sockets still have the new
    /// connections: they wait in its queue, and are relayed as soon as this one is ready.
    pub(super) fn take_closing(&mut self) -> Option<Closing> {
        if self.steered.is_empty() || !self.steered.values().all(Steered::is_flipped) {
            return None;
        }
        self.beside = None;
        Some(Closing { steered: std::mem::take(&mut self.steered).into_values().collect() })
    }
}
