//! A request from its head to its answer: vetted, routed, decided, sent, answered.

use super::body::{AnswerBody, Companions};
use super::client::Client;
use super::exchange::{Answered, Exchange, Replay};
use super::forwarded::Origin;
use super::headers::{self, Wish, X_REQUEST_ID};
use super::respond::{self, Problem};
use super::upgrade;
use crate::access::Record;
use crate::body::{ClientBody, HELD_MAX, Progress, SentBody, declared, hold};
use crate::choose::{Part, RouteState};
use crate::evidence::counters::ServiceEvent;
use crate::mirror;
use crate::request::RequestView;
use baton_model::route::{Entry, HttpProtocol};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, SET_COOKIE, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A body that is copied to a mirror is held whole up to this, whatever the mirror allows.
const COPIED_MAX: u64 = 1024 * 1024;

/// Answers a request, by an instance or, where none can, by itself.
pub(crate) async fn carry(client: Rc<Client>, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = ClientBody::new(body, &parts);
    let http2 = parts.version == Version::HTTP_2;
    let grpc = is_grpc(parts.version, &parts.headers);
    let origin = client.asks(&parts.headers);
    let mut asked = Asked { record: None, id: None, origin, begun: Instant::now() };
    if let Some(log) = &client.worker.shared.access {
        let host = headers::host(&parts);
        asked.record = Some(log.begin(origin.address, &parts.method, host, parts.uri.path(), asked.begun));
    }
    let mut response = match exchange(&client, parts, body, upgrade, &mut asked).await {
        Ok(response) => response,
        Err(problem) => {
            if let Some(mut record) = asked.record.take() {
                record.headed(problem.status());
                record.broke(0, &problem.to_string());
            }
            let mut response = if grpc { respond::grpc_answer(problem) } else { respond::answer(problem) };
            if let Some(id) = asked.id {
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            response
        }
    };
    if http2 {
        response.headers_mut().remove(CONNECTION);
    } else if client.worker.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What is known of a request whatever becomes of it.
struct Asked {
    record: Option<Record>,
    id: Option<HeaderValue>,
    origin: Origin,
    begun: Instant,
}

async fn exchange(
    client: &Rc<Client>,
    mut parts: Parts,
    body: ClientBody,
    upgrade: Option<OnUpgrade>,
    asked: &mut Asked,
) -> Result<Response<AnswerBody>, Problem> {
    let wish = headers::vet(&parts)?;
    if parts.headers.len() > client.worker.shared.config.limits.headers {
        return Err(Problem::TooManyFields);
    }
    let host = headers::host(&parts);
    let route = client.worker.find(host, parts.uri.path()).ok_or(Problem::NoRoute)?;
    let view = RequestView {
        method: &parts.method,
        host,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        client: asked.origin.address,
        secure: asked.origin.encrypted,
    };
    let decision = route.decide(&view, asked.begun);
    let part = route.part(&decision);
    let id = headers::to_instance(&mut parts, &client.forwarded, wish, || client.worker.fresh_id());
    if let Some(record) = &mut asked.record {
        record.named(&id, route.name().as_str());
    }
    asked.id = Some(id.clone());
    let mirror = decision.mirror.and(route.mirror()).filter(|it| it.unsafe_methods || parts.method.is_safe());
    let most = mirror.map_or(0, |it| it.body_bytes_max.min(COPIED_MAX));
    let (body, progress) =
        replay(body, &parts, &route, most).await.inspect_err(|problem| count(&route, *problem, None))?;
    if parts.version == Version::HTTP_2 && speaks(&route) == HttpProtocol::Http1 {
        join_cookies(&mut parts.headers);
    }
    let mut exchange = Exchange {
        worker: Rc::clone(&client.worker),
        route,
        decision,
        parts,
        client: asked.origin.address,
        encrypted: asked.origin.encrypted,
        body,
        progress,
        tried: Vec::new(),
        attempts: 0,
        stale: 0,
        refused_at: None,
    };
    let begun = Instant::now();
    let answered = exchange.run().await;
    if let Some(record) = &mut asked.record {
        record.tried(exchange.attempts, exchange.decision.release.map(|release| release.0));
    }
    let answered = answered.inspect_err(|problem| count(&exchange.route, *problem, part.as_ref()))?;
    if let Some(part) = &part {
        part.answered(answered.response.status(), asked.begun.elapsed());
    }
    let copy = exchange.copied(begun, answered.response.status());
    let mut given = Given { client, exchange: &exchange, id: &id, wish, upgrade };
    given.answer(answered, copy, asked)
}

/// An exchange whose answer's head is there.
struct Given<'a> {
    client: &'a Rc<Client>,
    exchange: &'a Exchange,
    id: &'a HeaderValue,
    wish: Wish,
    upgrade: Option<OnUpgrade>,
}

impl Given<'_> {
    fn answer(
        &mut self,
        answered: Answered,
        copy: Option<mirror::LiveCopy>,
        asked: &mut Asked,
    ) -> Result<Response<AnswerBody>, Problem> {
        let Answered { mut response, in_flight, lease } = answered;
        let route = &self.exchange.route;
        if headers::is_coded(response.headers()) {
            in_flight.failed(Instant::now());
            count(route, Problem::Upstream, None);
            return Err(Problem::Upstream);
        }
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let theirs = switched.then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        head.version = Version::HTTP_11;
        headers::to_client(&mut head.headers, self.id, self.exchange.parts.version == Version::HTTP_2);
        if let Some(cookie) = &self.exchange.decision.set_cookie {
            head.headers.append(SET_COOKIE, cookie.clone());
        }
        if let Some(record) = &mut asked.record {
            record.headed(head.status);
            record.answered(in_flight.upstream().id().to_string(), in_flight.upstream().release().0);
        }
        let idle = route.spec().timeouts.idle.duration();
        match (theirs, self.upgrade.take()) {
            (None, _) => {
                self.client.watch(in_flight.upstream());
                let companions = Companions {
                    in_flight,
                    lease,
                    request: self.exchange.progress.clone(),
                    idle,
                    copy,
                    record: asked.record.take(),
                };
                Ok(Response::from_parts(
                    head,
                    AnswerBody::from_instance(body, Rc::clone(self.client), companions),
                ))
            }
            (Some(theirs), Some(ours)) if self.wish == Wish::WebSocket => {
                head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                let tunnel =
                    upgrade::Tunnel { ours, theirs, in_flight, lease, idle, record: asked.record.take() };
                tokio::task::spawn_local(tunnel.carry(Rc::clone(self.client)));
                Ok(Response::from_parts(head, AnswerBody::whole(Bytes::new())))
            }
            // An instance that switches although nobody asked for it cannot be understood.
            (Some(_), Some(_) | None) => {
                count(route, Problem::Upstream, None);
                Err(Problem::Upstream)
            }
        }
    }
}

