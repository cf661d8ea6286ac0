//! One request and its answer: sent to an instance, sent again where that is safe, sent to a second one where the first
//! is slow. The first answer counts.
//!
//! ```text
//! take an instance ─► send ─┬─ answer ─────────────────────────────► done
//!        ▲                  ├─ overdue, may be sent twice ─► send to another one too (hedge)
//!        │                  ├─ failed, others are under way ─► wait for them
//!        └── may be resent ─┴─ failed
//! ```
//!
//! It may be resent where nothing of it was sent, or the method is idempotent (RFC 9110, 9.2.2) and the body is held whole;
//! sent to two at a time, where the method is safe (9.2.1).

use super::headers;
use super::hedge::{leave, look_at};
use super::respond::Problem;
use crate::alarm::Alarm;
use crate::body::{Progress, SentBody};
use crate::choose::{Decision, Picked, RouteState};
use crate::mirror;
use crate::pool::{Cause, Lease, SendError, Target, request};
use crate::request::RequestView;
use crate::upstream::{InFlight, Purpose, Serial};
use crate::worker::Worker;
use baton_model::route::{Entry, HttpProtocol};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header::UPGRADE, request::Parts};
use hyper::body::Incoming;
use std::cell::Cell;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Tries at a time: the first and its hedges. More would be load without hope.
const RUNNING_MAX: usize = 3;
/// What a body that stopped has more than its longest silence before the instance is blamed for it.
const SILENCE_FIRST: Duration = Duration::from_secs(1);
/// Connections that turn out to be closed and do not count as tries.
const STALE_MAX: u32 = 2;

/// The body of the request, as far as it can be sent again.
#[derive(Debug)]
pub(crate) enum Replay {
    /// Held whole.
    Held(Bytes),
    /// Passed on; `None` while a try has it, or once it was used up.
    Once(Option<SentBody>),
}

/// A request on its way to its answer.
pub(crate) struct Exchange {
    pub(crate) worker: Rc<Worker>,
    pub(crate) route: Arc<RouteState>,
    pub(crate) decision: Decision,
    pub(crate) parts: Parts,
    pub(crate) client: IpAddr,
    pub(crate) encrypted: bool,
    pub(crate) body: Replay,
    /// How far a body that is passed on has come.
    pub(crate) progress: Option<Rc<Cell<Progress>>>,
    pub(crate) tried: Vec<Serial>,
    /// Tries so far, without those on connections that turned out to be closed.
    pub(crate) attempts: u32,
    /// Connections that turned out to be closed when the request was sent.
    pub(crate) stale: u32,
    /// When a hedge was refused last; it is asked for again.
    pub(crate) refused_at: Option<Instant>,
}

/// An answer's head, and what its body comes with.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) in_flight: InFlight,
    pub(crate) lease: Lease,
}

type Sent = Result<(Response<Incoming>, Lease), Unanswered>;

/// What became of a try without an answer.
#[derive(Debug)]
struct Unanswered {
    error: SendError,
    /// The request, where nothing of it was sent.
    unsent: Option<Request<SentBody>>,
}

/// A try that is under way.
pub(super) struct Runner {
    pub(super) in_flight: InFlight,
    began: Instant,
    sent: Pin<Box<dyn Future<Output = Sent>>>,
}

/// What a wait for several tries ends with.
enum Event {
    Ended(usize, Sent),
    Due,
}

/// A try that gave no answer.
struct Failed {
    problem: Problem,
    /// It may be made again.
    again: bool,
    /// It reached nobody, and so took nothing from the budget.
    free: bool,
}

impl Exchange {
    /// The name of the host that it asks for.
    pub(super) fn host(&self) -> Option<&str> {
        headers::host(&self.parts)
    }

