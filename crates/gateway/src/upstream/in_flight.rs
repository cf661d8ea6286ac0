//! A request in flight to an upstream: counted while it lives, and what came of it is told to load, ejection and
//! evidence.

use super::UpstreamState;
use crate::clock::tick;
use crate::evidence::counters::ReleaseEvent;
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Why a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a client, for the first time.
    First,
    /// For a client, since an earlier try failed.
    Retry,
    /// For a client, beside a try that is slow: never to the same upstream.
    Hedge,
    /// A copy for nobody: only ever to the mirror's own release.
    Mirror,
    /// A copy to the release that answered, to tell noise from difference. It is nobody's request and no evidence.
    Again,
}

/// What is known of the try so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    Answered,
    /// How it ended is counted.
    Told,
}

/// A request or connection in flight to an upstream: counted for as long as this lives.
///
/// Keep it until the last byte of the answer is passed on: an upstream with something in flight is not stopped.
#[derive(Debug)]
pub struct InFlight {
    upstream: Arc<UpstreamState>,
    purpose: Purpose,
    began: Instant,
    stage: Stage,
}

impl InFlight {
    /// Its place was taken by `enter` and, for a copy, among the copies.
    pub(crate) fn new(upstream: Arc<UpstreamState>, purpose: Purpose, began: Instant) -> Self {
        match purpose {
            Purpose::First | Purpose::Again => {}
            Purpose::Retry => upstream.counters.count(ReleaseEvent::Retry),
            Purpose::Hedge => upstream.counters.count(ReleaseEvent::Hedge),
            Purpose::Mirror => upstream.counters.count(ReleaseEvent::Mirrored),
        }
        Self { upstream, purpose, began, stage: Stage::Asked }
    }

    fn count(&self, event: ReleaseEvent) {
        if self.purpose != Purpose::Again {
            self.upstream.counters.count(event);
        }
    }

    /// Where it goes.
    #[must_use]
    pub const fn upstream(&self) -> &Arc<UpstreamState> {
        &self.upstream
    }

    /// Why it was sent.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The head of an answer came, `latency` after the request was out. 502 to 504 count as failures of the instance;
    /// another 5xx is the release's, and no reason to leave the instance out.
    pub fn answered(&mut self, status: StatusCode, latency: Duration, now: Instant) {
        let now = tick(now);
        self.stage = Stage::Answered;
        if self.purpose != Purpose::Again {
            self.upstream.counters.answered(ReleaseEvent::of(status), latency);
        }
        if status.is_server_error() {
            self.upstream.load.at_least(latency, now);
        } else {
            self.upstream.load.sample(latency, now);
        }
        if matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            self.upstream.failed("it answers 502, 503 or 504", now);
        } else {
            self.upstream.succeeded();
        }
        self.upstream.count_span(latency);
    }

    /// The connection of a TCP route is open, `latency` after it was asked for.
    pub fn opened(&mut self, latency: Duration, now: Instant) {
        self.answered(StatusCode::SWITCHING_PROTOCOLS, latency, now);
    }

    /// There is no answer (no connection, no head in time, a reset, or no HTTP), or it broke off after its head.
    pub fn failed(mut self, now: Instant) {
        let event = match self.stage {
            Stage::Asked => ReleaseEvent::Failure,
            Stage::Answered | Stage::Told => ReleaseEvent::Broken,
        };
        self.stage = Stage::Told;
        self.count(event);
        self.upstream.load.at_least(now.saturating_duration_since(self.began), tick(now));
        self.upstream.failed("it gives no answers", tick(now));
    }

    /// It never reached the instance, by no fault of its own: a connection that had been idle was closed by it at the same
    /// moment. Nothing is counted; the request is sent again.
    pub fn unsent(mut self) {
        self.stage = Stage::Told;
    }

    /// Another try was faster: the client has its answer. One that is outrun time and again is left out like one that
    /// fails: a process that is stopped (SIGSTOP) still takes connections, and never answers.
    pub fn outrun(mut self, now: Instant) {
        self.stage = Stage::Told;
        self.upstream.counters.count(ReleaseEvent::Cancelled);
        self.upstream.load.at_least(now.saturating_duration_since(self.began), tick(now));
        self.upstream.failed("others answer faster, time and again", tick(now));
    }
}

impl Drop for InFlight {
    /// Without an answer and without a failure, the client went away: that says nothing against the instance but how
    /// long it had not answered.
    fn drop(&mut self) {
        if self.stage == Stage::Asked {
            self.count(ReleaseEvent::Cancelled);
            let now = Instant::now();
            self.upstream.load.at_least(now.saturating_duration_since(self.began), tick(now));
        }
        if matches!(self.purpose, Purpose::Mirror | Purpose::Again) {
            self.upstream.service.copies.fetch_sub(1, SeqCst);
        }
        self.upstream.flight.exit();
        self.upstream.service.one_left();
    }
}
