//! Copies of requests to a release that answers nobody: sent once the client is answered, by a thread and over connections of
//! their own, and given up rather than waited for. The two answers are compared.
//!
//! ```text
//! worker: request ─► answer ─► client; then what was asked and answered is posted ([`LiveCopy`], [`Outbox`])
//! copies' thread: ─► a place at an instance, or counted as not sent ─► send ─► compare ─► count
//! ```
//!
//! Two right answers may differ (a date, an id). So where bodies differ, the request is sent once more to the release
//! that answered: what its two answers do not agree on is noise, as Diffy does it (Twitter, 2015).

mod compare;
mod live;
mod thread;

pub(crate) use live::LiveCopy;
pub(crate) use thread::{Outbox, Way, start};

use crate::body::SentBody;
use crate::choose::{Arm, Decision, Picked, RouteState};
use crate::evidence::trial::CopyEvent;
use crate::pool::{Pool, Target, request};
use crate::request::RequestView;
use crate::upstream::{InFlight, Purpose};
use baton_model::id::ReleaseNumber;
use baton_model::route::{Entry, HttpProtocol, Mirror};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::UPGRADE;
use http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use live::COMPARED_MAX;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A copy is given up after this, also where the route gives its instances more time.
const COPY_WITHIN: Duration = Duration::from_secs(30);

/// What the client was answered.
#[derive(Debug)]
struct Live {
    status: StatusCode,
    /// From when the request was sent to the head.
    latency: Duration,
    /// Its pieces, where bodies are compared.
    body: Option<Vec<Bytes>>,
}

/// A copy on its way.
struct Copy {
    route: Arc<RouteState>,
    pool: Rc<Pool>,
    /// As it was decided, with the mirror's release.
    decision: Decision,
    to: ReleaseNumber,
    request: Template,
    compare_bodies: bool,
    /// It is given up after this.
    within: Duration,
}

/// The answer to a copy.
struct Answer {
    status: StatusCode,
    /// From when the copy was sent to the head.
    latency: Duration,
    body: Bytes,
}

/// What two answers have to do with each other.
enum Difference {
    None,
    /// Nothing but noise.
    Noise,
    /// This.
    Of(CopyEvent),
    /// Noise could not be told from difference, for want of a second answer: it is not compared.
    Unknown,
}

/// What is sent, as often as needed.
struct Template {
    head: Parts,
    host: Option<String>,
    client: IpAddr,
    body: Bytes,
    protocol: HttpProtocol,
}

/// A request that was drawn to be copied, whole and nobody else's.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The release that gets the copy.
    pub(crate) to: ReleaseNumber,
    pub(crate) route: Arc<RouteState>,
    pub(crate) decision: Decision,
    /// As instances are sent it.
    pub(crate) head: Parts,
    pub(crate) host: Option<String>,
    pub(crate) client: IpAddr,
    /// Held whole; a body that is passed on cannot be copied.
    pub(crate) body: Option<Bytes>,
}

impl Wanted {
    fn compares_bodies(&self) -> bool {
        self.route.mirror().is_some_and(|mirror| mirror.compare_bodies)
    }

    fn body_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.len() as u64)
    }
}

/// What goes from a worker to the thread that makes copies.
#[derive(Debug)]
pub(crate) struct Posted {
    wanted: Wanted,
    /// Comes when the client has its answer; `None` where it never will.
    live: Option<oneshot::Receiver<Live>>,
}

/// Posts a request that was drawn and is not answered: its client is gone, or got an answer of the gateway's own.
pub(crate) fn unanswered(wanted: Wanted, outbox: &Outbox) {
    outbox.post(Posted { wanted, live: None });
}

/// Counts a request that was drawn and is not copied, with why.
fn refuse(wanted: &Wanted, why: CopyEvent) {
    // The mirror is gone by a newer table: nobody counts any more.
    if wanted.route.mirror().is_some() {
        count(&wanted.route, CopyEvent::Drawn);
        count(&wanted.route, why);
        wanted.route.unmirrored(wanted.to);
    }
}

/// Sends a copy if one can be made; what cannot is counted, with why. On the thread that makes copies.
fn send(posted: Posted, pool: &Rc<Pool>) {
    let Posted { wanted, live } = posted;
    let route = Arc::clone(&wanted.route);
    // As in `refuse`.
    let Some(mirror) = route.mirror() else { return };
    match place(&wanted, mirror) {
        Ok((protocol, in_flight)) => {
            count(&route, CopyEvent::Drawn);
            count(&route, CopyEvent::Sent);
            let copy = Copy::new(wanted, mirror, protocol, Rc::clone(pool));
            tokio::task::spawn_local(copy.carry(in_flight, live));
        }
        Err(why) => refuse(&wanted, why),
    }
}

/// A place for a copy at an instance, and what is spoken there; or why there is none.
fn place(wanted: &Wanted, mirror: &Mirror) -> Result<(HttpProtocol, InFlight), CopyEvent> {
    let Wanted { route, decision, head, host, client, body, .. } = wanted;
    // What an upgraded connection carries is in no single answer.
    let is_safe = (mirror.unsafe_methods || head.method.is_safe()) && !head.headers.contains_key(UPGRADE);
    let protocol = match &route.spec().entry {
        Entry::Http { protocol, .. } if is_safe => *protocol,
        Entry::Http { .. } | Entry::Tcp { .. } => return Err(CopyEvent::NotSafe),
    };
    if body.as_ref().is_none_or(|it| it.len() as u64 > mirror.body_bytes_max) {
        return Err(CopyEvent::NotSmall);
    }
    match route.pick(decision, &view(head, host.as_deref(), *client), &[], Purpose::Mirror, Instant::now()) {
        Picked::Upstream(in_flight) => Ok((protocol, in_flight)),
        Picked::Busy => Err(CopyEvent::NotFree),
        Picked::Nobody | Picked::Stale => Err(CopyEvent::NotThere),
    }
}