    /// What choosing needs to know of the request.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.parts.method,
            host: self.host(),
            path: self.parts.uri.path(),
            query: self.parts.uri.query(),
            headers: &self.parts.headers,
            client: self.client,
            secure: self.encrypted,
        }
    }

    /// Sends the request until there is an answer, or no try is left.
    ///
    /// # Errors
    /// What the client is told instead.
    pub(crate) async fn run(&mut self) -> Result<Answered, Problem> {
        let first = self.obtain(Purpose::First).await?;
        let mut runners = vec![self.launch(first)];
        let mut alarm = self.worker.alarms.take(self.due(&runners).into());
        loop {
            let due = self.due(&runners).into();
            let failed = match wait(&mut runners, &mut alarm, due).await {
                Event::Ended(at, Ok((response, lease))) => {
                    self.worker.alarms.give_back(alarm);
                    return Ok(self.won(runners, at, response, lease));
                }
                Event::Ended(at, Err(error)) => {
                    let runner = runners.swap_remove(at);
                    self.failed(runner, error)
                }
                Event::Due => match self.overdue(&mut runners) {
                    Some(failed) => failed,
                    None => {
                        self.hedge(&mut runners);
                        continue;
                    }
                },
            };
            if runners.is_empty() {
                let may =
                    failed.again && self.has_tries() && (failed.free || self.route.may_retry(Instant::now()));
                if !may {
                    return Err(failed.problem);
                }
                let next = self.obtain(Purpose::Retry).await?;
                runners.push(self.launch(next));
            }
        }
    }

    fn has_tries(&self) -> bool {
        self.attempts <= self.route.spec().retries.attempts
    }

    /// Whether the request may be sent twice, whatever became of the first time.
    fn is_repeatable(&self) -> bool {
        self.parts.method.is_idempotent() && matches!(self.body, Replay::Held(_))
    }

    fn launch(&mut self, in_flight: InFlight) -> Runner {
        self.attempts += 1;
        self.tried.push(in_flight.upstream().serial());
        let protocol = match &self.route.spec().entry {
            Entry::Http { protocol, .. } => *protocol,
            Entry::Tcp { .. } => HttpProtocol::Http1,
        };
        let target = Target {
            upstream: Arc::clone(in_flight.upstream()),
            protocol,
            connect_timeout: self.route.spec().timeouts.connect.duration(),
            by_task: matches!(self.body, Replay::Once(_)) || self.parts.headers.contains_key(UPGRADE),
            repeatable: self.is_repeatable(),
        };
        let mut request = Some(self.request(protocol));
        let pool = Rc::clone(&self.worker.pool);
        let sent = Box::pin(async move {
            let mut asked_again = false;
            loop {
                match pool.send(&target, &mut request).await {
                    Ok(answered) => return Ok(answered),
                    // A connection that had been used before ended: that is no sign of the instance, so ask it once more.
                    Err(error) if error.reused && request.is_some() && !asked_again => asked_again = true,
                    Err(error) => return Err(Unanswered { error, unsent: request }),
                }
            }
        });
        Runner { in_flight, began: Instant::now(), sent }
    }

    /// The request as an instance is sent it.
    fn request(&mut self, protocol: HttpProtocol) -> Request<SentBody> {
        let body = match &mut self.body {
            Replay::Held(bytes) => SentBody::Whole(Some(bytes.clone()).filter(|it| !it.is_empty())),
            Replay::Once(body) => body.take().unwrap_or(SentBody::Whole(None)),
        };
        let mut request = request(&self.parts, body, protocol);
        if protocol == HttpProtocol::Http1 {
            // The one that came has room for more fields. hyper uses it again for those of the answer, for which the
            // copy would have to grow.
            std::mem::swap(request.headers_mut(), &mut self.parts.headers);
        }
        request
    }

    /// The request as the mirror is to have it, where it was drawn to be copied and this was not asked before. It is handed
    /// over, not copied: nothing can be sent any more.
    fn drawn(&mut self) -> Option<mirror::Wanted> {
        let to = self.decision.mirror.take()?;
        let host = self.host().map(str::to_owned);
        let mut spent = Request::new(()).into_parts().0;
        spent.version = self.parts.version;
        Some(mirror::Wanted {
            to,
            route: Arc::clone(&self.route),
            decision: Decision { mirror: Some(to), ..self.decision.clone() },
            head: std::mem::replace(&mut self.parts, spent),
            host,
            client: self.client,
            body: match &self.body {
                Replay::Held(bytes) => Some(bytes.clone()),
                Replay::Once(_) => None,
            },
        })
    }

    /// The client has its answer's head, to what was begun at `begun`: what is wanted of it for the mirror.
    pub(super) fn copied(&mut self, begun: Instant, status: StatusCode) -> Option<mirror::LiveCopy> {
        let wanted = self.drawn()?;
        Some(mirror::LiveCopy::answered(wanted, begun, status, &self.worker.copies))
    }

    /// An answer is there: the other tries are given up, and those that were asked before it have been outrun.
    fn won(
        &self,
        mut runners: Vec<Runner>,
        at: usize,
        response: Response<Incoming>,
        lease: Lease,
    ) -> Answered {
        let now = Instant::now();
        let Runner { mut in_flight, began, .. } = runners.swap_remove(at);
        for other in runners {
            if other.began < began {
                other.in_flight.outrun(now);
            }
        }
        in_flight.answered(response.status(), now.saturating_duration_since(began), now);
        Answered { response, in_flight, lease }
    }

    fn failed(&mut self, runner: Runner, unanswered: Unanswered) -> Failed {
        let Unanswered { error, unsent: request } = unanswered;
        let now = Instant::now();
        if let Some(problem) = self.client_trouble() {
            return Failed { problem, again: false, free: false };
        }
        let unsent = request.is_some();
        if let (Replay::Once(body), Some(request)) = (&mut self.body, request) {
            *body = Some(request.into_body());
        }
        let stale = error.reused && error.cause == Cause::Closed && self.stale < STALE_MAX;
        if stale {
            // An instance closes what is idle: that says nothing against it.
            self.stale += 1;
            self.attempts -= 1;
            runner.in_flight.unsent();
        } else {
            runner.in_flight.failed(now);
        }
        Failed { problem: Problem::Upstream, again: unsent || self.is_repeatable(), free: stale }
    }

    /// What the client itself did wrong while its body was passed on.
    fn client_trouble(&self) -> Option<Problem> {
        match self.progress.as_ref()?.get() {
            Progress::TooLarge => Some(Problem::BodyTooLarge),
            Progress::Slow => Some(Problem::SlowBody),
            Progress::Broken => Some(Problem::Malformed("the body ended early")),
            Progress::Open { .. } | Progress::Done(_) => None,
        }
    }

    /// Takes out a try whose time is over.
    fn overdue(&mut self, runners: &mut Vec<Runner>) -> Option<Failed> {
        let now = Instant::now();
        let at = runners.iter().position(|it| self.deadline(it).is_some_and(|deadline| deadline <= now))?;
        let runner = runners.swap_remove(at);
        if let Some(problem) = self.client_trouble() {
            return Some(Failed { problem, again: false, free: false });
        }
        runner.in_flight.failed(now);
        Some(Failed { problem: Problem::Timeout, again: self.is_repeatable(), free: false })
    }

    /// When a try's answer must be there: counted from the request's end.
    fn deadline(&self, runner: &Runner) -> Option<Instant> {
        let timeouts = &self.route.spec().timeouts;
        let response = timeouts.response.duration();
        if response.is_zero() {
            return None;
        }
        Some(match self.progress.as_ref().map(|it| it.get()) {
            // While the body comes, its own silence is what counts, and is to be seen first; here it is only for an
            // instance that reads no more.
            Some(Progress::Open { since }) => {
                since.into_std() + response.max(timeouts.idle.duration() + SILENCE_FIRST)
            }
            Some(Progress::Done(at)) => at.into_std().max(runner.began) + response,
            Some(Progress::TooLarge | Progress::Slow | Progress::Broken) | None => runner.began + response,
        })
    }

    /// Sends the request to another instance too, if it may be.
    fn hedge(&mut self, runners: &mut Vec<Runner>) {
        leave(runners);
        let now = Instant::now();
        if !self.may_hedge(runners) || self.hedge_at(runners).is_none_or(|at| at > now) {
            return;
        }
        // What nobody is there for takes nothing from the budget.
        if !self.route.has_another(&self.decision, &self.tried) || !self.route.may_retry(now) {
            self.refused_at = Some(now);
            return;
        }
        match self.route.pick(&self.decision, &self.view(), &self.tried, Purpose::Hedge, now) {
            Picked::Upstream(in_flight) => {
                let runner = self.launch(in_flight);
                runners.push(runner);
            }
            Picked::Busy | Picked::Nobody | Picked::Stale => {
                self.route.give_retry_back(now);
                self.refused_at = Some(now);
            }
        }
    }

    /// Only what is safe (RFC 9110, 9.2.1) is with two instances at a time: of two that change the same, the one that nobody
    /// waits for could be the last.
    fn may_hedge(&self, runners: &[Runner]) -> bool {
        let after = self.route.spec().retries.hedge_after;
        let safe = self.parts.method.is_safe() && self.is_repeatable();
        after.0 > 0 && safe && self.has_tries() && runners.len() < RUNNING_MAX
    }

    fn hedge_at(&self, runners: &[Runner]) -> Option<Instant> {
        let latest = runners.iter().map(|it| it.began).chain(self.refused_at).max()?;
        Some(latest + self.route.spec().retries.hedge_after.duration())
    }

    /// When to look again: at the next hedge, the first deadline, or soon where an instance of several may leave.
    fn due(&self, runners: &[Runner]) -> Instant {
        let hedge = if self.may_hedge(runners) { self.hedge_at(runners) } else { None };
        let deadline = runners.iter().filter_map(|it| self.deadline(it)).min();
        look_at(hedge.into_iter().chain(deadline).min(), runners.len())
    }
}

impl Drop for Exchange {
    /// Without an answer, a request that was drawn is copied all the same.
    fn drop(&mut self) {
        if let Some(wanted) = self.drawn() {
            mirror::unanswered(wanted, &self.worker.copies);
        }
    }
}

async fn wait(runners: &mut [Runner], alarm: &mut Alarm, due: tokio::time::Instant) -> Event {
    std::future::poll_fn(move |context| {
        for (at, runner) in runners.iter_mut().enumerate() {
            if let Poll::Ready(sent) = runner.sent.as_mut().poll(context) {
                return Poll::Ready(Event::Ended(at, sent));
            }
        }
        alarm.poll(due, context).map(|()| Event::Due)
    })
    .await
}
