//! Finding an instance, and waiting for one: bounded in number and time, in the order in which requests came.

use super::exchange::Exchange;
use super::respond::Problem;
use crate::choose::Picked;
use crate::evidence::counters::ServiceEvent;
use crate::upstream::{InFlight, Purpose};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

impl Exchange {
    /// An instance for the next try. While the route is held, or all are busy, or there is none, it waits.
    ///
    /// # Errors
    /// The queue is full, or the wait was too long.
    pub(super) async fn obtain(&mut self, purpose: Purpose) -> Result<InFlight, Problem> {
        match self.look(purpose)? {
            Looked::Found(in_flight) => Ok(in_flight),
            Looked::Wait(_) => self.wait(purpose).await,
        }
    }

    fn look(&mut self, purpose: Purpose) -> Result<Looked, Problem> {
        // As often as tables come in while we look; each is newer than the one before.
        loop {
            if purpose == Purpose::First && self.route.is_held() {
                self.refresh()?;
                if self.route.is_held() {
                    return Ok(Looked::Wait(Problem::Waited));
                }
            }
            match self.route.pick(&self.decision, &self.view(), &self.tried, purpose, Instant::now()) {
                Picked::Upstream(in_flight) => return Ok(Looked::Found(in_flight)),
                Picked::Busy => return Ok(Looked::Wait(Problem::Waited)),
                Picked::Nobody => return Ok(Looked::Wait(Problem::NoInstance)),
                Picked::Stale => self.refresh()?,
            }
        }
    }

    /// Takes the route from the newest table, and decides anew by it.
    fn refresh(&mut self) -> Result<(), Problem> {
        let found = self.worker.find(self.host(), self.parts.uri.path()).ok_or(Problem::NoRoute)?;
        if !Arc::ptr_eq(&found, &self.route) {
            self.decision = found.decide_again(&self.view(), &self.decision);
            self.route = found;
        }
        Ok(())
    }

    async fn wait(&mut self, purpose: Purpose) -> Result<InFlight, Problem> {
        let limits = self.route.spec().limits;
        let deadline = tokio::time::Instant::now() + limits.queue_timeout.duration();
        let service = Arc::clone(self.route.service());
        let place = service.queue(limits.queue_max).ok_or(Problem::Overload)?;
        service.counters.count(ServiceEvent::Queued);
        loop {
            let mut woken = pin!(place.woken());
            // Before the look, so that what changes in between is not missed.
            woken.as_mut().enable();
            let why = match self.look(purpose)? {
                Looked::Found(in_flight) => return Ok(in_flight),
                Looked::Wait(why) => why,
            };
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Err(why);
            }
        }
    }
}

enum Looked {
    Found(InFlight),
    Wait(Problem),
}
