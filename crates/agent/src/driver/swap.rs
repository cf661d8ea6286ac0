//! The sockets of a swap: who gets new connections, and how the old socket is closed without cutting anyone off.

use crate::checks::dial::{SharedSteering, lock};
use crate::journal::{Draft, Journal};
use crate::runs::sockets::{Listener, SocketError};
use crate::runs::steer::Steering;
use crate::runs::straggle::Stragglers;
use baton_model::id::{InstanceId, RunNumber};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How long the old socket is listened on after the old run is gone: a handshake that had begun when new
/// connections were turned away ends well within this on one host or one network.
const LINGER: Millis = Millis(100);
/// The longest wait for relayed connections to end by themselves.
const RELAYED_FINISH: Millis = Millis::secs(10);

/// One port of a candidate that is listened on beside the old run.
#[derive(Debug)]
pub(super) struct Steered {
    pub(super) steering: SharedSteering,
    /// The old run's socket: kept open here even if its shim is lost.
    old: Listener,
    stragglers: Option<Stragglers>,
}

impl Steered {
    pub(super) fn new(steering: Steering, old: Listener) -> Self {
        Self { steering: Arc::new(Mutex::new(Some(steering))), old, stragglers: None }
    }

    /// Turns new connections to the candidate.
    ///
    /// # Errors
    /// They go where they went before.
    pub(super) fn flip(&self) -> Result<(), SocketError> {
        lock(&self.steering).as_mut().map_or(Ok(()), Steering::flip)
    }

    /// Turns new connections back to the old run.
    pub(super) fn turn_back(&self) {
        if let Some(steering) = lock(&self.steering).as_mut()
            && let Err(error) = steering.turn_back()
        {
            tracing::error!(%error, place = %self.old.place, "new connections could not be turned back");
        }
    }

    /// What still reaches the old socket is relayed from now on. Call it after the flip.
    pub(super) fn relay_late(&mut self) {
        if self.stragglers.is_some() || self.old.is_datagram() {
            return;
        }
        match Stragglers::begin(&self.old) {
            Ok(stragglers) => self.stragglers = Some(stragglers),
            Err(error) => {
                tracing::error!(%error, place = %self.old.place, "late connections cannot be relayed");
            }
        }
    }

    pub(super) fn is_flipped(&self) -> bool {
        lock(&self.steering).as_ref().is_none_or(Steering::flipped)
    }

    /// The candidate goes: its socket stops listening, unless connections were turned to it; then it goes with
    /// its last holder, and the old socket gets everything again.
    pub(super) fn withdraw(self) {
        if self.is_flipped() {
            // The path of a Unix socket does not turn back by itself.
            return self.turn_back();
        }
        if let Some(steering) = lock(&self.steering).take()
            && let Err(error) = steering.end()
        {
            tracing::warn!(%error, place = %self.old.place, "a candidate's socket could not be closed");
        }
    }
}

/// What a run had open whose shim was lost: its next run goes on with it, so that who waits in the queue is answered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) from: RunNumber,
    pub(super) listeners: Vec<Listener>,
    /// The run that it had replaced, where that is not wholly gone yet, and the ports that they share.
    pub(super) beside: Option<RunNumber>,
    pub(super) steered: BTreeMap<String, Steered>,
}

/// What is left to close when the old run of a swap is gone.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) steered: Vec<Steered>,
}

impl Closing {
    /// Relays what still comes, then closes the old sockets for good. Datagrams that nobody read are told.
    pub(super) async fn close(self, id: InstanceId, journal: Journal) {
        let ends = self.steered.into_iter().map(|steered| async move {
            if let Some(stragglers) = steered.stragglers {
                let late = stragglers.end(LINGER, RELAYED_FINISH).await;
                if late.relayed + late.failed > 0 {
                    tracing::info!(
                        place = %steered.old.place,
                        relayed = late.relayed,
                        failed = late.failed,
                        "connections came late to an old socket"
                    );
                }
            }
            let lost = steered.old.discard();
            let steering = lock(&steered.steering).take();
            if let Some(steering) = steering
                && let Err(error) = steering.end()
            {
                tracing::warn!(%error, place = %steered.old.place, "an old socket could not be closed");
            }
            lost
        });
        let lost: u32 = futures_util::future::join_all(ends).await.into_iter().sum();
        if lost > 0 {
            let message =
                format!("{lost} datagrams of {id} were not read by its old process before it ended");
            journal.record(Draft::warning("datagrams-lost", message).of(&id).with("lost", lost));
        }
    }
}
