//! Copies of requests to a release that answers nobody: sent beside the request, over connections of their own, and
//! given up rather than waited for. The two answers are compared.
//!
//! Two right answers may differ (a date, an id). So where bodies differ, the request is sent once more to the release
//! that answered: what its two answers do not agree on is noise, as Diffy does it (Twitter, 2015).

mod compare;

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
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Of each body this much is compared.
const COMPARED_MAX: usize = 256 * 1024;
/// A copy is given up after this, also where the route gives its instances more time.
const COPY_WITHIN: Duration = Duration::from_secs(30);

/// What the client was answered, as it goes by.
#[derive(Debug)]
pub(crate) struct LiveCopy {
    begun: Instant,
    head: Option<(StatusCode, Duration)>,
    body: Option<BytesMut>,
    compared: oneshot::Sender<Live>,
}

/// What the client was answered.
#[derive(Debug)]
struct Live {
    status: StatusCode,
    /// From when the copy was sent to the head.
    latency: Duration,
    /// Where bodies are compared.
    body: Option<Bytes>,
}

impl LiveCopy {
    /// The head of the answer.
    pub(crate) fn head(&mut self, status: StatusCode) {
        self.head = Some((status, self.begun.elapsed()));
    }

    /// A piece of the body.
    pub(crate) fn add(&mut self, piece: &Bytes) {
        if let Some(body) = &mut self.body {
            let room = COMPARED_MAX.saturating_sub(body.len());
            body.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// All of it went by.
    pub(crate) fn ended(self) {
        if let Some((status, latency)) = self.head {
            // Nobody waits for it where the gateway ends.
            let _ = self.compared.send(Live { status, latency, body: self.body.map(BytesMut::freeze) });
        }
    }
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
    begun: Instant,
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
    client: std::net::IpAddr,
    body: Bytes,
    protocol: HttpProtocol,
}

/// A request that is to be copied.
pub(crate) struct Wanted<'a> {
    /// The release that gets the copy.
    pub(crate) to: ReleaseNumber,
    pub(crate) route: &'a Arc<RouteState>,
    pub(crate) decision: &'a Decision,
    pub(crate) view: RequestView<'a>,
    /// As instances are sent it.
    pub(crate) parts: &'a Parts,
    /// Held whole; a body that is passed on cannot be copied.
    pub(crate) body: Option<Bytes>,
    /// Connections for copies.
    pub(crate) pool: &'a Rc<Pool>,
}

/// Sends a copy if one can be made; what cannot is counted, with why.
pub(crate) fn begin(wanted: Wanted<'_>) -> Option<LiveCopy> {
    let (to, route) = (wanted.to, wanted.route);
    // The mirror is gone by a newer table: nobody counts any more.
    let mirror = route.mirror()?;
    count(route, CopyEvent::Drawn);
    match copy(wanted, mirror) {
        Ok((copy, in_flight)) => {
            count(&copy.route, CopyEvent::Sent);
            let (compared, live) = oneshot::channel();
            let begun = copy.begun;
            let body = copy.compare_bodies.then(BytesMut::new);
            tokio::task::spawn_local(copy.carry(in_flight, live));
            Some(LiveCopy { begun, head: None, body, compared })
        }
        Err(why) => {
            count(route, why);
            route.unmirrored(to);
            None
        }
    }
}

/// A copy that may be sent, and its place at an instance; or why none may.
fn copy(wanted: Wanted<'_>, mirror: &Mirror) -> Result<(Copy, InFlight), CopyEvent> {
    let Wanted { to, route, decision, view, parts, body, pool } = wanted;
    // What an upgraded connection carries is in no single answer.
    let is_safe = (mirror.unsafe_methods || view.method.is_safe()) && !parts.headers.contains_key(UPGRADE);
    let protocol = match &route.spec().entry {
        Entry::Http { protocol, .. } if is_safe => *protocol,
        Entry::Http { .. } | Entry::Tcp { .. } => return Err(CopyEvent::NotSafe),
    };
    let body = body.filter(|it| it.len() as u64 <= mirror.body_bytes_max).ok_or(CopyEvent::NotSmall)?;
    let response = route.spec().timeouts.response.duration();
    let copy = Copy {
        route: Arc::clone(route),
        pool: Rc::clone(pool),
        decision: decision.clone(),
        to,
        request: Template {
            head: parts.clone(),
            host: view.host.map(str::to_owned),
            client: view.client,
            body,
            protocol,
        },
        compare_bodies: mirror.compare_bodies,
        begun: Instant::now(),
        within: if response.is_zero() { COPY_WITHIN } else { response.min(COPY_WITHIN) },
    };
    match copy.pick(&copy.decision, Purpose::Mirror) {
        Picked::Upstream(in_flight) => Ok((copy, in_flight)),
        Picked::Busy => Err(CopyEvent::NotFree),
        Picked::Nobody | Picked::Stale => Err(CopyEvent::NotThere),
    }
}

fn count(route: &RouteState, event: CopyEvent) {
    if let Some(trial) = route.trial() {
        trial.copy(event);
    }
}

impl Copy {
    fn pick(&self, decision: &Decision, purpose: Purpose) -> Picked {
        self.route.pick(decision, &self.request.view(), &[], purpose, Instant::now())
    }

    async fn carry(self, in_flight: InFlight, live: oneshot::Receiver<Live>) {
        let answer = self.send(in_flight).await;
        if answer.is_none() {
            count(&self.route, CopyEvent::Unanswered);
        }
        // Without a whole answer to the client there is nothing to compare with.
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
        let Some(live) = live.body.as_ref().filter(|body| self.compare_bodies && **body != answer.body)
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
        match compare::differ(live, &answer.body, again.as_deref()) {
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
        if let Ok(Some(body)) = tokio::time::timeout_at(deadline, read(response.into_body())).await {
            lease.give_back();
            return Some(Answer { status, latency, body });
        }
        in_flight.failed(Instant::now());
        None
    }
}

impl Template {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.head.method,
            host: self.host.as_deref(),
            path: self.head.uri.path(),
            query: self.head.uri.query(),
            headers: &self.head.headers,
            client: self.client,
            secure: false,
        }
    }

    fn body(&self) -> SentBody {
        SentBody::Whole(Some(self.body.clone()).filter(|it| !it.is_empty()))
    }
}

/// Reads a body to its end and keeps the part that is compared.
async fn read(mut body: Incoming) -> Option<Bytes> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.ok()?.data_ref() {
            let room = COMPARED_MAX.saturating_sub(kept.len());
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Some(kept.freeze())
}
