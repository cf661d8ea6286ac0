//! Copies of requests to a release that answers nobody: sent beside the request, over connections of their own, and
//! given up rather than waited for. The two answers are compared.
//!
//! Two right answers may differ (a date, an id). So where bodies differ, the request is sent once more to the release
//! that answered: what its two answers do not agree on is noise, as Diffy does it (Twitter, 2015).

mod compare;

use crate::body::SentBody;
use crate::choose::{Decision, Picked, RouteState};
use crate::pool::{Pool, Target, request};
use crate::request::RequestView;
use crate::upstream::{InFlight, Purpose};
use baton_model::id::ReleaseNumber;
use baton_model::route::{Entry, HttpProtocol};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Of each body this much is compared.
const COMPARED_MAX: usize = 256 * 1024;
/// A copy is given up after this, also where the route allows requests more.
const COPY_WITHIN: Duration = Duration::from_secs(30);

/// What the client was answered, as it goes by.
#[derive(Debug)]
pub(crate) struct LiveCopy {
    status: Option<StatusCode>,
    body: Option<BytesMut>,
    compared: oneshot::Sender<Live>,
}

/// What the client was answered.
#[derive(Debug)]
struct Live {
    status: StatusCode,
    /// Where bodies are compared.
    body: Option<Bytes>,
}

impl LiveCopy {
    /// The head of the answer.
    pub(crate) fn head(&mut self, status: StatusCode) {
        self.status = Some(status);
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
        if let Some(status) = self.status {
            // A copy that was given up compares nothing.
            let _ = self.compared.send(Live { status, body: self.body.map(BytesMut::freeze) });
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

/// Sends a copy if one can be made; what cannot is counted.
pub(crate) fn begin(wanted: Wanted<'_>) -> Option<LiveCopy> {
    let Wanted { to, route, decision, view, parts, body, pool } = wanted;
    let mirror = route.mirror()?;
    let Some(body) = body.filter(|it| it.len() as u64 <= mirror.body_bytes_max) else {
        route.unmirrored(to);
        return None;
    };
    let protocol = match &route.spec().entry {
        Entry::Http { protocol, .. } => *protocol,
        Entry::Tcp { .. } => return None,
    };
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
    };
    let Some(in_flight) = copy.pick(&copy.decision) else {
        copy.route.unmirrored(to);
        return None;
    };
    let (compared, live) = oneshot::channel();
    let body = copy.compare_bodies.then(BytesMut::new);
    tokio::task::spawn_local(async move {
        if tokio::time::timeout(COPY_WITHIN, copy.carry(in_flight, live)).await.is_err() {
            tracing::debug!("a copy was given up");
        }
    });
    Some(LiveCopy { status: None, body, compared })
}

impl Copy {
    fn pick(&self, decision: &Decision) -> Option<InFlight> {
        let view = self.request.view();
        match self.route.pick(decision, &view, &[], Purpose::Mirror, Instant::now()) {
            Picked::Upstream(in_flight) => Some(in_flight),
            Picked::Busy | Picked::Nobody | Picked::Stale => None,
        }
    }

    async fn carry(self, in_flight: InFlight, live: oneshot::Receiver<Live>) {
        let Some((status, body)) = self.send(in_flight).await else { return };
        // Without an answer to the client there is nothing to compare with.
        let Ok(live) = live.await else { return };
        if live.status != status || self.bodies_differ(live.body, body).await {
            self.route.differing(self.to);
        }
    }

    async fn bodies_differ(&self, live: Option<Bytes>, copy: Bytes) -> bool {
        let Some(live) = live.filter(|_| self.compare_bodies) else { return false };
        if live == copy {
            return false;
        }
        // Only a safe request may be sent to the live release once more.
        let again = match self.request.head.method.is_safe() {
            true => self.again().await,
            false => None,
        };
        compare::differ(&live, &copy, again.as_deref())
    }

    /// The live release's answer to the same request.
    async fn again(&self) -> Option<Bytes> {
        let decision = Decision { mirror: self.decision.release, ..self.decision.clone() };
        let in_flight = self.pick(&decision)?;
        self.send(in_flight).await.map(|(_, body)| body)
    }

    async fn send(&self, mut in_flight: InFlight) -> Option<(StatusCode, Bytes)> {
        let target = Target {
            upstream: Arc::clone(in_flight.upstream()),
            protocol: self.request.protocol,
            connect_timeout: self.route.spec().timeouts.connect.duration(),
            repeatable: false,
        };
        let request = request(&self.request.head, self.request.body(), self.request.protocol);
        let began = Instant::now();
        match self.pool.send(&target, request).await {
            Ok((response, lease)) => {
                let now = Instant::now();
                in_flight.answered(response.status(), now.saturating_duration_since(began), now);
                let status = response.status();
                match read(response.into_body()).await {
                    Some(body) => {
                        lease.give_back();
                        Some((status, body))
                    }
                    None => {
                        in_flight.failed(Instant::now());
                        None
                    }
                }
            }
            Err(_) => {
                in_flight.failed(Instant::now());
                None
            }
        }
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