/// A request, as far as choosing looks at it.
fn view<'a>(head: &'a Parts, host: Option<&'a str>, client: IpAddr) -> RequestView<'a> {
    RequestView {
        method: &head.method,
        host,
        path: head.uri.path(),
        query: head.uri.query(),
        headers: &head.headers,
        client,
        secure: false,
    }
}

fn count(route: &RouteState, event: CopyEvent) {
    if let Some(trial) = route.trial() {
        trial.copy(event);
    }
}

impl Copy {
    fn new(wanted: Wanted, mirror: &Mirror, protocol: HttpProtocol, pool: Rc<Pool>) -> Self {
        let Wanted { to, route, decision, head, host, client, body } = wanted;
        let response = route.spec().timeouts.response.duration();
        Self {
            route,
            pool,
            decision,
            to,
            request: Template { head, host, client, body: body.unwrap_or_default(), protocol },
            compare_bodies: mirror.compare_bodies,
            within: if response.is_zero() { COPY_WITHIN } else { response.min(COPY_WITHIN) },
        }
    }

    fn pick(&self, decision: &Decision, purpose: Purpose) -> Picked {
        let Template { head, host, client, .. } = &self.request;
        let view = view(head, host.as_deref(), *client);
        self.route.pick(decision, &view, &[], purpose, Instant::now())
    }

    async fn carry(self, in_flight: InFlight, live: Option<oneshot::Receiver<Live>>) {
        let answer = self.send(in_flight).await;
        if answer.is_none() {
            count(&self.route, CopyEvent::Unanswered);
        }
        // Without a whole answer to the client there is nothing to compare with.
        let Some(live) = live else { return };
        let Ok(live) = live.await else { return };
        let difference = self.difference(&live, answer.as_ref()).await;
        let event = match difference {
            Difference::Unknown => return,
            Difference::None => None,
            Difference::Noise => Some(CopyEvent::Noise),
            Difference::Of(event) => {
                self.route.differing(self.to);
                Some(event)
            }
        };
        if let Some(event) = event {
            count(&self.route, event);
        }
        self.record(&live, answer.as_ref());
        self.route.compared(self.to);
        count(&self.route, CopyEvent::Compared);
    }

    /// Where copies are compared, both answers count, each for its release.
    fn record(&self, live: &Live, answer: Option<&Answer>) {
        let Some(trial) = self.route.trial() else { return };
        trial.answered(Arm::Control, live.status, live.latency);
        match answer {
            Some(answer) => trial.answered(Arm::Treatment, answer.status, answer.latency),
            None => trial.unanswered(Arm::Treatment),
        }
    }

    async fn difference(&self, live: &Live, answer: Option<&Answer>) -> Difference {
        let Some(answer) = answer else { return Difference::Of(CopyEvent::DiffersUnanswered) };
        if live.status != answer.status {
            return Difference::Of(CopyEvent::DiffersStatus);
        }
        let Some(live) = live.body.as_ref().map(|pieces| pieces.concat()).filter(|it| *it != answer.body)
        else {
            return Difference::None;
        };
        // Only a safe request may be sent to the live release once more; of another one, any difference counts.
        let again = match self.request.head.method.is_safe() {
            true => match self.again().await {
                Some(again) => Some(again),
                None => return Difference::Unknown,
            },
            false => None,
        };
        match compare::differ(&live, &answer.body, again.as_deref()) {
            true => Difference::Of(CopyEvent::DiffersBody),
            false => Difference::Noise,
        }
    }

    /// The live release's answer to the same request.
    async fn again(&self) -> Option<Bytes> {
        let decision = Decision { mirror: self.decision.release, ..self.decision.clone() };
        match self.pick(&decision, Purpose::Again) {
            Picked::Upstream(in_flight) => self.send(in_flight).await.map(|answer| answer.body),
            Picked::Busy | Picked::Nobody | Picked::Stale => None,
        }
    }

    /// `None` when there was no whole answer in time.
    async fn send(&self, mut in_flight: InFlight) -> Option<Answer> {
        let target = Target {
            upstream: Arc::clone(in_flight.upstream()),
            protocol: self.request.protocol,
            connect_timeout: self.route.spec().timeouts.connect.duration(),
            by_task: true,
            repeatable: false,
        };
        let mut request = Some(request(&self.request.head, self.request.body(), self.request.protocol));
        let began = Instant::now();
        let deadline = tokio::time::Instant::from_std(began + self.within);
        let sent = tokio::time::timeout_at(deadline, self.pool.send(&target, &mut request)).await;
        let Ok(Ok((response, lease))) = sent else {
            in_flight.failed(Instant::now());
            return None;
        };
        let now = Instant::now();
        let (status, latency) = (response.status(), now.saturating_duration_since(began));
        in_flight.answered(status, latency, now);
        if let Ok(Some(body)) =
            tokio::time::timeout_at(deadline, read(response.into_body(), self.compare_bodies)).await
        {
            lease.give_back();
            return Some(Answer { status, latency, body });
        }
        in_flight.failed(Instant::now());
        None
    }
}

impl Template {
    fn body(&self) -> SentBody {
        SentBody::Whole(Some(self.body.clone()).filter(|it| !it.is_empty()))
    }
}

/// Reads a body to its end and keeps the part that is compared, if it is.
async fn read(mut body: Incoming, compared: bool) -> Option<Bytes> {
    let most = if compared { COMPARED_MAX } else { 0 };
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            let room = most.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Some(kept.freeze())
}
