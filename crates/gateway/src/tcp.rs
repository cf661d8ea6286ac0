//! Plain TCP: a connection of a client to one of an instance, byte by byte.

use crate::choose::{Decision, Picked, RouteState};
use crate::evidence::counters::ServiceEvent;
use crate::pool::connect;
use crate::request::RequestView;
use crate::serve::copy_both;
use crate::upstream::{InFlight, Purpose, Serial};
use crate::worker::Worker;
use http::StatusCode;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// Carries a connection until either side ends it, or it is silent for too long. Where no instance can be reached, it
/// is closed.
pub(crate) async fn carry(
    worker: &Worker,
    client: TcpStream,
    from: SocketAddr,
    port: u16,
    permit: OwnedSemaphorePermit,
) {
    let route = worker.shared.served.load().tcp().get(&port).cloned();
    let Some(route) = route else { return };
    let view = RequestView::connection(from.ip());
    let decision = route.decide(&view, Instant::now());
    let mut connecting = Connecting { worker, route, decision, view, port, tried: Vec::new(), attempts: 0 };
    let part = connecting.route.part(&connecting.decision);
    let begun = Instant::now();
    match connecting.open().await {
        Some((in_flight, instance)) => {
            if let Some(part) = &part {
                part.answered(StatusCode::SWITCHING_PROTOCOLS, begun.elapsed());
            }
            let idle = connecting.route.spec().timeouts.idle.duration();
            if let Err(error) = copy_both(client, instance, idle).await {
                tracing::debug!(client = %from, %error, "a connection ended");
            }
            drop(in_flight);
        }
        None => {
            if let Some(part) = &part {
                part.unanswered();
            }
            connecting.route.service().counters.count(ServiceEvent::Unanswered);
        }
    }
    drop(permit);
}

struct Connecting<'a> {
    worker: &'a Worker,
    route: Arc<RouteState>,
    decision: Decision,
    view: RequestView<'a>,
    port: u16,
    tried: Vec<Serial>,
    attempts: u32,
}

impl Connecting<'_> {
    /// A connection to an instance. Nothing was sent before it is open, so that each may be tried.
    async fn open(&mut self) -> Option<(InFlight, TcpStream)> {
        let mut purpose = Purpose::First;
        loop {
            let mut in_flight = self.obtain(purpose).await?;
            self.attempts += 1;
            self.tried.push(in_flight.upstream().serial());
            let began = Instant::now();
            let timeout = self.route.spec().timeouts.connect.duration();
            match connect(in_flight.upstream().address(), timeout).await {
                Ok(stream) => {
                    let now = Instant::now();
                    in_flight.opened(now.saturating_duration_since(began), now);
                    return Some((in_flight, stream));
                }
                Err(error) => {
                    tracing::debug!(upstream = %in_flight.upstream().id(), %error, "no connection");
                    in_flight.failed(Instant::now());
                }
            }
            if self.attempts > self.route.spec().retries.attempts || !self.route.may_retry(Instant::now()) {
                return None;
            }
            purpose = Purpose::Retry;
        }
    }

    async fn obtain(&mut self, purpose: Purpose) -> Option<InFlight> {
        if let Some(in_flight) = self.look(purpose)? {
            return Some(in_flight);
        }
        let limits = self.route.spec().limits;
        let deadline = tokio::time::Instant::now() + limits.queue_timeout.duration();
        let service = Arc::clone(self.route.service());
        let place = service.queue(limits.queue_max)?;
        service.counters.count(ServiceEvent::Queued);
        loop {
            let mut woken = pin!(place.woken());
            woken.as_mut().enable();
            if let Some(in_flight) = self.look(purpose)? {
                return Some(in_flight);
            }
            tokio::time::timeout_at(deadline, woken).await.ok()?;
        }
    }

    /// `None` when the route is gone, `Some(None)` when it is worth waiting.
    #[allow(clippy::option_option, reason = "the two are told apart in one place, above")]
    fn look(&mut self, purpose: Purpose) -> Option<Option<InFlight>> {
        // As often as tables come in while we look.
        loop {
            if self.route.is_held() {
                self.refresh()?;
                if self.route.is_held() {
                    return Some(None);
                }
            }
            match self.route.pick(&self.decision, &self.view, &self.tried, purpose, Instant::now()) {
                Picked::Upstream(in_flight) => return Some(Some(in_flight)),
                Picked::Busy | Picked::Nobody => return Some(None),
                Picked::Stale => self.refresh()?,
            }
        }
    }

    fn refresh(&mut self) -> Option<()> {
        let found = self.worker.shared.served.load().tcp().get(&self.port).cloned()?;
        if !Arc::ptr_eq(&found, &self.route) {
            self.decision = found.decide_again(&self.view, &self.decision);
            self.route = found;
        }
        Some(())
    }
}