/// The body, held whole where it is small and says so, or else passed on.
async fn replay(
    body: ClientBody,
    parts: &Parts,
    route: &Arc<RouteState>,
    held_at_least: u64,
) -> Result<(Replay, Option<Rc<Cell<Progress>>>), Problem> {
    if body.is_end_stream() {
        return Ok((Replay::Held(Bytes::new()), None));
    }
    let spec = route.spec();
    let idle = spec.timeouts.idle.duration();
    let declared = declared(&parts.headers);
    // A stream of gRPC has no size that could be too large: its messages have, and those are the instance's to judge.
    let streams = is_grpc(parts.version, &parts.headers) && speaks(route) == HttpProtocol::Http2;
    let most = if streams { u64::MAX } else { spec.limits.body_bytes_max };
    if declared.is_some_and(|size| size > most) {
        return Err(Problem::BodyTooLarge);
    }
    if declared.is_some_and(|size| size <= HELD_MAX.max(held_at_least)) {
        let held = hold(body, most, idle).await.map_err(|progress| match progress {
            Progress::TooLarge => Problem::BodyTooLarge,
            Progress::Slow => Problem::SlowBody,
            Progress::Open { .. } | Progress::Done(_) | Progress::Broken => {
                Problem::Malformed("the body ended early")
            }
        })?;
        return Ok((Replay::Held(held), None));
    }
    let (body, progress) = SentBody::passed(body, most, idle);
    Ok((Replay::Once(Some(body)), Some(progress)))
}

/// Counts a request that no instance answered; what was wrong with it itself says nothing of a release.
fn count(route: &RouteState, problem: Problem, part: Option<&Part>) {
    let event = match problem {
        Problem::Malformed(_)
        | Problem::Coding
        | Problem::Method
        | Problem::NoRoute
        | Problem::TooManyFields
        | Problem::BodyTooLarge
        | Problem::SlowBody => ServiceEvent::Refused,
        Problem::NoInstance | Problem::Overload | Problem::Waited | Problem::Upstream | Problem::Timeout => {
            if let Some(part) = part {
                part.unanswered();
            }
            ServiceEvent::Unanswered
        }
    };
    route.service().counters.count(event);
}

fn speaks(route: &RouteState) -> HttpProtocol {
    match &route.spec().entry {
        Entry::Http { protocol, .. } => *protocol,
        Entry::Tcp { .. } => HttpProtocol::Http1,
    }
}

/// Whether it is a call of gRPC, which there is over HTTP/2 only ("gRPC over HTTP2").
fn is_grpc(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2
        && headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let rest = kind.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        })
}

/// HTTP/2 may spread cookies over several fields; HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
